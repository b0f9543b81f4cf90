// Sixteen floats as one value, by the compilers' vector extensions: one register on AVX-512, two on AVX2, four elsewhere.
// Compiled once per instruction set (path.cc). Never with fast-math: it folds the rounding in exp2 to nothing.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The compiler's own judgement leaves some of them as calls, with every value through memory.
#define SILKY_INLINE static inline __attribute__((always_inline))

namespace silky {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;  // SSE2, NEON
#endif
constexpr int kParts = 16 / kWidth;
constexpr int kBlocked = kWidth / 2;  // sums of sixteen that the registers hold while others go by

// Compilers lower a vector wider than the machine's element by element: so sixteen floats are as many registers as it takes.
typedef float V __attribute__((vector_size(4 * kWidth)));
typedef int32_t M __attribute__((vector_size(4 * kWidth)));

struct F16 {
  V v[kParts];
  float operator[](int i) const { return reinterpret_cast<const float*>(v)[i]; }
  void set(int i, float x) { reinterpret_cast<float*>(v)[i] = x; }
};

#if defined(__AVX512F__)
typedef __mmask16 Mask;
#else
struct Mask {
  M v[kParts];
};
#endif

#define SILKY_EACH for (int i = 0; i < kParts; ++i)
SILKY_INLINE F16 splat(float x) {
  F16 r;
  SILKY_EACH r.v[i] = V{} + x;
  return r;
}
SILKY_INLINE F16 zero() { return splat(0.0f); }
#define SILKY_OPERATOR(op)                       \
  SILKY_INLINE F16 operator op(F16 a, F16 b) {   \
    SILKY_EACH a.v[i] = a.v[i] op b.v[i];        \
    return a;                                    \
  }                                              \
  SILKY_INLINE F16 operator op(F16 a, float b) { \
    SILKY_EACH a.v[i] = a.v[i] op b;             \
    return a;                                    \
  }                                              \
  SILKY_INLINE F16 operator op(float a, F16 b) { \
    SILKY_EACH b.v[i] = a op b.v[i];             \
    return b;                                    \
  }                                              \
  SILKY_INLINE F16& operator op##=(F16 & a, F16 b) { return a = a op b; }
SILKY_OPERATOR(+)
SILKY_OPERATOR(-)
SILKY_OPERATOR(*)
SILKY_OPERATOR(/)
#undef SILKY_OPERATOR

// Through a type, not memcpy: that goes over the stack in halves, which the next load waits for.
typedef float Anywhere __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
SILKY_INLINE F16 load(const float* p) {
  F16 r;
  SILKY_EACH r.v[i] = reinterpret_cast<const Anywhere*>(p)[i];
  return r;
}
SILKY_INLINE void store(float* p, F16 r) { SILKY_EACH reinterpret_cast<Anywhere*>(p)[i] = r.v[i]; }

#if defined(__AVX512F__)
SILKY_INLINE Mask at_least(F16 a, float b) { return _mm512_cmp_ps_mask((__m512)a.v[0], _mm512_set1_ps(b), _CMP_GE_OQ); }
SILKY_INLINE Mask at_most(F16 a, float b) { return _mm512_cmp_ps_mask((__m512)a.v[0], _mm512_set1_ps(b), _CMP_LE_OQ); }
SILKY_INLINE Mask above(F16 a, float b) { return _mm512_cmp_ps_mask((__m512)a.v[0], _mm512_set1_ps(b), _CMP_GT_OQ); }
SILKY_INLINE Mask both(Mask a, Mask b) { return a & b; }
SILKY_INLINE F16 where(Mask m, F16 a) { return {(V)_mm512_maskz_mov_ps(m, (__m512)a.v[0])}; }  // a, else 0
SILKY_INLINE uint32_t bits(Mask m) { return m; }
SILKY_INLINE bool any(Mask m) { return m != 0; }
SILKY_INLINE F16 least(F16 a, F16 b) { return {(V)_mm512_min_ps((__m512)a.v[0], (__m512)b.v[0])}; }
SILKY_INLINE F16 most(F16 a, F16 b) { return {(V)_mm512_max_ps((__m512)a.v[0], (__m512)b.v[0])}; }
SILKY_INLINE F16 inverse(F16 a) {  // 14 bits, and one step of Newton
  const __m512 x = (__m512)a.v[0], r = _mm512_rcp14_ps(x);
  return {(V)_mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.0f)))};
}
#else
#define SILKY_COMPARE(name, op)             \
  SILKY_INLINE Mask name(F16 a, float b) {  \
    Mask m;                                 \
    SILKY_EACH m.v[i] = a.v[i] op(V{} + b); \
    return m;                               \
  }
