// The compositing of tiles, compiled once per instruction set: SILKY_PATH is the name of the function that hands it out.
//
// A tile of 16 x 16 px is walked in blocks of 4 x 4, one vector. A splat is tested against all sixteen blocks of the tile at once (the
// exact ellipse where alpha reaches 1/255); those that touch a block are then composited on it front to back.
#include "backward.h"
#include "forward.h"
#include "project.h"

namespace silky {
namespace {

// Tiles that hold a pixel centre within the box of each of sixteen splats; a splat with a value that is not finite touches none.
void boxes16(const Scene& s, int64_t begin, int count, Mask drawn, const F16* mean, const F16* half, Box* out) {
  // In float, as the other backends do it: the first and the last centre k + 1/2 inside.
  alignas(64) float first[2][16], last[2][16];
  const float end[2] = {float(s.width), float(s.height)};
  for (int k = 0; k < 2; ++k) {
    const F16 low = least(most(ceiling(mean[k] - half[k] - 0.5f), zero()), splat(end[k]));
    const F16 high = least(zero() - ceiling(0.5f - mean[k] - half[k]), splat(end[k] - 1));
    drawn = both(drawn, both(above(half[k], 0.0f), at_least(high - low, 0.0f)));
    store(first[k], low), store(last[k], high);
  }
  const uint32_t some = bits(drawn);
  for (int j = 0; j < count; ++j) {
    auto tile = [](float pixel) { return int16_t(int(pixel) / kTile); };
    const bool here = some >> j & 1;
    out[begin + j] =
        here ? Box{tile(first[0][j]), tile(first[1][j]), int16_t(tile(last[0][j]) + 1), int16_t(tile(last[1][j]) + 1)} : Box{0, 0, 0, 0};
  }
}

void prepare(const Scene& s, int64_t begin, int64_t end, Box* boxes, Line* lines) {
  for (int64_t i = begin; i < end; i += 16) {
    const int count = int(std::min<int64_t>(16, end - i));
    F16 mean[2], half[2], conic[3], depth, opacity, line[16];
    columns<2>(s.means + 2 * i, 2, count, mean);
    columns<2>(s.boxes + 2 * i, 2, count, half);
    columns<3>(s.conics + 3 * i, 3, count, conic);
    columns<1>(s.depths + i, 1, count, &depth);
    columns<1>(s.opacities + i, 1, count, &opacity);
    alignas(64) float fine[16] = {};
    for (int j = 0; j < count; ++j) fine[j] = finite(s.features + s.channels * (i + j), s.channels) ? 1.0f : 0.0f;
    Mask drawn = above(load(fine), 0.5f);
    for (const F16& value : {mean[0], mean[1], half[0], half[1], conic[0], conic[1], conic[2], depth, opacity})
      drawn = both(drawn, below(size_of(value), INFINITY));
    boxes16(s, i, count, drawn, mean, half, boxes);

    const F16 one = splat(1.0f);
    const Mask some = at_least(opacity, 1e-30f), convex_x = above(conic[0], 0.0f), convex_y = above(conic[2], 0.0f);
    const F16 parts[] = {mean[0],
                         mean[1],
                         conic[0] * (-0.5f * kLog2e),
                         conic[1] * -kLog2e,
                         conic[2] * (-0.5f * kLog2e),
                         pick(some, log2_fast(pick(some, opacity, one)), splat(kNothing)),
                         where(convex_y, 0.0f - conic[1]) / pick(convex_y, conic[2], one),
                         where(convex_x, 0.0f - conic[1]) / pick(convex_x, conic[0], one),
                         depth};
    for (int k = 0; k < 16; ++k) line[k] = k < 9 ? parts[k] : zero();
    if (s.channels <= kMany)
      for (int ch = 0; ch < s.channels; ++ch) columns<1>(s.features + s.channels * i + ch, s.channels, count, &line[9 + ch]);
    transpose(line);
    for (int j = 0; j < count; ++j) store(reinterpret_cast<float*>(lines + i + j), line[j]);
  }
}

}  // namespace

Path SILKY_PATH() { return {prepare, forward, backward, gather, meetings, project, project_gradient}; }

}  // namespace silky
