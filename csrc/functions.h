// exp, tanh and the sigmoid of every lane of a vector.
//
// All three rest on exp(x) = 2^k exp(r), with k the whole number nearest to x / ln 2, so that
// |r| <= ln 2 / 2, and a polynomial for exp(r). There is no branch on data: limits and signs are
// set through masks, and no lane sees another. Infinities give the limits, a NaN gives a NaN, and
// subnormal numbers are numbers like others, going in and coming out.
//
// Greatest errors, in units in the last place of the result, with fused multiply-add and without
// (float32: of all 2^32 numbers; float64: of 13 million):
//
//             float32        float64
//   exp       0.93   1.21    0.87   1.15
//   tanh      1.73   1.92    1.65   1.81
//   sigmoid   2.49   2.49    2.44   2.44
#pragma once

#include "vector.h"

namespace {

// `polynomial` is q in exp(r) ~ 1 + r + r^2 q(r), the highest power first: the minimax polynomial
// for the error of exp(r) - 1 relative to r, by the Remez algorithm in 40 digits, then rounded.
// That error is at most 0.27 * 2^-24 (float) and 0.01 * 2^-53 (double).
//
// ln 2 is the sum of ln2_high, short enough for k * ln2_high to be exact, and ln2_low; also of
// ln2 and ln2_error.
template <class T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr int mantissa_bits = 23;
  static constexpr int exponent_bias = 127;
  static constexpr float log2_e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.63p-1f;
  static constexpr float ln2_low = -0x1.bd0106p-13f;
  static constexpr float ln2 = 0x1.62e430p-1f;
  static constexpr float ln2_error = -0x1.05c610p-29f;
  static constexpr int terms = 5;
  static constexpr float polynomial[terms] = {
      0x1.6d9956p-10f, 0x1.122838p-7f, 0x1.555486p-5f, 0x1.5554b0p-3f, 0x1p-1f,
  };
  // exp is infinite above the first and zero below the second.
  static constexpr float exp_highest = 89.0f;
  static constexpr float exp_lowest = -104.0f;
  // The functions round to 1 from here on.
  static constexpr float sigmoid_highest = 30.0f;
  static constexpr float tanh_highest = 9.5f;
};

template <>
struct Constants<double> {
  static constexpr int mantissa_bits = 52;
  static constexpr int exponent_bias = 1023;
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42feep-1;
  static constexpr double ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double ln2 = 0x1.62e42fefa39efp-1;
  static constexpr double ln2_error = 0x1.abc9e3b39803fp-56;
  static constexpr int terms = 11;
  static constexpr double polynomial[terms] = {
      0x1.1f956d983ae47p-29, 0x1.af5ef280f5e32p-26, 0x1.27e4c59a49568p-22, 0x1.71ddf83876a10p-19,
      0x1.a01a01b0ba181p-16, 0x1.a01a01afeee8ep-13, 0x1.6c16c16c14447p-10, 0x1.111111110f699p-7,
      0x1.555555555555ap-5,  0x1.5555555555559p-3,  0x1p-1,
  };
  static constexpr double exp_highest = 710.0;
  static constexpr double exp_lowest = -746.0;
  static constexpr double sigmoid_highest = 60.0;
  static constexpr double tanh_highest = 20.0;
};

// A number to add that leaves no bits for a fraction: the sum of it and x is x rounded to a whole
// number, plus `offset`, and that is also what the lowest bits of the sum hold.
template <class T>
constexpr T rounding_term(int offset) {
  return T(int64_t(3) << (Constants<T>::mantissa_bits - 1)) + T(offset);
}

// 2^k from the sum of k and rounding_term(exponent_bias), for k within the exponents of T.
template <class T>
inline Vec<T> power_of_two(Vec<T> sum) {
  return (Vec<T>)((IntVec<T>)sum << Constants<T>::mantissa_bits);
}

// x - k * ln 2.
template <class T>
inline Vec<T> reduce(Vec<T> x, Vec<T> k) {
  x = multiply_add(k, broadcast<T>(-Constants<T>::ln2_high), x);
  return multiply_add(k, broadcast<T>(-Constants<T>::ln2_low), x);
}

// factor * q(multiple * r).
template <class T>
inline Vec<T> polynomial(Vec<T> r, T multiple, T factor) {
  using C = Constants<T>;
  for (int i = 1; i < C::terms; ++i) factor *= multiple;
  Vec<T> sum = broadcast<T>(C::polynomial[0] * factor);
  for (int i = 1; i < C::terms; ++i) {
    factor /= multiple;
    sum = multiply_add(sum, r, broadcast<T>(C::polynomial[i] * factor));
  }
  return sum;
}

// exp(r) for |r| <= ln 2 / 2.
template <class T>
inline Vec<T> exp_of_remainder(Vec<T> r) {
  const Vec<T> one = broadcast<T>(1);
  return multiply_add(multiply_add(polynomial<T>(r, 1, 1), r, one), r, one);
}

