// Which splats touch which tile, front to back: one sort by depth, then a stable counting pass. No sort of pairs, no capacity.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "splat.h"

namespace silky {
namespace {

struct Box {
  int16_t x0, y0, x1, y1;  // tiles, ends excluded; empty: x0 = x1
};

bool finite(const float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!std::isfinite(values[i])) return false;
  return true;
}

// Tiles that hold a pixel centre within the splat's box. A splat with a value that is not finite touches none.
Box box_of(const Scene& s, int64_t i) {
  const float *m = s.means + 2 * i, *r = s.boxes + 2 * i;
  if (!(r[0] > 0) || !(r[1] > 0) || !finite(m, 2) || !finite(r, 2) || !std::isfinite(s.depths[i]) || !std::isfinite(s.opacities[i]) ||
      !finite(s.conics + 3 * i, 3) || !finite(s.features + s.channels * i, s.channels))
    return {0, 0, 0, 0};
  // In float, as the other backends do it: the first and the last centre k + 1/2 inside.
  const float x0 = std::max(std::ceil(m[0] - r[0] - 0.5f), 0.0f), x1 = std::min(std::floor(m[0] + r[0] - 0.5f), s.width - 1.0f);
  const float y0 = std::max(std::ceil(m[1] - r[1] - 0.5f), 0.0f), y1 = std::min(std::floor(m[1] + r[1] - 0.5f), s.height - 1.0f);
  if (x0 > x1 || y0 > y1) return {0, 0, 0, 0};
  return {int16_t(int(x0) / kTile), int16_t(int(y0) / kTile), int16_t(int(x1) / kTile + 1), int16_t(int(y1) / kTile + 1)};
}

Line line_of(const Scene& s, int64_t i) {
  const float* conic = s.conics + 3 * i;
  Line line{s.means[2 * i],
            s.means[2 * i + 1],
            -0.5f * kLog2e * conic[0],
            -kLog2e * conic[1],
            -0.5f * kLog2e * conic[2],
            s.opacities[i] > 0 ? std::log2(s.opacities[i]) : kNothing,
            conic[2] > 0 ? -conic[1] / conic[2] : 0.0f,
            conic[0] > 0 ? -conic[1] / conic[0] : 0.0f,
            s.depths[i],
            {}};
  if (s.channels <= kMany) std::copy_n(s.features + s.channels * i, s.channels, line.colour);
  return line;
}

// Stable, by the bits of non-negative floats.
void sort_by_depth(const float* depths, std::vector<int32_t>* ids) {
  const size_t count = ids->size();
  constexpr int kBits = 11, kBins = 1 << kBits;
  struct Item {
    uint32_t key;
    int32_t id;
  };
  std::vector<Item> a(count), b(count);
  std::vector<uint32_t> histogram(3 * kBins, 0);
  for (size_t k = 0; k < count; ++k) {
    const float depth = depths[(*ids)[k]] + 0.0f;  // -0 becomes 0
    uint32_t key;
    std::memcpy(&key, &depth, 4);
    key = key & 0x80000000u ? ~key : key | 0x80000000u;
    a[k] = {key, (*ids)[k]};
    for (int pass = 0; pass < 3; ++pass) ++histogram[pass * kBins + ((key >> (pass * kBits)) & (kBins - 1))];
  }
  for (int pass = 0; pass < 3; ++pass) {
    uint32_t* h = histogram.data() + pass * kBins;
    uint32_t total = 0;
    for (int i = 0; i < kBins; ++i) {
      const uint32_t here = h[i];
      h[i] = total;
      total += here;
    }
    for (size_t k = 0; k < count; ++k) b[h[(a[k].key >> (pass * kBits)) & (kBins - 1)]++] = a[k];
    a.swap(b);
  }
  for (size_t k = 0; k < count; ++k) (*ids)[k] = a[k].id;
}

}  // namespace

void make_bins(const Scene& s, const ParallelFor& parallel, bool with_places, Bins* bins) {
  const int columns = s.columns();
  const int64_t tiles = int64_t(columns) * s.rows();
  std::vector<Box> boxes(s.n);
  const int64_t slices = s.n < 4096 ? 1 : 8;
  auto slice = [&](int64_t count, int64_t k) { return count * k / slices; };
  bins->lines.resize(s.n);
  parallel(slices, [&](int64_t k) {
    for (int64_t i = slice(s.n, k); i < slice(s.n, k + 1); ++i)
      if (boxes[i] = box_of(s, i); boxes[i].x0 < boxes[i].x1) bins->lines[i] = line_of(s, i);
  });
  std::vector<int32_t> order;
  order.reserve(s.n);
  for (int64_t i = 0; i < s.n; ++i)
    if (boxes[i].x0 < boxes[i].x1) order.push_back(int32_t(i));
  sort_by_depth(s.depths, &order);

  // Each slice of the depth order counts for itself; a tile's places are then handed out slice by slice, so that the order is kept.
  const int64_t visible = order.size();
  std::vector<int64_t> counts(slices * tiles, 0);
  auto each = [&](int64_t k, auto&& visit) {
    for (int64_t j = slice(visible, k); j < slice(visible, k + 1); ++j) {
      const Box b = boxes[order[j]];
      for (int y = b.y0; y < b.y1; ++y)
        for (int x = b.x0; x < b.x1; ++x) visit(order[j], int64_t(y) * columns + x);
    }
  };
  parallel(slices, [&](int64_t k) { each(k, [&](int32_t, int64_t tile) { ++counts[k * tiles + tile]; }); });
  bins->starts.assign(tiles + 1, 0);
  int64_t total = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    bins->starts[tile] = total;
    for (int64_t k = 0; k < slices; ++k) {
      const int64_t here = counts[k * tiles + tile];
      counts[k * tiles + tile] = total;
      total += here;
    }
  }
  bins->starts[tiles] = total;
  bins->pairs.resize(total);
  if (with_places) {
    bins->places.resize(total);
    bins->first.assign(s.n + 1, 0);
    for (int64_t i = 0; i < s.n; ++i) bins->first[i + 1] = bins->first[i] + int64_t(boxes[i].x1 - boxes[i].x0) * (boxes[i].y1 - boxes[i].y0);
  }
  parallel(slices, [&](int64_t k) {
    int32_t last = -1;
    int64_t at = 0;
    each(k, [&](int32_t id, int64_t tile) {
      const int64_t place = counts[k * tiles + tile]++;
      bins->pairs[place] = id;
      if (with_places) {
        if (id != last) at = bins->first[id], last = id;
        bins->places[at++] = place;
      }
    });
  });
}

}  // namespace silky
