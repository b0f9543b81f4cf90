// Of one tile: its blocks, which splats touch them, and what a splat does to a block. Compiled once per instruction set.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "simd.h"
#include "splat.h"

namespace silky {
namespace {

constexpr int kChunk = 256;  // splats that are tested at once: what lies behind a block that is done is not tested

// Sixteen pixels, or the corners of sixteen blocks: 0 .. 3 in a row, four rows.
const float kAcross[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
const float kDown[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};

struct Block {
  F16 x, y;                     // the pixels' centres
  F16 inside;                   // 1, or 0 for a pixel beyond the picture
  int column, row, wide, high;  // in the picture
};

struct Tile {
  int left, top;
  int64_t begin, end;  // of its splats in the list of pairs
  uint32_t blocks;     // a bit for each that holds a pixel of the picture

  Tile(const Scene& s, const Bins& bins, int number)
      : left(number % s.columns() * kTile),
        top(number / s.columns() * kTile),
        begin(bins.starts[number]),
        end(bins.starts[number + 1]),
        blocks(0) {
    for (int k = 0; k < 16; ++k)
      if (left + k % 4 * kBlock < s.width && top + k / 4 * kBlock < s.height) blocks |= 1u << k;
  }
  Block block(const Scene& s, int number) const {
    Block b;
    b.column = left + number % 4 * kBlock, b.row = top + number / 4 * kBlock;
    b.wide = std::min(kBlock, s.width - b.column), b.high = std::min(kBlock, s.height - b.row);
    b.x = load(kAcross) + (b.column + 0.5f), b.y = load(kDown) + (b.row + 0.5f);
    b.inside = splat(1.0f);
    if (b.wide < kBlock || b.high < kBlock)
      for (int i = 0; i < 16; ++i) b.inside.set(i, i % 4 < b.wide && i / 4 < b.high ? 1.0f : 0.0f);
    return b;
  }
};

// Up to kChunk splats of a tile, and the blocks that each touches.
struct Chunk {
  int count;
  const int32_t* ids;
  alignas(64) uint16_t touched[kChunk];
  alignas(64) int32_t list[kChunk + 16];

  Chunk(const Tile& tile, const Bins& bins, int64_t begin)
      : count(int(std::min<int64_t>(kChunk, tile.end - begin))), ids(bins.pairs + begin) {
    const F16 x = load(kAcross) * float(kBlock) + (tile.left + 0.5f), y = load(kDown) * float(kBlock) + (tile.top + 0.5f);
    const int last = int(tile.end - begin) - 1;
    for (int k = 0; k < count; ++k) {
      __builtin_prefetch(&bins.lines[ids[std::min(k + 16, last)]]);  // lines lie far apart
      touched[k] = uint16_t(touching(bins.lines[ids[k]], x, y));
    }
    for (int k = count; k % 16; ++k) touched[k] = 0;
  }

  // In which of sixteen blocks, whose first pixels' centres are at (x, y), a splat reaches alpha 1/255 somewhere: the exponent is largest
  // at the mean, or on one of the two edges nearest to it. A hair wider than exact: what is let through is tested again, pixel by pixel.
  SILKY_INLINE uint32_t touching(const Line& l, F16 x, F16 y) {
    const F16 low_x = x - l.x, high_x = low_x + float(kBlock - 1), low_y = y - l.y, high_y = low_y + float(kBlock - 1);
    const F16 dx = least(most(low_x, zero()), high_x), dy = least(most(low_y, zero()), high_y);
    const F16 along_y = least(most(l.slope_x * dx, low_y), high_y), along_x = least(most(l.slope_y * dy, low_x), high_x);
    const F16 one = (l.a * dx + l.b * along_y) * dx + l.c * along_y * along_y;
    const F16 two = (l.a * along_x + l.b * dy) * along_x + l.c * dy * dy;
    return bits(at_least(most(one, two), kLogSmallest - 1e-3f - l.o));
  }

  // The places in this chunk of the splats that touch a block, front to back, into `list`; how many.
  int of_block(int block) {
    int found = 0;
#if defined(__AVX512F__)
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i bit = _mm256_set1_epi16(int16_t(1u << block));
    for (int k = 0; k < count; k += 16) {
      const __mmask16 here = _mm256_test_epi16_mask(_mm256_load_si256(reinterpret_cast<const __m256i*>(touched + k)), bit);
      _mm512_storeu_si512(list + found, _mm512_maskz_compress_epi32(here, at));
      found += __builtin_popcount(here);
      at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
#else
    for (int k = 0; k < count; ++k) {
      list[found] = k;
      found += touched[k] >> block & 1;
    }
#endif
    return found;
  }
};

struct Hit {
  F16 alpha, left, passed, weight;  // left: 1 - alpha; passed: transmittance in front
  Mask free;                        // alpha is not clamped
  bool on;                          // something passes still
};

// What a splat does to a block; moves the transmittance on, past the stop too: weights are masked by it, so that the loop carries one
// product.
SILKY_INLINE Hit hit(const Line& l, const Block& b, F16* transmittance) {
  Hit h;
  const F16 dx = b.x - l.x, dy = b.y - l.y;
  const F16 exponent = (l.a * dx + l.b * dy) * dx + (l.c * dy * dy + l.o);
  const F16 raw = exp2_fast(exponent);  // of far too small ones garbage, which the mask removes
  h.free = at_most(raw, kLargestAlpha);
  h.alpha = where(both(at_least(exponent, kLogSmallest), at_most(exponent, l.o)), least(raw, splat(kLargestAlpha)));
  h.passed = *transmittance;
  h.left = 1.0f - h.alpha;
  *transmittance = h.passed * h.left;
  const Mask on = above(*transmittance, kStop);
  h.weight = where(on, h.passed * h.alpha);
  h.on = any(on);
  return h;
}

// A map [h, w, stride], its channels from `channel` on, to and from a block.
template <int C>
inline void read(const float* map, const Scene& s, const Block& b, int64_t stride, int64_t channel, F16* out) {
  alignas(64) float v[C][16];
  const float* at = map + (int64_t(b.row) * s.width + b.column) * stride + channel;
  const int64_t down = s.width * stride;
  if (b.wide == kBlock && b.high == kBlock) {  // sizes that the compiler knows
    for (int y = 0; y < kBlock; ++y)
      for (int x = 0; x < kBlock; ++x)
        for (int ch = 0; ch < C; ++ch) v[ch][4 * y + x] = at[down * y + stride * x + ch];
  } else {
    std::memset(v, 0, sizeof v);
    for (int y = 0; y < b.high; ++y)
      for (int x = 0; x < b.wide; ++x)
        for (int ch = 0; ch < C; ++ch) v[ch][4 * y + x] = at[down * y + stride * x + ch];
  }
  for (int ch = 0; ch < C; ++ch) out[ch] = load(v[ch]);
}
inline F16 read_one(const float* map, const Scene& s, const Block& b) {
  F16 out;
  read<1>(map, s, b, 1, 0, &out);
  return out;
}
template <int C>
inline void write(float* map, const Scene& s, const Block& b, int64_t stride, int64_t channel, const F16* value) {
  alignas(64) float v[C][16];
  for (int ch = 0; ch < C; ++ch) store(v[ch], value[ch]);
  float* at = map + (int64_t(b.row) * s.width + b.column) * stride + channel;
  const int64_t down = s.width * stride;
  for (int y = 0; y < b.high; ++y)
    for (int x = 0; x < b.wide; ++x)
      for (int ch = 0; ch < C; ++ch) at[down * y + stride * x + ch] = v[ch][4 * y + x];
}

// Calls visit(block number) for every set bit.
template <class Visit>
inline void each(uint32_t blocks, Visit&& visit) {
  for (; blocks; blocks &= blocks - 1) visit(__builtin_ctz(blocks));
}

// Calls visit(block number, block, chunk, how many of the chunk's splats its list now names) for chunk after chunk, front to back, until it
// says of a block that nothing passes any more.
template <class Visit>
inline void walk(const Scene& s, const Bins& bins, const Tile& tile, Visit&& visit) {
  uint32_t live = tile.blocks;
  for (int64_t begin = tile.begin; begin < tile.end && live; begin += kChunk) {
    Chunk chunk(tile, bins, begin);
    each(live, [&](int k) {
      const Block block = tile.block(s, k);
      if (visit(k, block, chunk, chunk.of_block(k))) live &= ~(1u << k);
    });
  }
}

}  // namespace
}  // namespace silky
