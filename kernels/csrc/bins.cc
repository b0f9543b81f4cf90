// Which splats touch which tile, front to back: one sort by depth, then a stable counting pass. No sort of pairs, no capacity.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include <unistd.h>

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

// A tile's range in `pairs`, and in `counts` where each slice of the depth order puts its first.
void lay_out(int64_t tiles, int64_t slices, int32_t* counts, int32_t* starts) {
  int64_t total = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    starts[tile] = int32_t(total);
    for (int64_t k = 0; k < slices; ++k) {
      const int32_t here = counts[k * tiles + tile];
      counts[k * tiles + tile] = int32_t(total);
      total += here;
    }
  }
  starts[tiles] = int32_t(total);
}

// What the slices of the depth order have listed, pair by pair.
struct Listed {
  int32_t *tiles, *ids, *places;  // the last: where the pair is among those of its splat
  int64_t count;
};
constexpr int kWide = 4;  // entries are written so many at once, beyond the end too

// Lists the pairs of the splats order .. end. Without a loop across: how wide a splat is, nobody can predict.
void list_pairs(const Item* order, const Item* end, const Box* boxes, const int32_t* first, int columns, Listed out) {
  typedef int32_t Four __attribute__((vector_size(4 * kWide), aligned(4)));
  const Four along = {0, 1, 2, 3};
  for (const Item* item = order; item < end; ++item) {
    const Box b = boxes[item->id];
    const int wide = b.x1 - b.x0;
    int32_t place = first[item->id];
    for (int y = b.y0; y < b.y1; ++y)
      for (int x = 0; x < wide; x += kWide) {
        *reinterpret_cast<Four*>(out.tiles) = along + (y * columns + b.x0 + x);
        *reinterpret_cast<Four*>(out.ids) = along * 0 + item->id;
        *reinterpret_cast<Four*>(out.places) = along + place;
        const int count = std::min(kWide, wide - x);
        out.tiles += count, out.ids += count, out.places += count, place += count;
      }
  }
}

}  // namespace

void* Scratch::bytes(Slot slot, int64_t count) {
  const int64_t all = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  if (count + count / 4 > all)  // before the system ends the process
    throw std::length_error("splat: " + std::to_string(count >> 20) + " MiB of scratch wanted, the machine has " +
                            std::to_string(all >> 20) + "; are the splats far too large?");
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

bool make_bins(const Scene& s, const Path& path, const ParallelFor& parallel, const Kept* kept, Scratch* scratch, Bins* bins) {
  const int columns = s.columns();
  const int64_t tiles = s.tiles(), slices = s.n < 4096 ? 1 : 8;
  auto slice = [&](int64_t count, int64_t k) { return count * k / slices; };
  Box* boxes = scratch->take<Box>(Scratch::kBoxes, s.n);
  bins->lines = kept && kept->capacity >= 0 ? kept->lines : scratch->take<Line>(Scratch::kLines, s.n);
  parallel(slices, [&](int64_t k) { path.prepare(s, slice(s.n, k), slice(s.n, k + 1), boxes, bins->lines); });
  int64_t total = 0, visible;
  for (int64_t i = 0; i < s.n; ++i) total += boxes[i].area();
  if (total > std::numeric_limits<int32_t>::max()) return false;
  if (kept) *Layout(s, *kept).total = int32_t(total);
  if (kept && total <= kept->capacity) {
    const Layout at(s, *kept);
    bins->starts = at.starts, bins->pairs = at.pairs, bins->first = at.first, bins->places = at.places;
  } else {
    bins->starts = scratch->take<int32_t>(Scratch::kStarts, tiles + 1);
    bins->pairs = scratch->take<int32_t>(Scratch::kPairs, total);
    bins->first = scratch->take<int32_t>(Scratch::kFirst, s.n + 1);
    bins->places = scratch->take<int32_t>(Scratch::kPlaces, total);
  }
  bins->first[0] = 0;
  for (int64_t i = 0; i < s.n; ++i) bins->first[i + 1] = bins->first[i] + int32_t(boxes[i].area());
  const Item* order =
      sort_by_depth(s, boxes, scratch->take<Item>(Scratch::kKeys, s.n), scratch->take<Item>(Scratch::kSorted, s.n), &visible);

  // Each slice of the depth order lists and counts for itself; a tile's places are then handed out slice by slice, so that the order is
  // kept.
  int64_t begins[9] = {0};
  for (int64_t k = 0; k < slices; ++k) {
    begins[k + 1] = begins[k];
    for (int64_t j = slice(visible, k); j < slice(visible, k + 1); ++j) begins[k + 1] += boxes[order[j].id].area();
  }
  int32_t* counts = scratch->take<int32_t>(Scratch::kCounts, slices * tiles);
  int32_t* listed = scratch->take<int32_t>(Scratch::kListed, 3 * (total + slices * kWide));
  auto part = [&](int64_t k) {
    const int64_t room = total + slices * kWide, at = begins[k] + k * kWide;
    return Listed{listed + at, listed + room + at, listed + 2 * room + at, begins[k + 1] - begins[k]};
  };
  parallel(slices, [&](int64_t k) {
    const Listed own = part(k);
    list_pairs(order + slice(visible, k), order + slice(visible, k + 1), boxes, bins->first, columns, own);
    int32_t* count = counts + k * tiles;
    std::fill(count, count + tiles, 0);
    for (int64_t j = 0; j < own.count; ++j) ++count[own.tiles[j]];
  });
  lay_out(tiles, slices, counts, bins->starts);
  parallel(slices, [&](int64_t k) {
    const Listed own = part(k);
    int32_t *next = counts + k * tiles, *pairs = bins->pairs, *places = bins->places;
    for (int64_t j = 0; j < own.count; ++j) {
      const int32_t place = next[own.tiles[j]]++;
      pairs[place] = own.ids[j], places[own.places[j]] = place;
    }
  });
  return true;
}

}  // namespace silky
