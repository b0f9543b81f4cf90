// What the parts of the custom call share.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

namespace silky {

constexpr int kTile = 16;                       // px of a tile's side
constexpr int kBlock = 4;                       // px of the side of what one vector holds
constexpr float kLargestAlpha = 0.999f;         // definition.py
constexpr float kStop = 1e-4f;                  // definition.py
constexpr float kLogSmallest = -7.99435344f;    // log2(1 / 255)
constexpr float kLog2e = 1.44269504f;

// One picture of a batch.
struct Scene {
  int64_t n, channels;
  int width, height;
  const float *means, *boxes, *depths, *conics, *opacities, *features, *background;
  int columns() const { return (width + kTile - 1) / kTile; }
  int rows() const { return (height + kTile - 1) / kTile; }
};

struct Picture {
  float *image, *alpha, *depth;
};

struct Gradients {
  float *means, *depths, *conics, *opacities, *features, *background;
};

// Runs f(0) .. f(tasks - 1), on other threads too; returns when all are done.
using ParallelFor = std::function<void(int64_t tasks, const std::function<void(int64_t)>& f)>;

// One splat as compositing wants it. Conics times -log2(e) / 2 (and b times two), the opacity as its logarithm:
// alpha = 2^(a dx^2 + b dx dy + c dy^2 + o).
struct Line {
  float x, y, a, b, c, o;
  float slope_x, slope_y;  // along a vertical or horizontal line, the best point is off the mean by so much per px across
  float depth, colour[4];  // where there are no more channels
};
constexpr int kMany = 4;              // more channels than this take the path for many
constexpr float kNothing = -200.0f;  // the logarithm of no opacity

// Splats by tile, front to back. Of splat i, `first[i]` to `first[i + 1]` are the places in `pairs` (through `places`) that name it.
struct Bins {
  std::vector<int32_t> pairs;
  std::vector<int64_t> starts;  // per tile, and the end
  std::vector<int64_t> places, first;
  std::vector<Line> lines;  // of every splat that is listed
};
void make_bins(const Scene& scene, const ParallelFor& parallel, bool with_places, Bins* bins);

// The compositing of one tile, per instruction set.
struct Path {
  void (*forward)(const Scene&, const Bins&, int tile, const Picture&);
  // Rows of gradient per pair: 16 floats (six moments, depth, then up to four channels); more channels in `colours`.
  void (*backward)(const Scene&, const Bins&, int tile, const Picture& made, const Picture& cotangent, float* rows, float* colours);
  // How many (splat, block) meetings the tile takes: sixteen times that are the lanes that any method in blocks evaluates.
  int64_t (*meetings)(const Scene&, const Bins&, int tile);
};
Path portable_path();
Path avx2_path();
Path avx512_path();

}  // namespace silky