SILKY_COMPARE(at_least, >=)
SILKY_COMPARE(at_most, <=)
SILKY_COMPARE(above, >)
#undef SILKY_COMPARE
SILKY_INLINE Mask both(Mask a, Mask b) {
  SILKY_EACH a.v[i] &= b.v[i];
  return a;
}
SILKY_INLINE F16 where(Mask m, F16 a) {  // a, else 0
  SILKY_EACH a.v[i] = (V)((M)a.v[i] & m.v[i]);
  return a;
}
SILKY_INLINE F16 least(F16 a, F16 b) {
  SILKY_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
SILKY_INLINE F16 most(F16 a, F16 b) {
  SILKY_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
SILKY_INLINE F16 inverse(F16 a) { return 1.0f / a; }
// One bit per lane.
SILKY_INLINE uint32_t bits(Mask m) {
  uint32_t out = 0;
#if defined(__AVX2__)
  SILKY_EACH out |= uint32_t(_mm256_movemask_ps((__m256)m.v[i])) << (8 * i);
#elif defined(__SSE2__)
  SILKY_EACH out |= uint32_t(_mm_movemask_ps((__m128)m.v[i])) << (4 * i);
#else
  for (int k = 0; k < 16; ++k) out |= uint32_t(m.v[k / 4][k % 4] & 1) << k;
#endif
  return out;
}
SILKY_INLINE bool any(Mask m) {
#if defined(__SSE2__)
  return bits(m) != 0;
#else
  M all = m.v[0];
  for (int i = 1; i < kParts; ++i) all |= m.v[i];
  int64_t halves[2];
  __builtin_memcpy(halves, &all, sizeof halves);
  return (halves[0] | halves[1]) != 0;
#endif
}
#endif

SILKY_INLINE Mask below(F16 a, float b) { return above(zero() - a, -b); }
SILKY_INLINE F16 pick(Mask m, F16 a, F16 b) {
#if defined(__AVX512F__)
  return {(V)_mm512_mask_mov_ps((__m512)b.v[0], m, (__m512)a.v[0])};
#else
  SILKY_EACH a.v[i] = (V)(((M)a.v[i] & m.v[i]) | ((M)b.v[i] & ~m.v[i]));
  return a;
#endif
}
SILKY_INLINE F16 size_of(F16 a) {
  SILKY_EACH a.v[i] = (V)((M)a.v[i] & 0x7fffffff);
  return a;
}
SILKY_INLINE F16 root(F16 a) {
  alignas(64) float v[16];
  store(v, a);
  for (float& x : v) x = __builtin_sqrtf(x);
  return load(v);
}
SILKY_INLINE F16 ceiling(F16 a) {
  alignas(64) float v[16];
  store(v, a);
  for (float& x : v) x = __builtin_ceilf(x);
  return load(v);
}
SILKY_INLINE bool finite(const float* values, int64_t count) {
  uint32_t broken = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t word;
    __builtin_memcpy(&word, values + i, 4);
    broken |= (word & 0x7f800000u) == 0x7f800000u;
  }
  return !broken;
}

// log2 of positive normal numbers, to 1e-6: the series of atanh about the nearest power of two.
SILKY_INLINE F16 log2_fast(F16 x) {
  F16 r;
  SILKY_EACH {
    const M word = (M)x.v[i], exponent = (word - 0x3f3504f3) >> 23;  // of x / sqrt(1/2)
    const V m = (V)(word - (exponent << 23));
    const V s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    const V series = s * (((s2 * 0.41219859f + 0.57707802f) * s2 + 0.96179669f) * s2 + 2.88539008f);
    r.v[i] = series + __builtin_convertvector(exponent, V);
  }
  return r;
}

// 2^x for x in -126 .. 126, relative error 8e-8: minimax polynomial of degree 5 on -1/2 .. 1/2 about the nearest integer.
SILKY_INLINE F16 exp2_fast(F16 x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the nearest integer
  F16 r;
  SILKY_EACH {
    const V shifted = x.v[i] + magic;
    const V f = x.v[i] - (shifted - magic);
    // Not Horner: the chain is what a meeting waits for.
    const V f2 = f * f;
    const V p = ((f * 1.327647187e-3f + 9.675541334e-3f) * f2 + (f * 5.550713274e-2f + 2.402211972e-1f)) * f2 +
                (f * 6.931469671e-1f + 1.000000072f);
    r.v[i] = (V)((M)p + ((M)shifted << 23));
  }
  return r;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SILKY_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SILKY_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (M){__VA_ARGS__})
#endif

// Exchanges the odd lanes of a with the even ones of b, lanes counted in groups of 1, 2, 4 or 8: the steps of a transposition.
SILKY_INLINE void swap1(F16& a, F16& b) {
#if defined(__AVX512F__)
  const __m512 x = (__m512)a.v[0], y = (__m512)b.v[0];
  a.v[0] = (V)_mm512_mask_moveldup_ps(x, 0xAAAA, y);
  b.v[0] = (V)_mm512_mask_movehdup_ps(y, 0x5555, x);
#else
  SILKY_EACH {
    const V x = a.v[i], y = b.v[i];
#if defined(__AVX2__)
    a.v[i] = SILKY_SHUFFLE(x, y, 0, 8, 2, 10, 4, 12, 6, 14), b.v[i] = SILKY_SHUFFLE(x, y, 1, 9, 3, 11, 5, 13, 7, 15);
#else
    a.v[i] = SILKY_SHUFFLE(x, y, 0, 4, 2, 6), b.v[i] = SILKY_SHUFFLE(x, y, 1, 5, 3, 7);
#endif
  }
#endif
}
SILKY_INLINE void swap2(F16& a, F16& b) {
#if defined(__AVX512F__)
  const __m512 x = (__m512)a.v[0], y = (__m512)b.v[0];
  a.v[0] = (V)_mm512_shuffle_ps(x, y, 0x44), b.v[0] = (V)_mm512_shuffle_ps(x, y, 0xEE);
#else
  SILKY_EACH {
    const V x = a.v[i], y = b.v[i];
#if defined(__AVX2__)
    a.v[i] = SILKY_SHUFFLE(x, y, 0, 1, 8, 9, 4, 5, 12, 13), b.v[i] = SILKY_SHUFFLE(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
#else
    a.v[i] = SILKY_SHUFFLE(x, y, 0, 1, 4, 5), b.v[i] = SILKY_SHUFFLE(x, y, 2, 3, 6, 7);
#endif
  }
#endif
}
SILKY_INLINE void swap4(F16& a, F16& b) {
#if defined(__AVX512F__)
  const __m512 x = (__m512)a.v[0], y = (__m512)b.v[0];
  a.v[0] = (V)_mm512_mask_shuffle_f32x4(x, 0xF0F0, y, y, 0x80), b.v[0] = (V)_mm512_mask_shuffle_f32x4(y, 0x0F0F, x, x, 0x31);
#elif defined(__AVX2__)
  SILKY_EACH {
    const V x = a.v[i], y = b.v[i];
    a.v[i] = SILKY_SHUFFLE(x, y, 0, 1, 2, 3, 8, 9, 10, 11), b.v[i] = SILKY_SHUFFLE(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
  }
#else
  const V x1 = a.v[1], x3 = a.v[3];
  a.v[1] = b.v[0], a.v[3] = b.v[2], b.v[0] = x1, b.v[2] = x3;
#endif
}
SILKY_INLINE void swap8(F16& a, F16& b) {
#if defined(__AVX512F__)
  const __m512 x = (__m512)a.v[0], y = (__m512)b.v[0];
  a.v[0] = (V)_mm512_shuffle_f32x4(x, y, 0x44), b.v[0] = (V)_mm512_shuffle_f32x4(x, y, 0xEE);
#elif defined(__AVX2__)
  const V x1 = a.v[1];
  a.v[1] = b.v[0], b.v[0] = x1;
#else
  const V x2 = a.v[2], x3 = a.v[3];
  a.v[2] = b.v[0], a.v[3] = b.v[1], b.v[0] = x2, b.v[1] = x3;
#endif
}

// Lane j of vector i becomes lane i of vector j.
SILKY_INLINE void transpose(F16* v) {
#define SILKY_PAIRS(d)         \
  for (int i = 0; i < 16; ++i) \
    if (!(i & d)) swap##d(v[i], v[i + d]);
  SILKY_PAIRS(1)
  SILKY_PAIRS(2)
  SILKY_PAIRS(4)
  SILKY_PAIRS(8)
#undef SILKY_PAIRS
}

// Reads components of [n, stride] into vectors; lanes beyond `count` are 0.
template <int N>
SILKY_INLINE void columns(const float* at, int64_t stride, int count, F16* out) {
  alignas(64) float v[N][16] = {};
  for (int j = 0; j < count; ++j)
    for (int k = 0; k < N; ++k) v[k][j] = at[stride * j + k];
  for (int k = 0; k < N; ++k) out[k] = load(v[k]);
}
template <int N>
SILKY_INLINE void set_columns(float* at, int64_t stride, int count, const F16* in) {
  alignas(64) float v[N][16];
  for (int k = 0; k < N; ++k) store(v[k], in[k]);
  for (int j = 0; j < count; ++j)
    for (int k = 0; k < N; ++k) at[stride * j + k] = v[k][j];
}

SILKY_INLINE float sum(F16 a) {
  for (int i = 1; i < kParts; ++i) a.v[0] += a.v[i];
  float total = 0;
  for (int i = 0; i < kWidth; ++i) total += a[i];
  return total;
}

}  // namespace silky
