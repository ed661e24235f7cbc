// Vectors of T as wide as the instruction set that this file is compiled for has registers.
//
// Everything stands in an anonymous namespace, here and in all that kernels.cpp includes: the same
// sources are compiled once for each instruction set, and of two functions with one name the
// linker would keep one, which a lesser processor might then run.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using peephole::Arithmetic;
using peephole::BFloat16;

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Whatever the compiler thinks of it. Of a function that only asks for memory ahead it thinks that
// nothing is done there, and leaves out the call; and over no call does it keep a constant in a
// register.
#define INLINED __attribute__((always_inline))
#define ALWAYS_INLINE INLINED inline

template <class T>
struct VectorOf;

template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t integers __attribute__((vector_size(kVectorBytes)));
};

template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t integers __attribute__((vector_size(kVectorBytes)));
};

// Widened when they are loaded, and rounded when they are stored.
template <>
struct VectorOf<BFloat16> : VectorOf<float> {};

template <class T>
using Vec = typename VectorOf<T>::type;

// Whole numbers as wide as T: the bits of a Vec<T>, and what its comparisons give (0 or -1).
template <class T>
using IntVec = typename VectorOf<T>::integers;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(Arithmetic<T>));

template <class T>
inline Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

// The first `count` lanes; the others are zero. Memory past them is not touched.
template <class T>
inline Vec<T> load(const T* from, int count) {
  if (count >= kLanes<T>) return load(from);
  Vec<T> v{};
  for (int i = 0; i < count; ++i) v[i] = from[i];
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v, int count) {
  if (count >= kLanes<T>) return store(to, v);
  for (int i = 0; i < count; ++i) to[i] = v[i];
}

#if defined(__AVX512BF16__)
// Sixteen numbers of 16 bits, each as the lower half of a lane.
inline IntVec<float> lower_halves(__m256i numbers) {
  return (IntVec<float>)_mm512_maskz_cvtepu16_epi32(0xFFFF, numbers);
}

inline Vec<float> load(const BFloat16* from) {
  return (Vec<float>)(lower_halves(_mm256_loadu_si256((const __m256i*)from)) << 16);
}

// A subnormal number is stored as zero, and a NaN as a NaN.
inline void store(BFloat16* to, Vec<float> v) {
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

inline Vec<float> load(const BFloat16* from, int count) {
  if (count >= 16) return load(from);
  __m256i numbers = _mm256_maskz_loadu_epi16((1 << count) - 1, from);
  return (Vec<float>)(lower_halves(numbers) << 16);
}

// Masked only where it must be: some processors take far longer then.
inline void store(BFloat16* to, Vec<float> v, int count) {
  if (count >= 16) return store(to, v);
  _mm256_mask_storeu_epi16(to, (1 << count) - 1, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
#endif

// All lanes, where a number of them is asked for.
template <class T>
struct All {
  ALWAYS_INLINE constexpr operator int() const { return kLanes<T>; }
};

template <class T>
inline Vec<T> load(const T* from, All<T>) {
  return load(from);
}

template <class T>
inline void store(T* to, Vec<T> v, All<T>) {
  store(to, v);
}

// Copy numbers, whose pointers may be null where there are none.
template <class T>
inline void copy(const T* from, int64_t count, T* to) {
  if (count) std::memcpy(to, from, count * sizeof(T));
}

// The same from or to a narrower form.
template <class From, class To>
inline void copy(const From* from, int64_t count, To* to) {
  for (int64_t i = 0; i < count; i += kLanes<To>) {
    int left = count - i < kLanes<To> ? int(count - i) : kLanes<To>;
    store(to + i, load(from + i, left), left);
  }
}

template <class T>
inline void zero(T* to, int64_t count) {
  if (count) std::memset(to, 0, count * sizeof(T));
}

// a * b + c, rounded once where the instruction set can.
inline Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// a < b ? a : b and a > b ? a : b, so b where one of them is a NaN. The processor has instructions
// that do just this, but gcc does not find them for vectors. (The masks take every lane; without
// them gcc 12 warns of its own header.)
#if defined(__AVX512F__)
inline Vec<float> lesser(Vec<float> a, Vec<float> b) { return _mm512_maskz_min_ps(0xFFFF, a, b); }
inline Vec<float> greater(Vec<float> a, Vec<float> b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
inline Vec<double> lesser(Vec<double> a, Vec<double> b) { return _mm512_maskz_min_pd(0xFF, a, b); }
inline Vec<double> greater(Vec<double> a, Vec<double> b) { return _mm512_maskz_max_pd(0xFF, a, b); }
#elif defined(__AVX2__)
inline Vec<float> lesser(Vec<float> a, Vec<float> b) { return _mm256_min_ps(a, b); }
inline Vec<float> greater(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
inline Vec<double> lesser(Vec<double> a, Vec<double> b) { return _mm256_min_pd(a, b); }
inline Vec<double> greater(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }
#elif defined(__SSE2__)
inline Vec<float> lesser(Vec<float> a, Vec<float> b) { return _mm_min_ps(a, b); }
inline Vec<float> greater(Vec<float> a, Vec<float> b) { return _mm_max_ps(a, b); }
inline Vec<double> lesser(Vec<double> a, Vec<double> b) { return _mm_min_pd(a, b); }
inline Vec<double> greater(Vec<double> a, Vec<double> b) { return _mm_max_pd(a, b); }
#else
inline Vec<float> lesser(Vec<float> a, Vec<float> b) { return a < b ? a : b; }
inline Vec<float> greater(Vec<float> a, Vec<float> b) { return a > b ? a : b; }
inline Vec<double> lesser(Vec<double> a, Vec<double> b) { return a < b ? a : b; }
inline Vec<double> greater(Vec<double> a, Vec<double> b) { return a > b ? a : b; }
#endif

// x within [lowest, highest]; a NaN stays one.
template <class T>
inline Vec<T> clamp(Vec<T> x, T lowest, T highest) {
  return greater(broadcast<T>(lowest), lesser(broadcast<T>(highest), x));
}

}  // namespace
