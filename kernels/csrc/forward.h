// Pictures, tile by tile.
#pragma once
#include "tile.h"

namespace silky {
namespace {

template <int C>
struct Canvas {
  F16 transmittance, total, depth, colour[C];

  void begin(F16 inside) {
    transmittance = inside, total = depth = zero();
    for (int ch = 0; ch < C; ++ch) colour[ch] = zero();
  }
};

template <int C>
void forward_tile(const Scene& s, const Bins& bins, int number, const Picture& out) {
  const Tile tile(s, bins, number);
  Canvas<C> canvas[16];
  each(tile.blocks, [&](int k) { canvas[k].begin(tile.block(s, k).inside); });
  walk(s, bins, tile, [&](int k, const Block& block, const Chunk& chunk, int found) {
    Canvas<C> c = canvas[k];
    bool on = true;
    for (int j = 0; on && j < found; ++j) {
      const Line& line = bins.lines[chunk.ids[chunk.list[j]]];
      const Hit h = hit(line, block, &c.transmittance);
      c.total += h.weight;
      c.depth += h.weight * line.depth;
      for (int ch = 0; ch < C; ++ch) c.colour[ch] += h.weight * line.colour[ch];
      on = h.on;
    }
    canvas[k] = c;
    return !on;
  });
  each(tile.blocks, [&](int k) {
    const Block block = tile.block(s, k);
    const Canvas<C>& c = canvas[k];
    F16 image[C];
    for (int ch = 0; ch < C; ++ch) image[ch] = c.colour[ch] + (1.0f - c.total) * s.background[ch];
    write<1>(out.alpha, s, block, 1, 0, &c.total);
    write<1>(out.depth, s, block, 1, 0, &c.depth);
    write<C>(out.image, s, block, C, 0, image);
  });
}

// sums[ch] += sum over j of weights[j] * colours[j][ch], sixteen pixels at once: several channels in registers.
template <int W>
inline void add_channels(const F16* weights, const float* const* colours, int count, int64_t ch, float* sums) {
  F16 total[W];
  for (int i = 0; i < W; ++i) total[i] = load(sums + 16 * (ch + i));
  for (int j = 0; j < count; ++j)
    for (int i = 0; i < W; ++i) total[i] += weights[j] * colours[j][ch + i];
  for (int i = 0; i < W; ++i) store(sums + 16 * (ch + i), total[i]);
}

// Weights of a batch of splats first, then every channel's product with them.
void forward_tile_many(const Scene& s, const Bins& bins, int number, const Picture& out) {
  static thread_local std::vector<float> memory;
  const int64_t channels = s.channels;
  const Tile tile(s, bins, number);
  Canvas<1> canvas[16];
  memory.assign(16 * 16 * channels, 0.0f);
  auto sums = [&](int k) { return memory.data() + 16 * channels * k; };
  each(tile.blocks, [&](int k) { canvas[k].begin(tile.block(s, k).inside); });
  walk(s, bins, tile, [&](int k, const Block& block, const Chunk& chunk, int found) {
    Canvas<1>& c = canvas[k];
    bool on = true;
    for (int j = 0; on && j < found;) {
      F16 weights[16];
      const float* colours[16];
      int kept = 0;
      for (; on && j < found && kept < 16; ++j, ++kept) {
        const int32_t id = chunk.ids[chunk.list[j]];
        const Hit h = hit(bins.lines[id], block, &c.transmittance);
        c.total += h.weight;
        c.depth += h.weight * bins.lines[id].depth;
        weights[kept] = h.weight, colours[kept] = s.features + channels * id;
        on = h.on;
      }
      int64_t ch = 0;
      for (; ch + kBlocked <= channels; ch += kBlocked) add_channels<kBlocked>(weights, colours, kept, ch, sums(k));
      for (; ch < channels; ++ch) add_channels<1>(weights, colours, kept, ch, sums(k));
    }
    return !on;
  });
  each(tile.blocks, [&](int k) {
    const Block block = tile.block(s, k);
    write<1>(out.alpha, s, block, 1, 0, &canvas[k].total);
    write<1>(out.depth, s, block, 1, 0, &canvas[k].depth);
    for (int64_t ch = 0; ch < channels; ++ch) {
      const F16 image = load(sums(k) + 16 * ch) + (1.0f - canvas[k].total) * s.background[ch];
      write<1>(out.image, s, block, channels, ch, &image);
    }
  });
}

void forward(const Scene& s, const Bins& bins, int tile, const Picture& out) {
  switch (s.channels) {
    case 1:
      return forward_tile<1>(s, bins, tile, out);
    case 2:
      return forward_tile<2>(s, bins, tile, out);
    case 3:
      return forward_tile<3>(s, bins, tile, out);
    case 4:
      return forward_tile<4>(s, bins, tile, out);
    default:
      return forward_tile_many(s, bins, tile, out);
  }
}

int64_t meetings(const Scene& s, const Bins& bins, int number) {
  const Tile tile(s, bins, number);
  int64_t total = 0;
  F16 transmittance[16];
  each(tile.blocks, [&](int k) { transmittance[k] = tile.block(s, k).inside; });
  walk(s, bins, tile, [&](int k, const Block& block, const Chunk& chunk, int found) {
    bool on = true;
    for (int j = 0; on && j < found; ++j, ++total) on = hit(bins.lines[chunk.ids[chunk.list[j]]], block, &transmittance[k]).on;
    return !on;
  });
  return total;
}

}  // namespace
}  // namespace silky
