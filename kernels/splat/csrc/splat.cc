// The custom calls: batches, threads, choice of instruction set, gradients from rows.
#include "splat.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace silky {
namespace {

// ---- threads

// What the caller and its helpers share. Outlives a helper that starts after all is done.
struct Shared {
  std::atomic<int64_t> next{0}, done{0};
  int64_t tasks = 0;
  const std::function<void(int64_t)>* work = nullptr;  // not touched by who finds no task left

  void help() {
    for (int64_t task; (task = next.fetch_add(1)) < tasks;) {
      (*work)(task);
      done.fetch_add(1, std::memory_order_release);
    }
  }
};

ParallelFor on_pool(ffi::ThreadPool pool) {
  return [pool](int64_t tasks, const std::function<void(int64_t)>& work) mutable {
    auto shared = std::make_shared<Shared>();
    shared->tasks = tasks;
    shared->work = &work;
    const int64_t helpers = std::min<int64_t>(tasks - 1, pool.num_threads() - 1);
    for (int64_t i = 0; i < helpers; ++i) pool.Schedule([shared] { shared->help(); });
    shared->help();  // the caller works too, and finishes alone where no helper ever starts
    for (int spins = 0; shared->done.load(std::memory_order_acquire) < tasks; ++spins)
      if (spins > 200) std::this_thread::yield();
  };
}

// ---- instruction sets

enum Simd : int64_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

bool runs(int64_t simd) {
#if defined(__x86_64__)
  if (simd == kAvx512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (simd == kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return simd == kPortable;
}

Path path_of(int64_t simd) {
#if defined(__x86_64__)
  if (simd == kAvx512) return avx512_path();
  if (simd == kAvx2) return avx2_path();
#endif
  return portable_path();
}

// ---- arguments

using Floats = ffi::Buffer<ffi::F32>;
using Out = ffi::Result<Floats>;

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

ffi::Error wrong(const std::string& what) { return ffi::Error::InvalidArgument("silky_kernels splat: " + what); }

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

ffi::Error forward(ffi::ThreadPool pool, Floats means, Floats boxes, Floats depths, Floats conics, Floats opacities, Floats features,
                   Floats background, Out image, Out alpha, Out depth, int64_t width, int64_t height, int64_t simd) {
  Batch batch;
  if (auto error = read_batch(means, boxes, depths, conics, opacities, features, background, width, height, simd, &batch); error.failure())
    return error;
  const Path path = path_of(simd);
  const ParallelFor parallel = on_pool(pool);
  Bins bins;
  for (int64_t k = 0; k < batch.pictures; ++k) {
    const Scene scene = batch.at(k);
    const Picture picture = batch.picture(image->typed_data(), alpha->typed_data(), depth->typed_data(), k);
    make_bins(scene, parallel, false, &bins);
    parallel(int64_t(bins.starts.size()) - 1, [&](int64_t tile) { path.forward(scene, bins, int(tile), picture); });
  }
  return ffi::Error::Success();
}

// From the rows of all pairs of a splat, in their order: the same sum for any number of threads.
void gather_gradient(const Scene& s, const Bins& bins, const float* rows, const float* colours, int64_t i, const Gradients& out) {
  float sum[16] = {0};
  float* to_features = out.features + s.channels * i;
  std::fill(to_features, to_features + s.channels, 0.0f);
  for (int64_t j = bins.first[i]; j < bins.first[i + 1]; ++j) {
    const float* row = rows + 16 * bins.places[j];
    for (int lane = 0; lane < 16; ++lane) sum[lane] += row[lane];
    if (colours)
      for (int64_t ch = 0; ch < s.channels; ++ch) to_features[ch] += colours[bins.places[j] * s.channels + ch];
  }
  if (!colours)
    for (int64_t ch = 0; ch < s.channels; ++ch) to_features[ch] = sum[7 + ch];
  // d power / d mean = conic d.
  const float a = s.conics[3 * i], b = s.conics[3 * i + 1], c = s.conics[3 * i + 2];
  const bool listed = bins.first[i] < bins.first[i + 1];
  out.means[2 * i] = listed ? a * sum[1] + b * sum[2] : 0.0f;
  out.means[2 * i + 1] = listed ? b * sum[1] + c * sum[2] : 0.0f;
  out.conics[3 * i] = -0.5f * sum[3];
  out.conics[3 * i + 1] = -sum[4];
  out.conics[3 * i + 2] = -0.5f * sum[5];
  out.opacities[i] = listed ? sum[0] / std::max(s.opacities[i], 1.0f / 255.0f) : 0.0f;
  out.depths[i] = sum[6];
}

void background_gradient(const Scene& s, const Picture& made, const Picture& cotangent, float* out) {
  std::vector<double> sum(s.channels, 0.0);
  for (int64_t p = 0; p < int64_t(s.width) * s.height; ++p)
    for (int64_t ch = 0; ch < s.channels; ++ch) sum[ch] += double(cotangent.image[p * s.channels + ch]) * (1.0f - made.alpha[p]);
  for (int64_t ch = 0; ch < s.channels; ++ch) out[ch] = float(sum[ch]);
}

ffi::Error backward(ffi::ThreadPool pool, Floats means, Floats boxes, Floats depths, Floats conics, Floats opacities, Floats features,
                    Floats background, Floats image, Floats alpha, Floats depth, Floats to_image, Floats to_alpha, Floats to_depth,
                    Out to_means, Out to_depths, Out to_conics, Out to_opacities, Out to_features, Out to_background, int64_t width,
                    int64_t height, int64_t simd) {
  Batch batch;
  if (auto error = read_batch(means, boxes, depths, conics, opacities, features, background, width, height, simd, &batch); error.failure())
    return error;
  const Path path = path_of(simd);
  const ParallelFor parallel = on_pool(pool);
  const int64_t n = batch.first.n, channels = batch.first.channels;
  Bins bins;
  std::unique_ptr<float[]> rows, colours;  // not cleared: every row is written
  int64_t room = 0;
  for (int64_t k = 0; k < batch.pictures; ++k) {
    const Scene scene = batch.at(k);
    const Picture made = batch.picture(image.typed_data(), alpha.typed_data(), depth.typed_data(), k);
    const Picture cotangent = batch.picture(to_image.typed_data(), to_alpha.typed_data(), to_depth.typed_data(), k);
    make_bins(scene, parallel, true, &bins);
    if (const int64_t wanted = bins.pairs.size(); wanted > room || !rows) {
      room = wanted + wanted / 4 + 1;
      rows.reset(new float[16 * room]);
      if (channels > 4) colours.reset(new float[channels * room]);
    }
    const int64_t tiles = int64_t(bins.starts.size()) - 1, slices = 16;
    parallel(tiles, [&](int64_t tile) { path.backward(scene, bins, int(tile), made, cotangent, rows.get(), colours.get()); });
    const Gradients out{to_means->typed_data() + k * 2 * n,      to_depths->typed_data() + k * n,
                        to_conics->typed_data() + k * 3 * n,     to_opacities->typed_data() + k * n,
                        to_features->typed_data() + k * n * channels, to_background->typed_data() + k * channels};
    parallel(slices + 1, [&](int64_t slice) {
      if (slice == slices) return background_gradient(scene, made, cotangent, out.background);
      for (int64_t i = n * slice / slices; i < n * (slice + 1) / slices; ++i) gather_gradient(scene, bins, rows.get(), colours.get(), i, out);
    });
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace silky

#define SILKY_ARGUMENTS                                                                                                       \
  .Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>() \
      .Arg<silky::Floats>()
#define SILKY_SIZES .Attr<int64_t>("width").Attr<int64_t>("height").Attr<int64_t>("simd")

XLA_FFI_DEFINE_HANDLER_SYMBOL(silky_splat_forward, silky::forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>() SILKY_ARGUMENTS.Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>() SILKY_SIZES);

XLA_FFI_DEFINE_HANDLER_SYMBOL(silky_splat_backward, silky::backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>() SILKY_ARGUMENTS.Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>() SILKY_SIZES);

extern "C" int silky_runs(int simd) { return silky::runs(simd); }

// For benches: (splat, block) meetings of one picture with one channel.
extern "C" int64_t silky_meetings(int64_t n, int width, int height, const float* means, const float* boxes, const float* depths,
                                  const float* conics, const float* opacities) {
  const std::vector<float> features(n, 0.0f);
  const silky::Scene scene{n, 1, width, height, means, boxes, depths, conics, opacities, features.data(), features.data()};
  const silky::ParallelFor alone = [](int64_t tasks, const std::function<void(int64_t)>& work) {
    for (int64_t k = 0; k < tasks; ++k) work(k);
  };
  silky::Bins bins;
  silky::make_bins(scene, alone, false, &bins);
  int64_t total = 0;
  for (size_t tile = 0; tile + 1 < bins.starts.size(); ++tile) total += silky::portable_path().meetings(scene, bins, int(tile));
  return total;
}
