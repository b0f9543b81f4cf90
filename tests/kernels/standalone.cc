// The compositing without XLA: a scene from a file, its picture and gradient into another. For processors that tests do not run on.
// standalone IN OUT; IN: int32 n, channels, width, height, then float32 means, boxes, depths, conics, opacities, features, background and
// the cotangents of image, alpha, depth. OUT: float32 image, alpha, depth, then gradients of means, depths, conics, opacities, features.
#include <cstdio>

#include "splat.h"

using namespace silky;

int main(int count, char** arguments) {
  if (count != 3) return 2;
  FILE* in = std::fopen(arguments[1], "rb");
  int32_t sizes[4];
  if (!in || std::fread(sizes, 4, 4, in) != 4) return 3;
  const int64_t n = sizes[0], c = sizes[1], area = int64_t(sizes[2]) * sizes[3];
  std::vector<float> given((9 + c) * n + c + (c + 2) * area);
  if (std::fread(given.data(), 4, given.size(), in) != given.size()) return 4;
  const float *g = given.data(), *background = g + (9 + c) * n;
  float* cotangents = given.data() + (9 + c) * n + c;
  const Scene s{n, c, sizes[2], sizes[3], g, g + 2 * n, g + 4 * n, g + 5 * n, g + 8 * n, g + 9 * n, background};
  std::vector<float> out((c + 2) * area + (7 + c) * n + c);
  float *o = out.data(), *d = o + (c + 2) * area;
  const Picture made{o, o + c * area, o + (c + 1) * area}, cotangent{cotangents, cotangents + c * area, cotangents + (c + 1) * area};
  const Gradients to{d, d + 2 * n, d + 3 * n, d + 6 * n, d + 7 * n, d + (7 + c) * n};

  const Path path = portable_path();
  const ParallelFor alone = [](int64_t tasks, const std::function<void(int64_t)>& work) {
    for (int64_t k = 0; k < tasks; ++k) work(k);
  };
  Scratch scratch;
  Bins bins;
  if (!make_bins(s, path, alone, nullptr, &scratch, &bins)) return 5;
  std::vector<float> rows(16 * bins.starts[s.tiles()] + 16), colours(padded(c) * bins.starts[s.tiles()] + 16), behind(c * s.tiles());
  for (int64_t tile = 0; tile < s.tiles(); ++tile) path.forward(s, bins, int(tile), made);
  for (int64_t tile = 0; tile < s.tiles(); ++tile)
    path.backward(s, bins, int(tile), made, cotangent, rows.data(), colours.data(), behind.data());
  path.gather(s, bins, rows.data(), c > kMany ? colours.data() : nullptr, 0, n, to);
  FILE* file = std::fopen(arguments[2], "wb");
  return file && std::fwrite(out.data(), 4, out.size() - c, file) == out.size() - c && !std::fclose(file) ? 0 : 6;
}
