// Which splats touch which tile, front to back: one sort by depth, then a stable counting pass. No sort of pairs, no capacity.
#include <algorithm>
#include <cstring>
#include <limits>

#include "splat.h"

namespace silky {
namespace {

struct Item {
  uint32_t key;
  int32_t id;
};

// Visible splats by depth; stable. Returns where they are: `items` or `other`.
Item* sort_by_depth(const Scene& s, const Box* boxes, Item* items, Item* other, int64_t* count) {
  constexpr int kBits = 11, kBins = 1 << kBits;
  static thread_local uint32_t histogram[3 * kBins];
  std::fill(histogram, histogram + 3 * kBins, 0u);
  int64_t found = 0;
  for (int64_t i = 0; i < s.n; ++i) {
    if (boxes[i].x0 >= boxes[i].x1) continue;
    const float depth = s.depths[i] + 0.0f;  // -0 becomes 0
    uint32_t key;
    std::memcpy(&key, &depth, 4);
    key = key & 0x80000000u ? ~key : key | 0x80000000u;
    items[found++] = {key, int32_t(i)};
    for (int pass = 0; pass < 3; ++pass) ++histogram[pass * kBins + ((key >> (pass * kBits)) & (kBins - 1))];
  }
  for (int pass = 0; pass < 3; ++pass) {
    uint32_t* h = histogram + pass * kBins;
    if (std::any_of(h, h + kBins, [&](uint32_t here) { return here == found; })) continue;  // they all agree in these bits
    uint32_t total = 0;
    for (int i = 0; i < kBins; ++i) {
      const uint32_t here = h[i];
      h[i] = total;
      total += here;
    }
    for (int64_t k = 0; k < found; ++k) other[h[(items[k].key >> (pass * kBits)) & (kBins - 1)]++] = items[k];
    std::swap(items, other);
  }
  *count = found;
  return items;
}

// The parts of what is kept.
struct Layout {
  int32_t *total, *starts, *first, *pairs, *places;
  Layout(const Scene& s, const Kept& kept)
      : total(kept.integers), starts(total + 1), first(starts + s.tiles() + 1), pairs(first + s.n + 1), places(pairs + kept.capacity) {}
};

// A tile's range in `pairs`, and in `counts` where each slice of the depth order puts its first. The number of pairs.
int64_t lay_out(int64_t tiles, int64_t slices, int32_t* counts, int32_t* starts) {
  int64_t total = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    starts[tile] = int32_t(total);
    for (int64_t k = 0; k < slices; ++k) {
      const int32_t here = counts[k * tiles + tile];
      counts[k * tiles + tile] = int32_t(total);
      total += here;
    }
    if (total > std::numeric_limits<int32_t>::max()) return total;
  }
  starts[tiles] = int32_t(total);
  return total;
}

}  // namespace

void* Scratch::bytes(Slot slot, int64_t count) {
  std::vector<char>& memory = memory_[slot];
  if (int64_t(memory.size()) < count + 64) {
    memory = {};
    memory = std::vector<char>(count + count / 4 + 64);
  }
  return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t(63));
}

int64_t Scratch::size() const {
  int64_t total = 0;
  for (const auto& memory : memory_) total += memory.size();
  return total;
}

int64_t kept_capacity(const Scene& s, int64_t integers) { return std::max<int64_t>(0, (integers - 1 - (s.tiles() + 1) - (s.n + 1)) / 2); }

bool find_bins(const Scene& s, const Kept& kept, Bins* bins) {
  const Layout at(s, kept);
  *bins = {kept.lines, at.starts, at.pairs, at.first, at.places};
  return *at.total <= kept.capacity;
}

bool make_bins(const Scene& s, const Path& path, const ParallelFor& parallel, bool with_places, const Kept* kept, Scratch* scratch,
               Bins* bins) {
  const int columns = s.columns();
  const int64_t tiles = s.tiles(), slices = s.n < 4096 ? 1 : 8;
  auto slice = [&](int64_t count, int64_t k) { return count * k / slices; };
  Box* boxes = scratch->take<Box>(Scratch::kBoxes, s.n);
  bins->lines = kept && kept->capacity >= 0 ? kept->lines : scratch->take<Line>(Scratch::kLines, s.n);
  parallel(slices, [&](int64_t k) { path.prepare(s, slice(s.n, k), slice(s.n, k + 1), boxes, bins->lines); });
  int64_t visible;
  const Item* order =
      sort_by_depth(s, boxes, scratch->take<Item>(Scratch::kKeys, s.n), scratch->take<Item>(Scratch::kSorted, s.n), &visible);

  // Each slice of the depth order counts for itself; a tile's places are then handed out slice by slice, so that the order is kept.
  int32_t* counts = scratch->take<int32_t>(Scratch::kCounts, slices * tiles);
  auto each = [order, boxes, columns, slice, visible](int64_t k, auto&& visit) {  // by value: what is read through a reference is read again after every write
    const Item* end = order + slice(visible, k + 1);
    for (const Item* item = order + slice(visible, k); item < end; ++item) {
      const Box b = boxes[item->id];
      for (int y = b.y0 * columns; y < b.y1 * columns; y += columns)
        for (int x = b.x0; x < b.x1; ++x) visit(item->id, y + x);
    }
  };
  parallel(slices, [&](int64_t k) {
    int32_t* own = counts + k * tiles;
    std::fill(own, own + tiles, 0);
    each(k, [own](int32_t, int tile) { ++own[tile]; });
  });
  bins->starts = scratch->take<int32_t>(Scratch::kStarts, tiles + 1);
  const int64_t total = lay_out(tiles, slices, counts, bins->starts);
  if (total > std::numeric_limits<int32_t>::max()) return false;

  const bool fits = kept && total <= kept->capacity;
  if (kept) *Layout(s, *kept).total = int32_t(total);
  if (fits) {
    const Layout at(s, *kept);
    std::copy(bins->starts, bins->starts + tiles + 1, at.starts);
    bins->pairs = at.pairs, bins->first = at.first, bins->places = at.places;
  } else {
    bins->pairs = scratch->take<int32_t>(Scratch::kPairs, total);
    bins->first = with_places ? scratch->take<int32_t>(Scratch::kFirst, s.n + 1) : nullptr;
    bins->places = with_places ? scratch->take<int32_t>(Scratch::kPlaces, total) : nullptr;
  }
  if (bins->first) {
    bins->first[0] = 0;
    for (int64_t i = 0; i < s.n; ++i) bins->first[i + 1] = bins->first[i] + int32_t(boxes[i].area());
  }
  parallel(slices, [&](int64_t k) {
    int32_t *own = counts + k * tiles, *pairs = bins->pairs, *places = bins->places;
    const int32_t* first = bins->first;
    if (!places) return each(k, [own, pairs](int32_t id, int tile) { pairs[own[tile]++] = id; });
    each(k, [own, pairs, places, first, last = -1, at = 0](int32_t id, int tile) mutable {
      if (id != last) at = first[id], last = id;
      const int32_t place = own[tile]++;
      pairs[place] = id, places[at++] = place;
    });
  });
  return true;
}

}  // namespace silky
