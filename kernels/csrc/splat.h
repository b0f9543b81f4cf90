// What the parts of the custom call share.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace silky {

constexpr int kTile = 16;                     // px of a tile's side
constexpr int kBlock = 4;                     // px of the side of what one vector holds; a tile has sixteen blocks
constexpr float kLargestAlpha = 0.999f;       // definition.py
constexpr float kStop = 1e-4f;                // definition.py
constexpr float kLogSmallest = -7.99435344f;  // log2(1 / 255)
constexpr float kLog2e = 1.44269504f;

// One picture of a batch.
struct Scene {
  int64_t n, channels;
  int width, height;
  const float *means, *boxes, *depths, *conics, *opacities, *features, *background;
  int columns() const { return (width + kTile - 1) / kTile; }
  int rows() const { return (height + kTile - 1) / kTile; }
  int64_t tiles() const { return int64_t(columns()) * rows(); }
};

struct Picture {
  float *image, *alpha, *depth;
};

struct Gradients {
  float *means, *depths, *conics, *opacities, *features, *background;
};

// Gaussians in space and a camera.
struct View {
  int64_t n, channels;
  int width, height;
  float near, low_pass;
  const float *means, *covariances, *opacities, *features, *world_to_camera, *intrinsics;
};

struct Projected {
  float *means, *boxes, *depths, *conics, *opacities, *radii;
};

struct SpaceGradients {
  float *means, *covariances, *opacities;
};
constexpr int kCameraNumbers = 16;  // rotation by rows, shift, focal lengths, centre

// Runs f(0) .. f(tasks - 1), on other threads too; returns when all are done.
using ParallelFor = std::function<void(int64_t tasks, const std::function<void(int64_t)>& f)>;

// One splat as compositing wants it. Conics times -log2(e) / 2 (and b times two), the opacity as its logarithm:
// alpha = 2^(a dx^2 + b dx dy + c dy^2 + o).
struct alignas(64) Line {
  float x, y, a, b, c, o;
  float slope_x, slope_y;  // along a vertical or horizontal line, the best point is off the mean by so much per px across
  float depth, colour[4];  // colours where there are no more channels
  float unused[3];
};
constexpr int kMany = 4;             // more channels than this take the path for many
constexpr float kNothing = -200.0f;  // the logarithm of no opacity

// The tiles that a splat's box touches, ends excluded; none: x0 = x1.
struct Box {
  int16_t x0, y0, x1, y1;
  int64_t area() const { return int64_t(x1 - x0) * (y1 - y0); }
};

// Splats by tile, front to back. Of splat i, `first[i]` to `first[i + 1]` are the places in `pairs` (through `places`) that name it.
struct Bins {
  Line* lines;      // [n], of every splat that is listed
  int32_t* starts;  // [tiles + 1]
  int32_t* pairs;   // [starts[tiles]]
  int32_t* first;   // [n + 1]
  int32_t* places;  // like pairs
};

// Memory that calls use again: fresh pages cost more than the work done on them.
class Scratch {
 public:
  enum Slot { kBoxes, kLines, kKeys, kSorted, kCounts, kListed, kStarts, kFirst, kPairs, kPlaces, kRows, kColours, kBackground, kSlots };

  // Not cleared; aligned to 64 bytes. Valid until the slot is taken again. Throws where the machine has not so much memory.
  template <class T>
  T* take(Slot slot, int64_t count) {
    return static_cast<T*>(bytes(slot, count * int64_t(sizeof(T))));
  }
  int64_t size() const;

 private:
  void* bytes(Slot slot, int64_t count);
  std::vector<char> memory_[kSlots];
};

// Where the gradient finds the bins that the picture was made with: integers are the number of pairs, starts, first, and `capacity` pairs
// and places. With more pairs than that they are not kept, and the gradient makes them again. Capacity -1: no bins can be kept here.
struct Kept {
  Line* lines;
  int32_t* integers;
  int64_t capacity;
};
int64_t kept_capacity(const Scene& scene, int64_t integers);

struct Path;
// `kept`: null, or where lines and (if they fit) bins go. False: there are more pairs than an int32 counts.
bool make_bins(const Scene& scene, const Path& path, const ParallelFor& parallel, const Kept* kept, Scratch* scratch, Bins* bins);
// False: they were not kept.
bool find_bins(const Scene& scene, const Kept& kept, Bins* bins);

// What is compiled once per instruction set.
struct Path {
  // Boxes and lines of splats begin .. end.
  void (*prepare)(const Scene&, int64_t begin, int64_t end, Box*, Line*);
  // The compositing of one tile.
  void (*forward)(const Scene&, const Bins&, int tile, const Picture&);
  // Rows of gradient per pair: 16 floats (six moments, depth, then up to four channels); more channels in `colours`, whose rows are padded
  // to a multiple of sixteen. The background's gradient goes to [tile, channels].
  void (*backward)(const Scene&, const Bins&, int tile, const Picture& made, const Picture& cotangent, float* rows, float* colours,
                   float* background);
  // The gradient of splats begin .. end from the rows of their pairs, in their order: the same sum for any number of threads.
  void (*gather)(const Scene&, const Bins&, const float* rows, const float* colours, int64_t begin, int64_t end, const Gradients&);
  // How many (splat, block) meetings the tile takes: sixteen times that are the lanes that any method in blocks evaluates.
  int64_t (*meetings)(const Scene&, const Bins&, int tile);
  // Splats begin .. end of a view; and the gradient of Gaussians begin .. end, with what they add to the camera's, kCameraNumbers of them.
  void (*project)(const View&, int64_t begin, int64_t end, const Projected&);
  void (*project_gradient)(const View&, int64_t begin, int64_t end, const Projected& cotangent, const SpaceGradients&, double* camera);
};
Path portable_path();
Path avx2_path();
Path avx512_path();

inline int64_t padded(int64_t channels) { return (channels + 15) / 16 * 16; }

}  // namespace silky
