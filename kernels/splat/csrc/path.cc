// Compositing of one tile, compiled once per instruction set: SILKY_PATH is the name of the function that hands it out.
//
// A tile of 16 x 16 px is walked in blocks of 4 x 4, one vector. Per block, sixteen splats at a time are tested against it (the exact
// ellipse where alpha reaches 1/255), and those that touch it are composited front to back. Transmittance runs on past the stop: weights are
// masked by it, so that the loop carries one product. The gradient walks front to back as well, with the same transmittances: of
// S = <cotangent, what lies behind>, the running rest, d alpha = T <cotangent, colour> - S / (1 - alpha).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "simd.h"
#include "splat.h"

namespace silky {
namespace {

constexpr int kChunk = 16;  // splats whose weights are kept while many channels go by

// The splats of a tile, by component, about the tile's corner; filled up with splats that touch nothing. See Line.
struct List {
  int64_t count = 0, room = 0;
  float *x, *y, *a, *b, *c, *o, *slope_x, *slope_y, *depth, *colours;
  std::vector<float> memory;

  void reserve(int64_t wanted, int64_t channels) {
    room = (wanted + 15) / 16 * 16;
    if (int64_t(memory.size()) < room * (9 + channels) + 16) memory.resize(room * (9 + channels) * 5 / 4 + 16);
    float* at = memory.data();
    for (float** part : {&x, &y, &a, &b, &c, &o, &slope_x, &slope_y, &depth}) *part = at, at += room;
    colours = at;
  }
};

List& gather(const Scene& s, const Bins& bins, int tile) {
  static thread_local List list;
  const int64_t begin = bins.starts[tile];
  list.count = bins.starts[tile + 1] - begin;
  list.reserve(list.count, s.channels);
  const float left = float(tile % s.columns() * kTile), top = float(tile / s.columns() * kTile);
  for (int64_t k = 0; k < list.count; ++k) {
    const int64_t i = bins.pairs[begin + k];
    const Line& line = bins.lines[i];
    list.x[k] = line.x - left, list.y[k] = line.y - top;
    list.a[k] = line.a, list.b[k] = line.b, list.c[k] = line.c, list.o[k] = line.o;
    list.slope_x[k] = line.slope_x, list.slope_y[k] = line.slope_y;
    list.depth[k] = line.depth;
    const float* colour = s.channels <= kMany ? line.colour : s.features + s.channels * i;
    for (int64_t ch = 0; ch < s.channels; ++ch) list.colours[k * s.channels + ch] = colour[ch];
  }
  for (int64_t k = list.count; k < list.room; ++k) {
    list.x[k] = list.y[k] = list.a[k] = list.b[k] = list.c[k] = list.slope_x[k] = list.slope_y[k] = 0.0f;
    list.o[k] = kNothing;
  }
  return list;
}

// Which of sixteen splats reach alpha 1/255 somewhere on the pixel centres x0 .. x0 + 3, y0 .. y0 + 3: the exponent is largest at the mean,
// or on one of the two edges nearest to it. A hair wider than exact: what is let through is tested again, pixel by pixel.
uint32_t touching(const List& l, int64_t k, float x0, float y0) {
  const F16 mx = load(l.x + k), my = load(l.y + k), a = load(l.a + k), b = load(l.b + k), c = load(l.c + k);
  const F16 low_x = splat(x0), high_x = splat(x0 + kBlock - 1), low_y = splat(y0), high_y = splat(y0 + kBlock - 1);
  const F16 dx = least(most(mx, low_x), high_x) - mx, dy = least(most(my, low_y), high_y) - my;
  const F16 along_y = least(most(load(l.slope_x + k) * dx, low_y - my), high_y - my);
  const F16 along_x = least(most(load(l.slope_y + k) * dy, low_x - mx), high_x - mx);
  const F16 one = (a * dx + b * along_y) * dx + c * along_y * along_y;
  const F16 two = (a * along_x + b * dy) * along_x + c * dy * dy;
  return bits(at_least(most(one, two) + load(l.o + k), kLogSmallest - 1e-3f));
}

struct Block {
  float x0, y0;   // of the first pixel's centre, about the tile's corner
  F16 x, y;       // of the sixteen pixels
  F16 inside;     // 1, or 0 for a pixel beyond the picture
  int column, row, wide, high;  // in the picture
};

bool make_block(const Scene& s, int tile, int number, Block* b) {
  const int left = tile % s.columns() * kTile, top = tile / s.columns() * kTile;
  const int bx = number % 4 * kBlock, by = number / 4 * kBlock;
  b->column = left + bx, b->row = top + by;
  b->wide = std::min(kBlock, s.width - b->column), b->high = std::min(kBlock, s.height - b->row);
  if (b->wide <= 0 || b->high <= 0) return false;
  b->x0 = bx + 0.5f, b->y0 = by + 0.5f;
  for (int i = 0; i < 16; ++i) {
    b->x.set(i, b->x0 + i % 4);
    b->y.set(i, b->y0 + i / 4);
    b->inside.set(i, i % 4 < b->wide && i / 4 < b->high ? 1.0f : 0.0f);
  }
  return true;
}

// A map [h, w, stride], one channel of it, to and from a block.
F16 read(const float* map, const Scene& s, const Block& b, int64_t stride, int64_t channel) {
  F16 v = zero();
  for (int y = 0; y < b.high; ++y)
    for (int x = 0; x < b.wide; ++x) v.set(4 * y + x, map[(int64_t(b.row + y) * s.width + b.column + x) * stride + channel]);
  return v;
}
void write(float* map, const Scene& s, const Block& b, int64_t stride, int64_t channel, F16 v) {
  for (int y = 0; y < b.high; ++y)
    for (int x = 0; x < b.wide; ++x) map[(int64_t(b.row + y) * s.width + b.column + x) * stride + channel] = v[4 * y + x];
}

struct Hit {
  F16 dx, dy, alpha, passed, weight;  // passed: transmittance in front
  Mask free;                          // alpha is not clamped
};

// What splat k does to a block; moves the transmittance on.
inline Hit hit(const List& l, int64_t k, const Block& b, F16* transmittance) {
  Hit h;
  h.dx = b.x - l.x[k];
  h.dy = b.y - l.y[k];
  const F16 power = (l.a[k] * h.dx + l.b[k] * h.dy) * h.dx + l.c[k] * (h.dy * h.dy);
  const F16 exponent = power + l.o[k];
  const F16 raw = exp2_fast(most(exponent, splat(-60.0f)));
  h.free = at_most(raw, kLargestAlpha);
  h.alpha = where(both(at_least(exponent, kLogSmallest), at_most(power, 0.0f)), least(raw, splat(kLargestAlpha)));
  h.passed = *transmittance;
  const F16 taken = h.passed * h.alpha;
  *transmittance = h.passed - taken;
  h.weight = where(above(*transmittance, kStop), taken);
  return h;
}

// Calls visit(k) for every splat that touches the block, front to back, until it says that nothing passes any more.
template <class Visit>
inline void walk(const List& l, const Block& b, Visit&& visit) {
  for (int64_t k = 0; k < l.count; k += 16) {
    for (uint32_t left = touching(l, k, b.x0, b.y0); left; left &= left - 1)
      if (!visit(k + __builtin_ctz(left))) return;
  }
}

template <int C>
void forward_block(const Scene& s, const List& l, const Block& b, const Picture& out) {
  F16 transmittance = b.inside, total = zero(), depth = zero(), colour[C];
  for (int ch = 0; ch < C; ++ch) colour[ch] = zero();
  walk(l, b, [&](int64_t k) {
    const Hit h = hit(l, k, b, &transmittance);
    total += h.weight;
    depth += h.weight * l.depth[k];
    for (int ch = 0; ch < C; ++ch) colour[ch] += h.weight * l.colours[k * C + ch];
    return any(above(transmittance, kStop));
  });
  write(out.alpha, s, b, 1, 0, total);
  write(out.depth, s, b, 1, 0, depth);
  for (int ch = 0; ch < C; ++ch) write(out.image, s, b, C, ch, colour[ch] + (1.0f - total) * s.background[ch]);
}

// Weights of a chunk of splats first, then every channel's product with them.
void forward_block_many(const Scene& s, const List& l, const Block& b, const Picture& out, std::vector<float>& sums_of_channels) {
  const int64_t channels = s.channels;
  F16 transmittance = b.inside, total = zero(), depth = zero();
  sums_of_channels.assign(16 * channels, 0.0f);
  F16 weights[kChunk];
  const float* colours[kChunk];
  int kept = 0;
  auto flush = [&] {
    for (int64_t ch = 0; ch < channels; ++ch) {
      F16 sum = load(&sums_of_channels[16 * ch]);
      for (int j = 0; j < kept; ++j) sum += weights[j] * colours[j][ch];
      store(&sums_of_channels[16 * ch], sum);
    }
    kept = 0;
  };
  walk(l, b, [&](int64_t k) {
    const Hit h = hit(l, k, b, &transmittance);
    total += h.weight;
    depth += h.weight * l.depth[k];
    weights[kept] = h.weight, colours[kept] = l.colours + k * channels;
    if (++kept == kChunk) flush();
    return any(above(transmittance, kStop));
  });
  flush();
  write(out.alpha, s, b, 1, 0, total);
  write(out.depth, s, b, 1, 0, depth);
  for (int64_t ch = 0; ch < channels; ++ch)
    write(out.image, s, b, channels, ch, load(&sums_of_channels[16 * ch]) + (1.0f - total) * s.background[ch]);
}

void forward(const Scene& s, const Bins& bins, int tile, const Picture& out) {
  static thread_local std::vector<float> scratch;
  const List& l = gather(s, bins, tile);
  Block b;
  for (int number = 0; number < 16; ++number) {
    if (!make_block(s, tile, number, &b)) continue;
    switch (s.channels) {
      case 1: forward_block<1>(s, l, b, out); break;
      case 2: forward_block<2>(s, l, b, out); break;
      case 3: forward_block<3>(s, l, b, out); break;
      case 4: forward_block<4>(s, l, b, out); break;
      default: forward_block_many(s, l, b, out, scratch);
    }
  }
}

// ---- gradient

// The cotangents of a block: of the weights' sum (alpha, less the background), of depth; and S, the product of all with what was made.
struct Seen {
  F16 total, depth, rest;
};

template <class Colour>
Seen see(const Scene& s, const Block& b, const Picture& made, const Picture& cotangent, int64_t channels, Colour&& colour) {
  Seen seen{read(cotangent.alpha, s, b, 1, 0), read(cotangent.depth, s, b, 1, 0), zero()};
  const F16 alpha = read(made.alpha, s, b, 1, 0);
  for (int64_t ch = 0; ch < channels; ++ch) {
    const F16 to = colour(ch), behind = splat(s.background[ch]);
    seen.total -= to * behind;
    seen.rest += to * (read(made.image, s, b, channels, ch) - (1.0f - alpha) * behind);
  }
  seen.rest += seen.total * alpha + seen.depth * read(made.depth, s, b, 1, 0);
  return seen;
}

// The six moments of g = d loss / d power, and depth's sum, into v[0..6]. `along` is <cotangent, what the splat carries>.
inline void moments(const Hit& h, F16 along, Seen* seen, F16* v) {
  seen->rest -= h.weight * along;
  const F16 to_alpha = h.passed * along - seen->rest * inverse(1.0f - h.alpha);
  const F16 g = where(both(above(h.weight, 0.0f), h.free), h.alpha * to_alpha);
  v[0] = g;
  v[1] = g * h.dx;
  v[2] = g * h.dy;
  v[3] = v[1] * h.dx;
  v[4] = v[1] * h.dy;
  v[5] = v[2] * h.dy;
  v[6] = h.weight * seen->depth;
}

template <int C>
void backward_block(const Scene& s, const List& l, const Block& b, const Picture& made, const Picture& cotangent, float* rows) {
  F16 to[C];
  for (int ch = 0; ch < C; ++ch) to[ch] = read(cotangent.image, s, b, C, ch);
  Seen seen = see(s, b, made, cotangent, C, [&](int64_t ch) { return to[ch]; });
  F16 transmittance = b.inside;
  walk(l, b, [&](int64_t k) {
    const Hit h = hit(l, k, b, &transmittance);
    F16 along = seen.total + seen.depth * l.depth[k];
    for (int ch = 0; ch < C; ++ch) along += to[ch] * l.colours[k * C + ch];
    F16 v[7 + C];
    moments(h, along, &seen, v);
    for (int ch = 0; ch < C; ++ch) v[7 + ch] = h.weight * to[ch];
    store(rows + 16 * k, load(rows + 16 * k) + sums<7 + C>(v));
    return any(above(transmittance, kStop));
  });
}

void backward_block_many(const Scene& s, const List& l, const Block& b, const Picture& made, const Picture& cotangent, float* rows,
                         float* colours, std::vector<float>& cotangents) {
  const int64_t channels = s.channels;
  cotangents.resize(16 * channels);
  for (int64_t ch = 0; ch < channels; ++ch) store(&cotangents[16 * ch], read(cotangent.image, s, b, channels, ch));
  Seen seen = see(s, b, made, cotangent, channels, [&](int64_t ch) { return load(&cotangents[16 * ch]); });
  F16 transmittance = b.inside;
  int64_t ids[kChunk];
  int kept = 0;
  bool passes = true;
  auto flush = [&] {
    F16 along[kChunk], weights[kChunk];
    for (int j = 0; j < kept; ++j) along[j] = seen.total + seen.depth * l.depth[ids[j]];
    for (int64_t ch = 0; ch < channels; ++ch) {
      const F16 to = load(&cotangents[16 * ch]);
      for (int j = 0; j < kept; ++j) along[j] += to * l.colours[ids[j] * channels + ch];
    }
    for (int j = 0; j < kept; ++j) {
      const Hit h = hit(l, ids[j], b, &transmittance);
      F16 v[7];
      moments(h, along[j], &seen, v);
      weights[j] = h.weight;
      store(rows + 16 * ids[j], load(rows + 16 * ids[j]) + sums<7>(v));
    }
    for (int j = 0; j < kept; ++j) {
      float* row = colours + ids[j] * channels;
      int64_t ch = 0;
      for (; ch + 16 <= channels; ch += 16) {
        F16 v[16];
        for (int i = 0; i < 16; ++i) v[i] = weights[j] * load(&cotangents[16 * (ch + i)]);
        store(row + ch, load(row + ch) + sums<16>(v));
      }
      for (; ch < channels; ++ch) {
        const F16 v = weights[j] * load(&cotangents[16 * ch]);
        float sum = 0;
        for (int i = 0; i < 16; ++i) sum += v[i];
        row[ch] += sum;
      }
    }
    kept = 0;
    passes = any(above(transmittance, kStop));
  };
  walk(l, b, [&](int64_t k) {
    ids[kept++] = k;
    if (kept == kChunk) flush();
    return passes;
  });
  if (passes) flush();
}

void backward(const Scene& s, const Bins& bins, int tile, const Picture& made, const Picture& cotangent, float* rows, float* colours) {
  static thread_local std::vector<float> scratch;
  const List& l = gather(s, bins, tile);
  const int64_t begin = bins.starts[tile];
  float *own = rows + 16 * begin, *own_colours = colours ? colours + s.channels * begin : nullptr;
  std::memset(own, 0, sizeof(float) * 16 * l.count);
  if (own_colours) std::memset(own_colours, 0, sizeof(float) * s.channels * l.count);
  Block b;
  for (int number = 0; number < 16; ++number) {
    if (!make_block(s, tile, number, &b)) continue;
    switch (s.channels) {
      case 1: backward_block<1>(s, l, b, made, cotangent, own); break;
      case 2: backward_block<2>(s, l, b, made, cotangent, own); break;
      case 3: backward_block<3>(s, l, b, made, cotangent, own); break;
      case 4: backward_block<4>(s, l, b, made, cotangent, own); break;
      default: backward_block_many(s, l, b, made, cotangent, own, own_colours, scratch);
    }
  }
}

int64_t meetings(const Scene& s, const Bins& bins, int tile) {
  const List& l = gather(s, bins, tile);
  int64_t total = 0;
  Block b;
  for (int number = 0; number < 16; ++number) {
    if (!make_block(s, tile, number, &b)) continue;
    F16 transmittance = b.inside;
    walk(l, b, [&](int64_t k) {
      ++total;
      hit(l, k, b, &transmittance);
      return any(above(transmittance, kStop));
    });
  }
  return total;
}

}  // namespace

Path SILKY_PATH() { return {forward, backward, meetings}; }

}  // namespace silky
