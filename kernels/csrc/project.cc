// The custom calls of `project`.
#include <algorithm>

#include "calls.h"

namespace silky {
namespace {

constexpr int64_t kSlices = 16;  // a fixed number: sums do not depend on the number of threads

struct Views {
  int64_t pictures = 1;
  View first;

  View at(int64_t k) const {
    View v = first;
    v.means += k * 3 * v.n, v.covariances += k * 9 * v.n, v.opacities += k * v.n, v.features += k * v.n * v.channels;
    v.world_to_camera += k * 16, v.intrinsics += k * 9;
    return v;
  }
};

ffi::Error read_views(Floats& means, Floats& covariances, Floats& opacities, Floats& features, Floats& world_to_camera, Floats& intrinsics,
                      int64_t width, int64_t height, float near, float low_pass, int64_t simd, Views* out) {
  const auto shape = features.dimensions();
  if (shape.size() < 2) return wrong("project: features want [.., n, c]");
  const int64_t n = shape[shape.size() - 2], channels = shape[shape.size() - 1];
  int64_t pictures = 1;
  for (size_t i = 0; i + 2 < shape.size(); ++i) pictures *= shape[i];
  const bool fits = int64_t(means.element_count()) == pictures * 3 * n && int64_t(covariances.element_count()) == pictures * 9 * n &&
                    int64_t(opacities.element_count()) == pictures * n && int64_t(world_to_camera.element_count()) == pictures * 16 &&
                    int64_t(intrinsics.element_count()) == pictures * 9;
  if (!fits) return wrong("project: array sizes do not fit each other");
  if (!runs(simd)) return wrong("this processor does not have the instruction set that was asked for");
  out->pictures = pictures;
  out->first = {n,
                channels,
                int(width),
                int(height),
                near,
                low_pass,
                means.typed_data(),
                covariances.typed_data(),
                opacities.typed_data(),
                features.typed_data(),
                world_to_camera.typed_data(),
                intrinsics.typed_data()};
  return ffi::Error::Success();
}

Projected projected_at(float* means, float* boxes, float* depths, float* conics, float* opacities, float* radii, int64_t at) {
  return {means + 2 * at, boxes ? boxes + 2 * at : nullptr, depths + at, conics + 3 * at, opacities + at, radii ? radii + at : nullptr};
}

ffi::Error forward(ffi::ThreadPool pool, Floats means, Floats covariances, Floats opacities, Floats features, Floats world_to_camera,
                   Floats intrinsics, Out means2d, Out boxes, Out depths, Out conics, Out opacities2d, Out radii, int64_t width,
                   int64_t height, float near, float low_pass, int64_t simd) {
  Views views;
  if (auto error =
          read_views(means, covariances, opacities, features, world_to_camera, intrinsics, width, height, near, low_pass, simd, &views);
      error.failure())
    return error;
  const Path path = path_of(simd);
  Team team = team_of(pool, 1);
  team.run(kSlices * views.pictures, [&](int64_t task) {
    const View view = views.at(task / kSlices);
    const int64_t slice = task % kSlices;
    const Projected out = projected_at(means2d->typed_data(), boxes->typed_data(), depths->typed_data(), conics->typed_data(),
                                       opacities2d->typed_data(), radii->typed_data(), task / kSlices * view.n);
    path.project(view, view.n * slice / kSlices, view.n * (slice + 1) / kSlices, out);
  });
  return ffi::Error::Success();
}

// Into [4, 4] and [3, 3].
void place_camera(const double* sums, float* world_to_camera, float* intrinsics) {
  std::fill(world_to_camera, world_to_camera + 16, 0.0f);
  std::fill(intrinsics, intrinsics + 9, 0.0f);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) world_to_camera[4 * i + j] = float(sums[3 * i + j]);
    world_to_camera[4 * i + 3] = float(sums[9 + i]);
  }
  for (int k = 0; k < 2; ++k) intrinsics[4 * k] = float(sums[12 + k]), intrinsics[3 * k + 2] = float(sums[14 + k]);
}

ffi::Error backward(ffi::ThreadPool pool, Floats means, Floats covariances, Floats opacities, Floats features, Floats world_to_camera,
                    Floats intrinsics, Floats to_means2d, Floats to_depths, Floats to_conics, Floats to_opacities2d, Out to_means,
                    Out to_covariances, Out to_opacities, Out to_world_to_camera, Out to_intrinsics, int64_t width, int64_t height,
                    float near, float low_pass, int64_t simd) {
  Views views;
  if (auto error =
          read_views(means, covariances, opacities, features, world_to_camera, intrinsics, width, height, near, low_pass, simd, &views);
      error.failure())
    return error;
  const Path path = path_of(simd);
  std::vector<double> camera(views.pictures * kSlices * kCameraNumbers);
  Team team = team_of(pool, 1);
  team.run(kSlices * views.pictures, [&](int64_t task) {
    const View view = views.at(task / kSlices);
    const int64_t slice = task % kSlices, at = task / kSlices * view.n;
    const Projected cotangent = projected_at(to_means2d.typed_data(), nullptr, to_depths.typed_data(), to_conics.typed_data(),
                                             to_opacities2d.typed_data(), nullptr, at);
    const SpaceGradients out{to_means->typed_data() + 3 * at, to_covariances->typed_data() + 9 * at, to_opacities->typed_data() + at};
    path.project_gradient(view, view.n * slice / kSlices, view.n * (slice + 1) / kSlices, cotangent, out, &camera[kCameraNumbers * task]);
  });
  for (int64_t k = 0; k < views.pictures; ++k) {
    double sums[kCameraNumbers] = {0};
    for (int64_t slice = 0; slice < kSlices; ++slice)
      for (int i = 0; i < kCameraNumbers; ++i) sums[i] += camera[kCameraNumbers * (kSlices * k + slice) + i];
    place_camera(sums, to_world_to_camera->typed_data() + 16 * k, to_intrinsics->typed_data() + 9 * k);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace silky

#define SILKY_GAUSSIANS \
  .Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>().Arg<silky::Floats>()
#define SILKY_SETTINGS .Attr<int64_t>("width").Attr<int64_t>("height").Attr<float>("near").Attr<float>("low_pass").Attr<int64_t>("simd")

XLA_FFI_DEFINE_HANDLER_SYMBOL(silky_project_forward, silky::forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>() SILKY_GAUSSIANS.Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>() SILKY_SETTINGS);

XLA_FFI_DEFINE_HANDLER_SYMBOL(silky_project_backward, silky::backward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>() SILKY_GAUSSIANS.Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Arg<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>()
                                  .Ret<silky::Floats>() SILKY_SETTINGS);
