// What a lane of a packed matrix holds, and how two such lanes are multiplied.
//
// A lane holds one number, for one value of k. Of bfloat16 it holds two, for two values of k that
// follow each other, since the processor multiplies and adds such pairs:
//
//     sum[lane] += a[lane][0] * b[lane][0] + a[lane][1] * b[lane][1]
//
// in float32. (It takes subnormal numbers for zeros, in products and in sums.) Where the number of
// values of k is odd, the last pair of both has a zero.
#pragma once

#include "vector.h"

namespace {

template <class S>
struct Lane {
  static constexpr int kPerLane = 1;  // values of k

  static Vec<S> load(const S* from) { return ::load(from); }
  static void store(S* to, Vec<S> lanes) { ::store(to, lanes); }

  // The numbers of a row for one lane, in all lanes.
  static Vec<S> broadcast(const S* row) { return ::broadcast(*row); }

  // A lane for each `kPerLane` of `count` numbers of a row, or for all that a vector has place for.
  static Vec<S> along(const S* row, int64_t count) {
    return ::load(row, count < kLanes<S> ? int(count) : kLanes<S>);
  }

  // A lane for each of `count` columns: its numbers in `kPerLane` rows, if there are so many.
  static Vec<S> across(const S* row, int64_t, int64_t, int count) { return ::load(row, count); }

  // a * b + sum.
  static Vec<S> multiply_add(Vec<S> a, Vec<S> b, Vec<S> sum) {
    return ::multiply_add(a, b, sum);
  }
};

#if defined(__AVX512BF16__)
// Vectors of pairs go as vectors of floats, which have their size.
template <>
struct Lane<BFloat16> {
  static constexpr int kPerLane = 2;
  using Pairs = Vec<float>;

  static Pairs load(const BFloat16* from) { return (Pairs)_mm512_loadu_si512(from); }
  static void store(BFloat16* to, Pairs lanes) { _mm512_storeu_si512(to, (__m512i)lanes); }

  static Pairs broadcast(const BFloat16* row) {
    int32_t pair;
    std::memcpy(&pair, row, sizeof pair);
    return (Pairs)_mm512_set1_epi32(pair);
  }

  // Of a last number that has no other.
  static Pairs broadcast_one(const BFloat16* row) { return (Pairs)_mm512_set1_epi32(row->bits); }

  static Pairs along(const BFloat16* row, int64_t count) {
    if (count >= 2 * kLanes<BFloat16>) return load(row);
    return (Pairs)_mm512_maskz_loadu_epi16((uint32_t(1) << count) - 1, row);
  }

  static Pairs across(const BFloat16* row, int64_t step, int64_t rows, int count) {
    return pairs(::load(row, count), rows > 1 ? ::load(row + step, count) : Vec<float>{});
  }

  // Of two numbers a lane, rounded.
  static Pairs pairs(Vec<float> first, Vec<float> second) {
    IntVec<float> low = lower_halves((__m256i)_mm512_cvtneps_pbh((__m512)first));
    IntVec<float> high = lower_halves((__m256i)_mm512_cvtneps_pbh((__m512)second));
    return (Pairs)(low | high << 16);
  }

  static Vec<float> multiply_add(Pairs a, Pairs b, Vec<float> sum) {
    return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512)a, (__m512bh)(__m512)b);
  }
};
#endif

}  // namespace
