// Gradients, tile by tile, front to back with the forward's transmittances: of S = <cotangent, what lies behind>, the running rest,
// d alpha = T <cotangent, colour> - S / (1 - alpha). Sixteen meetings of splats with a block are gathered, then summed over their pixels by
// a transposition: lanes are then meetings.
#pragma once
#include "tile.h"

namespace silky {
namespace {

// The cotangents of a block: of the weights' sum (alpha, less the background), of depth; S, the product of all with what was made; and
// where the walk is.
struct Seen {
  F16 total, depth, rest, transmittance;
};

// `to` holds the cotangents of the channels, `image` what was made. `behind` gets each one's sum over the pixels of cotangent times what
// the background shows.
inline Seen see(const Scene& s, const Block& b, const Picture& made, const Picture& cotangent, const F16* to, const F16* image,
                float* behind) {
  Seen seen{read_one(cotangent.alpha, s, b), read_one(cotangent.depth, s, b), zero(), b.inside};
  const F16 alpha = read_one(made.alpha, s, b), left = 1.0f - alpha;
  for (int64_t ch = 0; ch < s.channels; ++ch) {
    seen.total -= to[ch] * s.background[ch];
    seen.rest += to[ch] * (image[ch] - left * s.background[ch]);
    behind[ch] += sum(to[ch] * left);
  }
  seen.rest += seen.total * alpha + seen.depth * read_one(made.depth, s, b);
  return seen;
}

// Sixteen meetings of a block.
struct Batch {
  F16 g[16], weights[16];          // per meeting, of the pixels: d loss / d power, and the weight
  alignas(64) float x[16], y[16];  // from the splat's mean to the block's middle
  const Line* lines[16];
  int rows[16];  // of the tile
  int count;
};

// Meets splats with a block; `along` is <cotangent, what the splat carries>, per meeting. True: nothing passes any more.
template <class Along>
SILKY_INLINE bool meet(Batch* batch, const Block& block, Seen* seen, Along&& along) {
  const float middle_x = block.column + 0.5f * kBlock, middle_y = block.row + 0.5f * kBlock;
  bool on = true;
  int j = 0;
  for (; j < batch->count; ++j) {
    const Line& line = *batch->lines[j];
    const Hit h = hit(line, block, &seen->transmittance);
    const F16 carried = along(j);
    seen->rest -= h.weight * carried;
    const F16 to_alpha = h.passed * carried - seen->rest * inverse(h.left);
    batch->g[j] = where(both(above(h.weight, 0.0f), h.free), h.alpha * to_alpha);
    batch->weights[j] = h.weight;
    batch->x[j] = middle_x - line.x, batch->y[j] = middle_y - line.y;
    on = h.on;
    if (!on) {
      batch->count = j + 1;
      break;
    }
  }
  for (j = batch->count; j < 16; ++j) batch->g[j] = batch->weights[j] = zero(), batch->x[j] = batch->y[j] = 0.0f;
  return !on;
}

// Of four values at -3/2, -1/2, 1/2, 3/2: their sum, first and second moment.
SILKY_INLINE void moments_of_four(F16 a, F16 b, F16 c, F16 d, F16* v) {
  const F16 outer = a + d, inner = b + c;
  v[0] = outer + inner;
  v[1] = (d - a) * 1.5f + (c - b) * 0.5f;
  v[2] = outer * 2.25f + inner * 0.25f;
}

// The six moments of g about the splats' means, lanes are meetings: sums of g, g dx, g dy, g dx^2, g dx dy, g dy^2.
SILKY_INLINE void moments(Batch* batch, F16* out) {
  F16* g = batch->g;
  transpose(g);
  F16 row[4][3], down[3][3];
  for (int y = 0; y < 4; ++y) moments_of_four(g[4 * y], g[4 * y + 1], g[4 * y + 2], g[4 * y + 3], row[y]);
  for (int k = 0; k < 3; ++k) moments_of_four(row[0][k], row[1][k], row[2][k], row[3][k], down[k]);
  const F16 x = load(batch->x), y = load(batch->y);
  const F16 all = down[0][0], of_x = down[1][0], of_y = down[0][1];
  out[0] = all;
  out[1] = of_x + x * all;
  out[2] = of_y + y * all;
  out[3] = down[2][0] + x * (of_x + out[1]);
  out[4] = down[1][1] + x * of_y + y * out[1];
  out[5] = down[0][2] + y * (of_y + out[2]);
}

// out[i] = sum over pixels of weights[pixel] (lanes are meetings) * cotangents[i][pixel].
template <int N>
SILKY_INLINE void over_pixels(const F16* weights, const F16* cotangents, F16* out) {
  alignas(64) float to[N][16];
  F16 total[N];
  for (int i = 0; i < N; ++i) store(to[i], cotangents[i]), total[i] = zero();
#pragma GCC unroll 16
  for (int p = 0; p < 16; ++p)
    for (int i = 0; i < N; ++i) total[i] += weights[p] * to[i][p];
  for (int i = 0; i < N; ++i) out[i] = total[i];
}

// Adds lane j of out[0 .. 15] to the row of meeting j.
SILKY_INLINE void add_rows(const Batch& batch, F16* out, float* rows) {
  transpose(out);
  for (int j = 0; j < batch.count; ++j) {
    float* row = rows + 16 * batch.rows[j];
    store(row, load(row) + out[j]);
  }
}

// Calls visit(block number, block, batch) for up to sixteen meetings at a time, front to back, until it says that nothing passes any more.
template <class Visit>
inline void in_batches(const Scene& s, const Bins& bins, const Tile& tile, Visit&& visit) {
  walk(s, bins, tile, [&](int k, const Block& block, const Chunk& chunk, int found) {
    Batch batch;
    for (int j = 0; j < found; j += 16) {
      batch.count = std::min(16, found - j);
      for (int i = 0; i < batch.count; ++i) {
        const int32_t* id = chunk.ids + chunk.list[j + i];
        batch.lines[i] = &bins.lines[*id], batch.rows[i] = int(id - bins.pairs - tile.begin);
      }
      if (visit(k, block, &batch)) return true;
    }
    return false;
  });
}

template <int C>
void backward_tile(const Scene& s, const Bins& bins, const Tile& tile, const Picture& made, const Picture& cotangent, float* rows,
                   float* behind) {
  Seen seen[16];
  struct Colours {
    F16 of[C];
  } to[16];
  each(tile.blocks, [&](int k) {
    const Block block = tile.block(s, k);
    F16 image[C];
    read<C>(cotangent.image, s, block, C, 0, to[k].of);
    read<C>(made.image, s, block, C, 0, image);
    seen[k] = see(s, block, made, cotangent, to[k].of, image, behind);
  });
  in_batches(s, bins, tile, [&](int k, const Block& block, Batch* batch) {
    const Colours own = to[k];
    Seen now = seen[k];
    const bool done = meet(batch, block, &now, [&](int j) {
      const Line& line = *batch->lines[j];
      F16 along = now.total + now.depth * line.depth;
      for (int ch = 0; ch < C; ++ch) along += own.of[ch] * line.colour[ch];
      return along;
    });
    seen[k].rest = now.rest, seen[k].transmittance = now.transmittance;
    F16 out[16];
    moments(batch, out);
    transpose(batch->weights);
    F16 cotangents[1 + C];
    cotangents[0] = now.depth;
    for (int ch = 0; ch < C; ++ch) cotangents[1 + ch] = own.of[ch];
    over_pixels<1 + C>(batch->weights, cotangents, out + 6);
    for (int i = 7 + C; i < 16; ++i) out[i] = zero();
    add_rows(*batch, out, rows);
    return done;
  });
}

// along[j] += sum over channels of to[ch] * colours[j][ch].
inline void add_along(const float* to, const float* const* colours, int64_t channels, F16* along) {
  F16 total[kBlocked];
  for (int i = 0; i < kBlocked; ++i) total[i] = along[i];
  for (int64_t ch = 0; ch < channels; ++ch) {
    const F16 here = load(to + 16 * ch);
    for (int i = 0; i < kBlocked; ++i) total[i] += here * colours[i][ch];
  }
  for (int i = 0; i < kBlocked; ++i) along[i] = total[i];
}

// rows[i][ch .. ch + 15] += sum over pixels of weights[i] (a float per pixel) * to[pixel][ch ..].
inline void add_colours(const F16* weights, const float* to, int64_t stride, float* const* rows) {
  F16 total[kBlocked];
  for (int i = 0; i < kBlocked; ++i) total[i] = load(rows[i]);
  for (int p = 0; p < 16; ++p) {
    const F16 here = load(to + stride * p);
    for (int i = 0; i < kBlocked; ++i) total[i] += weights[i][p] * here;
  }
  for (int i = 0; i < kBlocked; ++i) store(rows[i], total[i]);
}

void backward_tile_many(const Scene& s, const Bins& bins, const Tile& tile, const Picture& made, const Picture& cotangent, float* rows,
                        float* colours, float* behind) {
  static thread_local std::vector<float> memory;  // cotangents of the blocks by channel, then by pixel; a row for nobody
  const int64_t channels = s.channels, wide = padded(channels);
  memory.assign(2 * 16 * 16 * wide + 2 * wide, 0.0f);
  auto by_channel = [&](int k) { return memory.data() + 16 * wide * k; };
  auto by_pixel = [&](int k) { return memory.data() + 16 * wide * (16 + k); };
  float *nobody = memory.data() + 2 * 16 * 16 * wide, *blank = nobody + wide;
  Seen seen[16];
  std::vector<F16> to(channels), image(channels);
  each(tile.blocks, [&](int k) {
    const Block block = tile.block(s, k);
    for (int64_t ch = 0; ch < channels; ++ch) {
      read<1>(cotangent.image, s, block, channels, ch, &to[ch]);
      read<1>(made.image, s, block, channels, ch, &image[ch]);
      store(by_channel(k) + 16 * ch, to[ch]);
      for (int p = 0; p < 16; ++p) by_pixel(k)[wide * p + ch] = to[ch][p];
    }
    seen[k] = see(s, block, made, cotangent, to.data(), image.data(), behind);
  });
  in_batches(s, bins, tile, [&](int k, const Block& block, Batch* batch) {
    F16 along[16];
    const float* carried[16];
    float* own[16];
    for (int j = 0; j < 16; ++j) {
      const bool there = j < batch->count;
      carried[j] = there ? s.features + channels * (batch->lines[j] - bins.lines) : blank;
      along[j] = seen[k].total + seen[k].depth * (there ? batch->lines[j]->depth : 0.0f);
    }
    for (int j = 0; j < batch->count; j += kBlocked) add_along(by_channel(k), carried + j, channels, along + j);
    const bool done = meet(batch, block, &seen[k], [&](int j) { return along[j]; });
    for (int j = 0; j < 16; ++j) own[j] = j < batch->count ? colours + wide * batch->rows[j] : nobody;
    for (int64_t ch = 0; ch < wide; ch += 16)
      for (int j = 0; j < batch->count; j += kBlocked) {
        float* here[kBlocked];
        for (int i = 0; i < kBlocked; ++i) here[i] = own[j + i] + ch;
        add_colours(batch->weights + j, by_pixel(k) + ch, wide, here);
      }
    F16 out[16];
    moments(batch, out);
    transpose(batch->weights);
    over_pixels<1>(batch->weights, &seen[k].depth, out + 6);
    for (int i = 7; i < 16; ++i) out[i] = zero();
    add_rows(*batch, out, rows);
    return done;
  });
}

void backward(const Scene& s, const Bins& bins, int number, const Picture& made, const Picture& cotangent, float* rows, float* colours,
              float* background) {
  const Tile tile(s, bins, number);
  const int64_t count = tile.end - tile.begin;
  float *own = rows + 16 * tile.begin, *behind = background + s.channels * number;
  std::memset(own, 0, sizeof(float) * 16 * count);
  std::fill(behind, behind + s.channels, 0.0f);
  switch (s.channels) {
    case 1:
      return backward_tile<1>(s, bins, tile, made, cotangent, own, behind);
    case 2:
      return backward_tile<2>(s, bins, tile, made, cotangent, own, behind);
    case 3:
      return backward_tile<3>(s, bins, tile, made, cotangent, own, behind);
    case 4:
      return backward_tile<4>(s, bins, tile, made, cotangent, own, behind);
    default: {
      float* own_colours = colours + padded(s.channels) * tile.begin;
      std::memset(own_colours, 0, sizeof(float) * padded(s.channels) * count);
      return backward_tile_many(s, bins, tile, made, cotangent, own, own_colours, behind);
    }
  }
}

constexpr int kAhead = 32;  // rows lie far apart

void gather(const Scene& s, const Bins& bins, const float* rows, const float* colours, int64_t begin, int64_t end, const Gradients& out) {
  const int32_t all = bins.first[s.n];
  for (int64_t i = begin; i < end; ++i) {
    float* to_features = out.features + s.channels * i;
    F16 total = zero();
    for (int32_t j = bins.first[i]; j < bins.first[i + 1]; ++j) {
      __builtin_prefetch(rows + 16 * int64_t(bins.places[std::min(j + kAhead, all - 1)]));
      total += load(rows + 16 * int64_t(bins.places[j]));
    }
    if (colours) {
      std::fill(to_features, to_features + s.channels, 0.0f);
      for (int32_t j = bins.first[i]; j < bins.first[i + 1]; ++j) {
        const float* row = colours + padded(s.channels) * bins.places[j];
        for (int64_t ch = 0; ch < s.channels; ++ch) to_features[ch] += row[ch];
      }
    }
    float sum[16];
    store(sum, total);
    if (!colours)
      for (int64_t ch = 0; ch < s.channels; ++ch) to_features[ch] = sum[7 + ch];
    // d power / d mean = conic d.
    const float a = s.conics[3 * i], b = s.conics[3 * i + 1], c = s.conics[3 * i + 2];
    const bool listed = bins.first[i] < bins.first[i + 1];
    out.means[2 * i] = listed ? a * sum[1] + b * sum[2] : 0.0f;
    out.means[2 * i + 1] = listed ? b * sum[1] + c * sum[2] : 0.0f;
    out.conics[3 * i] = -0.5f * sum[3];
    out.conics[3 * i + 1] = -sum[4];
    out.conics[3 * i + 2] = -0.5f * sum[5];
    out.opacities[i] = listed ? sum[0] / std::max(s.opacities[i], 1.0f / 255.0f) : 0.0f;
    out.depths[i] = sum[6];
  }
}

}  // namespace
}  // namespace silky