// 2^k is split in two factors, as it may itself be out of range where the result is not.
template <class T>
inline Vec<T> exponential(Vec<T> x) {
  using C = Constants<T>;
  x = clamp<T>(x, C::exp_lowest, C::exp_highest);
  const Vec<T> rounding = broadcast<T>(rounding_term<T>(C::exponent_bias));
  const Vec<T> k = multiply_add(x, broadcast<T>(C::log2_e), rounding) - rounding;
  const Vec<T> half = multiply_add(k, broadcast<T>(T(0.5)), rounding);
  const Vec<T> rest = k - (half - rounding) + rounding;
  const Vec<T> factor = exp_of_remainder<T>(reduce<T>(x, k));
  return factor * power_of_two<T>(half) * power_of_two<T>(rest);
}

// 1 / (1 + exp(-x)). Both parts of the fraction are divided by 2^shift, so that exp(-x) stays in
// range until the result is below half the smallest subnormal number.
template <class T>
ALWAYS_INLINE Vec<T> logistic(Vec<T> x) {
  using C = Constants<T>;
  constexpr int shift = C::mantissa_bits + 1;
  x = clamp<T>(x, C::exp_lowest, C::sigmoid_highest);
  const Vec<T> rounding = broadcast<T>(rounding_term<T>(C::exponent_bias - shift));
  const Vec<T> sum = multiply_add(x, broadcast<T>(-C::log2_e), rounding);
  const Vec<T> factor = exp_of_remainder<T>(reduce<T>(-x, sum - rounding));
  const Vec<T> one = broadcast<T>(T(1) / T(int64_t(1) << shift));
  return one / multiply_add(factor, power_of_two<T>(sum), one);
}

// tanh(a) = w / (1 + w) for a = |x| and w = (exp(2a) - 1) / 2. With exp(2a) = 2^k exp(2r),
//
//   w = 2^k (r + tail) + (2^k - 1) / 2,  tail = 2 r^2 q(2r),
//
// which near 0, where k = 0, is as exact as r = a. What the comments call exact has k = 1, from
// a = 0.17 to 0.52, in mind, where errors count most; with greater k the slope of tanh hides them.
template <class T>
ALWAYS_INLINE Vec<T> hyperbolic_tangent(Vec<T> x) {
  using C = Constants<T>;
  const IntVec<T> sign = (IntVec<T>)x & (IntVec<T>)broadcast<T>(T(-0.0));
  const Vec<T> a = lesser(broadcast<T>(C::tanh_highest), (Vec<T>)((IntVec<T>)x ^ sign));
  const Vec<T> rounding = broadcast<T>(rounding_term<T>(C::exponent_bias));
  const Vec<T> sum = multiply_add(a, broadcast<T>(2 * C::log2_e), rounding);
  const Vec<T> k = sum - rounding;
  const Vec<T> power = power_of_two<T>(sum);
  // An exact difference, more so than with ln 2 in two parts.
  const Vec<T> r = multiply_add(k, broadcast<T>(-C::ln2 / 2), a);
  Vec<T> tail = r * r * polynomial<T>(r, 2, 2);
  // In float the error of ln 2 is too small to matter.
  if constexpr (sizeof(T) == 8) tail = multiply_add(k, broadcast<T>(-C::ln2_error / 2), tail);
  // The sum without the tail is exact, so that of all sums only the last is rounded.
  const Vec<T> half = broadcast<T>(T(0.5));
  const Vec<T> line = multiply_add(power, r, multiply_add(power, half, -half));
  const Vec<T> w = multiply_add(power, tail, line);
  const Vec<T> ratio = w / (1 + w);
  // w / (1 + w) = w - w * w / (1 + w), where for small w the error of the division counts less.
  const Vec<T> y = w < 1 ? multiply_add(-w, ratio, w) : ratio;
  return (Vec<T>)((IntVec<T>)y | sign);
}

inline Vec<float> vector_exp(Vec<float> x) { return exponential<float>(x); }
inline Vec<double> vector_exp(Vec<double> x) { return exponential<double>(x); }

ALWAYS_INLINE Vec<float> vector_tanh(Vec<float> x) { return hyperbolic_tangent<float>(x); }
ALWAYS_INLINE Vec<double> vector_tanh(Vec<double> x) { return hyperbolic_tangent<double>(x); }

ALWAYS_INLINE Vec<float> vector_sigmoid(Vec<float> x) { return logistic<float>(x); }
ALWAYS_INLINE Vec<double> vector_sigmoid(Vec<double> x) { return logistic<double>(x); }

template <class T, class Function>
inline void apply(Function function, const T* x, T* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    const int count = n - i < kLanes<T> ? int(n - i) : kLanes<T>;
    store(y + i, function(load(x + i, count)), count);
  }
}

// One of the functions (0 exp, 1 tanh, 2 sigmoid) of n numbers, for the tests.
template <class T>
void evaluate(int function, const T* x, T* y, int64_t n) {
  if (function == 0) apply([](Vec<T> v) { return vector_exp(v); }, x, y, n);
  if (function == 1) apply([](Vec<T> v) { return vector_tanh(v); }, x, y, n);
  if (function == 2) apply([](Vec<T> v) { return vector_sigmoid(v); }, x, y, n);
}

}  // namespace
