// The custom calls: batches, threads, choice of instruction set, gradients from rows.
#include <algorithm>
#include <chrono>

#include "calls.h"

namespace silky {
namespace {

// ---- arguments

struct Batch {
  int64_t pictures = 1;
  Scene first;  // of the batch

  Scene at(int64_t k) const {
    Scene s = first;
    s.means += k * 2 * s.n, s.boxes += k * 2 * s.n, s.depths += k * s.n, s.conics += k * 3 * s.n;
    s.opacities += k * s.n, s.features += k * s.n * s.channels, s.background += k * s.channels;
    return s;
  }
  int64_t area() const { return int64_t(first.width) * first.height; }
  Picture picture(float* image, float* alpha, float* depth, int64_t k) const {
    return {image + k * area() * first.channels, alpha + k * area(), depth + k * area()};
  }
};

ffi::Error read_batch(Floats& means, Floats& boxes, Floats& depths, Floats& conics, Floats& opacities, Floats& features, Floats& background,
                      int64_t width, int64_t height, int64_t simd, Batch* out) {
  const auto shape = features.dimensions();
  if (shape.size() < 2) return wrong("features want [.., n, c]");
  const int64_t n = shape[shape.size() - 2], channels = shape[shape.size() - 1];
  int64_t pictures = 1;
  for (size_t i = 0; i + 2 < shape.size(); ++i) pictures *= shape[i];
  const bool fits = int64_t(means.element_count()) == pictures * 2 * n && boxes.element_count() == means.element_count() &&
                    int64_t(depths.element_count()) == pictures * n && int64_t(conics.element_count()) == pictures * 3 * n &&
                    opacities.element_count() == depths.element_count() && int64_t(background.element_count()) == pictures * channels;
  if (!fits) return wrong("array sizes do not fit each other");
  if (width < 1 || height < 1 || width > 32767 || height > 32767) return wrong("a picture is 1 to 32767 px wide and high");
  if (n > 2147483647) return wrong("too many splats");
  if (!runs(simd)) return wrong("this processor does not have the instruction set that was asked for");
  out->pictures = pictures;
  out->first = {n,
                channels,
                int(width),
                int(height),
                means.typed_data(),
                boxes.typed_data(),
                depths.typed_data(),
                conics.typed_data(),
                opacities.typed_data(),
                features.typed_data(),
                background.typed_data()};
  return ffi::Error::Success();
}

// ---- the calls

// The parts of a batch's kept lines [.., n, 16] and integers [.., m] that belong to a picture.
Kept kept_of(const Batch& batch, const float* lines, const int32_t* integers, int64_t all, int64_t k) {
  const int64_t each = all / batch.pictures;
  const bool aligned = reinterpret_cast<uintptr_t>(lines) % alignof(Line) == 0;  // they are; but nobody promises it
  return {reinterpret_cast<Line*>(const_cast<float*>(lines)) + k * batch.first.n, const_cast<int32_t*>(integers) + k * each,
          aligned ? kept_capacity(batch.first, each) : -1};
}

ffi::Error forward(ffi::ThreadPool pool, Floats means, Floats boxes, Floats depths, Floats conics, Floats opacities, Floats features,
                   Floats background, Out image, Out alpha, Out depth, Out lines, ffi::Result<Whole> integers, int64_t width,
                   int64_t height, int64_t simd) {
  Batch batch;
  if (auto error = read_batch(means, boxes, depths, conics, opacities, features, background, width, height, simd, &batch); error.failure())
    return error;
  return guarded([&]() -> ffi::Error {
    const Path path = path_of(simd);
    Team team = team_of(pool, batch.pictures);
    const ParallelFor parallel = [&team](int64_t tasks, const std::function<void(int64_t)>& f) { team.run(tasks, f); };
    const Lease scratch;
    const bool keep = integers->element_count() > 0;
    for (int64_t k = 0; k < batch.pictures; ++k) {
      const Scene scene = batch.at(k);
      const Picture picture = batch.picture(image->typed_data(), alpha->typed_data(), depth->typed_data(), k);
      const Kept kept = kept_of(batch, lines->typed_data(), integers->typed_data(), integers->element_count(), k);
      Bins bins;
      if (!make_bins(scene, path, parallel, keep ? &kept : nullptr, scratch.get(), &bins))
        return wrong("splat: more than 2^31 tile pairs; are the splats far too large?");
      parallel(scene.tiles(), [&](int64_t tile) { path.forward(scene, bins, int(tile), picture); });
    }
    return ffi::Error::Success();
  });
}

ffi::Error backward(ffi::ThreadPool pool, Floats means, Floats boxes, Floats depths, Floats conics, Floats opacities, Floats features,
                    Floats background, Floats image, Floats alpha, Floats depth, Floats lines, Whole integers, Floats to_image,
                    Floats to_alpha, Floats to_depth, Out to_means, Out to_depths, Out to_conics, Out to_opacities, Out to_features,
                    Out to_background, int64_t width, int64_t height, int64_t simd) {
  Batch batch;
  if (auto error = read_batch(means, boxes, depths, conics, opacities, features, background, width, height, simd, &batch); error.failure())
    return error;
  return guarded([&]() -> ffi::Error {
    const Path path = path_of(simd);
    Team team = team_of(pool, batch.pictures);
    const ParallelFor parallel = [&team](int64_t tasks, const std::function<void(int64_t)>& f) { team.run(tasks, f); };
    const Lease scratch;
    const int64_t n = batch.first.n, channels = batch.first.channels, tiles = batch.first.tiles(), slices = 16;
    for (int64_t k = 0; k < batch.pictures; ++k) {
      const Scene scene = batch.at(k);
      const Picture made = batch.picture(image.typed_data(), alpha.typed_data(), depth.typed_data(), k);
      const Picture cotangent = batch.picture(to_image.typed_data(), to_alpha.typed_data(), to_depth.typed_data(), k);
      Bins bins;
      if (!find_bins(scene, kept_of(batch, lines.typed_data(), integers.typed_data(), integers.element_count(), k), &bins) &&
          !make_bins(scene, path, parallel, nullptr, scratch.get(), &bins))
        return wrong("splat: more than 2^31 tile pairs; are the splats far too large?");
      const int64_t pairs = bins.starts[tiles];
      float* rows = scratch.get()->take<float>(Scratch::kRows, 16 * pairs);
      float* colours = channels > kMany ? scratch.get()->take<float>(Scratch::kColours, padded(channels) * pairs) : nullptr;
      float* behind = scratch.get()->take<float>(Scratch::kBackground, tiles * channels);
      parallel(tiles, [&](int64_t tile) { path.backward(scene, bins, int(tile), made, cotangent, rows, colours, behind); });
      const Gradients out{to_means->typed_data() + k * 2 * n,           to_depths->typed_data() + k * n,
                          to_conics->typed_data() + k * 3 * n,          to_opacities->typed_data() + k * n,
                          to_features->typed_data() + k * n * channels, to_background->typed_data() + k * channels};
      parallel(slices, [&](int64_t i) { path.gather(scene, bins, rows, colours, n * i / slices, n * (i + 1) / slices, out); });
      for (int64_t ch = 0; ch < channels; ++ch) {
        double total = 0;
        for (int64_t tile = 0; tile < tiles; ++tile) total += behind[channels * tile + ch];
        out.background[ch] = float(total);
      }
    }
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace silky

#define SILKY_ARGUMENTS     \
  .Arg<silky::Floats>()     \
      .Arg<silky::Floats>() \
      .Arg<silky::Floats>() \
      .Arg<silky::Floats>() \
      .Arg<silky::Floats>() \
      .Arg<silky::Floats>() \
      .Arg<silky::Floats>()
#define SILKY_SIZES .Attr<int64_t>("width").Attr<int64_t>("height").Attr<int64_t>("simd")

XLA_FFI_DEFINE_HANDLER_SYMBOL(silky_splat_forward, silky::forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>() SILKY_ARGUMENTS.Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Whole>() SILKY_SIZES);

XLA_FFI_DEFINE_HANDLER_SYMBOL(silky_splat_backward, silky::backward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>() SILKY_ARGUMENTS.Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Whole>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>() SILKY_SIZES);

// For benches: one picture and its gradient on one thread. `out`: the (splat, block) meetings, then milliseconds of bins, picture, gradient
// per tile, gradient per splat; the smallest of `repeats`. False: this processor does not have the instruction set.
extern "C" bool silky_stages(int64_t n, int64_t channels, int width, int height, const float* means, const float* boxes,
                             const float* depths, const float* conics, const float* opacities, const float* features,
                             const float* background, int simd, int repeats, double* out) {
  using namespace silky;
  if (!runs(simd)) return false;
  const Scene scene{n, channels, width, height, means, boxes, depths, conics, opacities, features, background};
  const Path path = path_of(simd);
  const ParallelFor alone = [](int64_t tasks, const std::function<void(int64_t)>& work) {
    for (int64_t k = 0; k < tasks; ++k) work(k);
  };
  const int64_t tiles = scene.tiles(), area = int64_t(width) * height;
  std::vector<float> made((channels + 2) * area), cotangent((channels + 2) * area, 1.0f), gradient((7 + channels) * n + channels);
  const auto picture = [&](std::vector<float>& at) {
    return Picture{at.data(), at.data() + channels * area, at.data() + (channels + 1) * area};
  };
  float* g = gradient.data();
  const Gradients to{g, g + 2 * n, g + 3 * n, g + 6 * n, g + 7 * n, g + (7 + channels) * n};
  Scratch scratch;
  Bins bins;
  std::fill(out, out + 5, 1e30);
  for (int k = 0; k < repeats; ++k) {
    auto last = std::chrono::steady_clock::now();
    const auto lap = [&](int stage) {
      const auto now = std::chrono::steady_clock::now();
      out[stage] = std::min(out[stage], std::chrono::duration<double, std::milli>(now - last).count());
      last = std::chrono::steady_clock::now();
    };
    if (!make_bins(scene, path, alone, nullptr, &scratch, &bins)) return false;
    lap(1);
    for (int64_t tile = 0; tile < tiles; ++tile) path.forward(scene, bins, int(tile), picture(made));
    lap(2);
    const int64_t pairs = bins.starts[tiles];
    float* rows = scratch.take<float>(Scratch::kRows, 16 * pairs);
    float* colours = channels > kMany ? scratch.take<float>(Scratch::kColours, padded(channels) * pairs) : nullptr;
    float* behind = scratch.take<float>(Scratch::kBackground, tiles * channels);
    last = std::chrono::steady_clock::now();
    for (int64_t tile = 0; tile < tiles; ++tile)
      path.backward(scene, bins, int(tile), picture(made), picture(cotangent), rows, colours, behind);
    lap(3);
    path.gather(scene, bins, rows, colours, 0, n, to);
    lap(4);
  }
  out[0] = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) out[0] += double(path.meetings(scene, bins, int(tile)));
  return true;
}
