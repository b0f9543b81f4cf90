// Sixteen floats as one value, by the compilers' vector extensions: one register on AVX-512, two on AVX2, four elsewhere.
// Compiled once per instruction set (path.cc). Never with fast-math: it folds the rounding in exp2 to nothing.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace silky {

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));

static inline F16 splat(float x) { return F16{} + x; }
static inline I16 splat(int32_t x) { return I16{} + x; }
static inline F16 select(I16 mask, F16 a, F16 b) { return mask ? a : b; }
static inline F16 least(F16 a, F16 b) { return a < b ? a : b; }
static inline F16 most(F16 a, F16 b) { return a > b ? a : b; }

static inline F16 load(const float* p) {
  F16 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, F16 v) { __builtin_memcpy(p, &v, sizeof v); }

// One bit per lane of a mask of 0 and -1.
static inline uint32_t bits(I16 mask) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  __m256 halves[2];
  __builtin_memcpy(halves, &mask, sizeof mask);
  return _mm256_movemask_ps(halves[0]) | (_mm256_movemask_ps(halves[1]) << 8);
#else
  uint32_t out = 0;
  for (int i = 0; i < 16; ++i) out |= uint32_t(mask[i] & 1) << i;
  return out;
#endif
}

static inline bool any(I16 mask) {
#if defined(__AVX2__)
  return bits(mask) != 0;
#else
  int32_t all = 0;
  for (int i = 0; i < 16; ++i) all |= mask[i];
  return all != 0;
#endif
}

// 2^x for x in -126 .. 126, relative error 8e-8: minimax polynomial of degree 5 on -1/2 .. 1/2 about the nearest integer.
static inline F16 exp2_fast(F16 x) {
  const F16 magic = splat(12582912.0f);  // 1.5 * 2^23: the sum's low bits are the nearest integer
  F16 shifted = x + magic;
  F16 f = x - (shifted - magic);
  I16 whole;
  __builtin_memcpy(&whole, &shifted, sizeof whole);
  F16 p = splat(1.327647187e-3f);
  p = p * f + 9.675541334e-3f;
  p = p * f + 5.550713274e-2f;
  p = p * f + 2.402211972e-1f;
  p = p * f + 6.931469671e-1f;
  p = p * f + 1.000000072f;
  I16 raw;
  __builtin_memcpy(&raw, &p, sizeof raw);
  raw += whole << 23;
  F16 out;
  __builtin_memcpy(&out, &raw, sizeof out);
  return out;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SILKY_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SILKY_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (I16){__VA_ARGS__})
#endif

// Sums of neighbouring lanes of a and b, interleaved: after four rounds lane i of the last vector is the sum over the lanes of vector i.
static inline F16 fold1(F16 a, F16 b) {
  return SILKY_SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         SILKY_SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
static inline F16 fold2(F16 a, F16 b) {
  return SILKY_SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         SILKY_SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline F16 fold4(F16 a, F16 b) {
  return SILKY_SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
         SILKY_SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}
static inline F16 fold8(F16 a, F16 b) {
  return SILKY_SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         SILKY_SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

// Lane i of the result: the sum over the lanes of v[i], i < N <= 16; the other lanes are 0.
template <int N>
static inline F16 sums(const F16* v) {
  const F16 zero = F16{};
  auto at = [&](int i) { return i < N ? v[i] : zero; };
  auto one = [&](int i) { return i < N ? fold1(at(i), at(i + 1)) : zero; };
  auto two = [&](int i) { return i < N ? fold2(one(i), one(i + 2)) : zero; };
  auto four = [&](int i) { return i < N ? fold4(two(i), two(i + 4)) : zero; };
  return fold8(four(0), four(8));
}

}  // namespace silky
