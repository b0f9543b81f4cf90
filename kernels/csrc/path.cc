// The compositing of tiles, compiled once per instruction set: SILKY_PATH is the name of the function that hands it out.
//
// A tile of 16 x 16 px is walked in blocks of 4 x 4, one vector. A splat is tested against all sixteen blocks of the tile at once (the exact
// ellipse where alpha reaches 1/255); those that touch a block are then composited on it front to back.
#include "backward.h"
#include "forward.h"
#include "project.h"

namespace silky {
namespace {

// Tiles that hold a pixel centre within the splat's box. A splat with a value that is not finite touches none.
Box box_of(const Scene& s, int64_t i) {
  const float *m = s.means + 2 * i, *r = s.boxes + 2 * i;
  if (!(r[0] > 0) || !(r[1] > 0) || !finite(m, 2) || !finite(r, 2) || !finite(s.depths + i, 1) || !finite(s.opacities + i, 1) ||
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
            {},
            {}};
  if (s.channels <= kMany) std::copy_n(s.features + s.channels * i, s.channels, line.colour);
  return line;
}

void prepare(const Scene& s, int64_t begin, int64_t end, Box* boxes, Line* lines) {
  for (int64_t i = begin; i < end; ++i)
    if (boxes[i] = box_of(s, i); boxes[i].x0 < boxes[i].x1) lines[i] = line_of(s, i);
}

}  // namespace

Path SILKY_PATH() { return {prepare, forward, backward, gather, meetings, project, project_gradient}; }

}  // namespace silky
