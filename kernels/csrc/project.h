// Gaussians in space to splats in a picture, sixteen at a time, and back. The equations are in silky_kernels/project/api.py.
#pragma once
#include "simd.h"
#include "splat.h"

namespace silky {
namespace {

constexpr float kMargin = 0.3f, kLargest = 1e12f, kSlack = 1e-3f;  // reference.py

// What one camera gives to all.
struct Lens {
  float rotation[3][3], shift[3], focal[2], centre[2], size[2], low[2], high[2];

  explicit Lens(const View& v) {
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) rotation[i][j] = v.world_to_camera[4 * i + j];
      shift[i] = v.world_to_camera[4 * i + 3];
    }
    size[0] = float(v.width), size[1] = float(v.height);
    for (int k = 0; k < 2; ++k) {
      focal[k] = v.intrinsics[4 * k], centre[k] = v.intrinsics[3 * k + 2];
      const float margin = kMargin * 0.5f * size[k] / focal[k];
      low[k] = -centre[k] / focal[k] - margin, high[k] = (size[k] - centre[k]) / focal[k] + margin;
    }
  }
};

// Sixteen Gaussians on their way into the picture.
struct Projection {
  Mask drawn;
  F16 mean[3], local[3], opacity;                 // local: in the camera's axes
  F16 slope[2], clipped[2], scale[2], ray[2][3];  // ray: (R_k - slope R_2), row k of J R over its scale
  F16 row[2][3], cov[3][3], turned[2][3];         // turned: cov row_k
  F16 xx, xy, yy, determinant, box[2];
};

inline F16 dot(const F16* a, const F16* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Finite, and of a size that arithmetic survives.
Mask sound(const View& v, const F16* mean, const F16* cov, F16 opacity, int64_t begin, int count) {
  alignas(64) float fine[16];
  for (int j = 0; j < 16; ++j) fine[j] = j < count && finite(v.features + v.channels * (begin + j), v.channels) ? 1.0f : 0.0f;
  Mask all = both(above(load(fine), 0.5f), at_most(size_of(opacity), 3.4028234e38f));
  for (int k = 0; k < 3; ++k) all = both(all, below(size_of(mean[k]), kLargest));
  for (int k = 0; k < 9; ++k) all = both(all, below(size_of(cov[k]), kLargest));
  return all;
}

Projection project16(const View& v, const Lens& lens, int64_t begin, int count) {
  Projection p;
  F16 cov[9];
  columns<3>(v.means + 3 * begin, 3, count, p.mean);
  columns<9>(v.covariances + 9 * begin, 9, count, cov);
  columns<1>(v.opacities + begin, 1, count, &p.opacity);
  const Mask fine = sound(v, p.mean, cov, p.opacity, begin, count);
  for (int k = 0; k < 3; ++k) p.mean[k] = where(fine, p.mean[k]);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) p.cov[i][j] = where(fine, 0.5f * (cov[3 * i + j] + cov[3 * j + i]));
  for (int i = 0; i < 3; ++i)
    p.local[i] = lens.rotation[i][0] * p.mean[0] + lens.rotation[i][1] * p.mean[1] + lens.rotation[i][2] * p.mean[2] + lens.shift[i];
  const Mask ahead = both(both(fine, above(p.local[2], v.near)), at_least(p.opacity, 1.0f / 255.0f));
  // Culled ones move to a harmless place before any division.
  p.local[0] = where(ahead, p.local[0]), p.local[1] = where(ahead, p.local[1]), p.local[2] = pick(ahead, p.local[2], splat(1.0f));
  p.opacity = where(ahead, p.opacity);
  for (int k = 0; k < 2; ++k) {
    p.slope[k] = p.local[k] / p.local[2];
    p.clipped[k] = least(most(p.slope[k], splat(lens.low[k])), splat(lens.high[k]));
    p.scale[k] = lens.focal[k] / p.local[2];
    for (int j = 0; j < 3; ++j) {
      p.ray[k][j] = lens.rotation[k][j] - p.clipped[k] * lens.rotation[2][j];
      p.row[k][j] = p.scale[k] * p.ray[k][j];
    }
    for (int i = 0; i < 3; ++i) p.turned[k][i] = dot(p.cov[i], p.row[k]);
  }
  p.xx = dot(p.row[0], p.turned[0]) + v.low_pass, p.yy = dot(p.row[1], p.turned[1]) + v.low_pass, p.xy = dot(p.row[1], p.turned[0]);
  p.determinant = p.xx * p.yy - p.xy * p.xy;
  // alpha = 1/255 at this many deviations.
  const F16 reach = root(1.38629436f * log2_fast(most(p.opacity * 255.0f, splat(1.0f))));
  p.box[0] = reach * root(most(p.xx, zero())) * (1 + kSlack) + kSlack, p.box[1] = reach * root(most(p.yy, zero())) * (1 + kSlack) + kSlack;
  p.drawn = both(both(ahead, both(above(p.xx, 0.0f), above(p.yy, 0.0f))), both(above(p.determinant, 0.0f), below(p.determinant, INFINITY)));
  for (int k = 0; k < 2; ++k) {
    const F16 at = p.slope[k] * lens.focal[k] + lens.centre[k];
    p.drawn = both(p.drawn, both(both(above(at + p.box[k], 0.0f), below(at - p.box[k], lens.size[k])), below(p.box[k], INFINITY)));
  }
  return p;
}

void project(const View& v, int64_t begin, int64_t end, const Projected& out) {
  const Lens lens(v);
  for (int64_t i = begin; i < end; i += 16) {
    const int count = int(std::min<int64_t>(16, end - i));
    const Projection p = project16(v, lens, i, count);
    const F16 determinant = pick(p.drawn, p.determinant, splat(1.0f)), one = splat(1.0f);
    const F16 conic[3] = {pick(p.drawn, p.yy, one) / determinant, where(p.drawn, 0.0f - p.xy) / determinant,
                          pick(p.drawn, p.xx, one) / determinant};
    F16 mean[2], box[2];
    for (int k = 0; k < 2; ++k) {
      mean[k] = where(p.drawn, p.slope[k] * lens.focal[k] + lens.centre[k]);
      box[k] = where(p.drawn, p.box[k]);
    }
    const F16 depth = where(p.drawn, p.local[2]), opacity = where(p.drawn, p.opacity), radius = ceiling(most(box[0], box[1]));
    set_columns<2>(out.means + 2 * i, 2, count, mean);
    set_columns<2>(out.boxes + 2 * i, 2, count, box);
    set_columns<1>(out.depths + i, 1, count, &depth);
    set_columns<3>(out.conics + 3 * i, 3, count, conic);
    set_columns<1>(out.opacities + i, 1, count, &opacity);
    set_columns<1>(out.radii + i, 1, count, &radius);
  }
}

// What the Gaussians of a slice add to the gradient of the camera; lanes are added up at the end.
struct LensGradient {
  F16 rotation[3][3], shift[3], focal[2], centre[2];
};

// To the clipped slope of axis k: the limits are the camera's where it is clipped. Returns what goes on to the slope.
inline F16 through_clip(const Lens& lens, const Projection& p, int k, F16 g, LensGradient* to) {
  const F16 inside = where(both(above(p.slope[k], lens.low[k]), below(p.slope[k], lens.high[k])), g);
  const F16 at_low = where(below(p.slope[k], lens.low[k]), g), at_high = where(above(p.slope[k], lens.high[k]), g);
  const float f = lens.focal[k];
  to->centre[k] -= (at_low + at_high) * (1 / f);
  to->focal[k] -= (at_low * lens.low[k] + at_high * lens.high[k]) * (1 / f);  // both limits are something / f
  return inside;
}

void project_gradient(const View& v, int64_t begin, int64_t end, const Projected& cotangent, const SpaceGradients& out, double* camera) {
  const Lens lens(v);
  LensGradient to;
  std::memset(&to, 0, sizeof to);
  for (int64_t i = begin; i < end; i += 16) {
    const int count = int(std::min<int64_t>(16, end - i));
    const Projection p = project16(v, lens, i, count);
    F16 to_mean[2], to_conic[3], to_depth, to_opacity;
    columns<2>(cotangent.means + 2 * i, 2, count, to_mean);
    columns<3>(cotangent.conics + 3 * i, 3, count, to_conic);
    columns<1>(cotangent.depths + i, 1, count, &to_depth);
    columns<1>(cotangent.opacities + i, 1, count, &to_opacity);
    for (F16* g : {&to_mean[0], &to_mean[1], &to_conic[0], &to_conic[1], &to_conic[2], &to_depth, &to_opacity}) *g = where(p.drawn, *g);
    // Conic (yy, -xy, xx) / determinant.
    const F16 inv = 1.0f / pick(p.drawn, p.determinant, splat(1.0f));
    const F16 to_determinant = (to_conic[1] * p.xy - to_conic[0] * p.yy - to_conic[2] * p.xx) * inv * inv;
    const F16 to_xx = where(p.drawn, to_conic[2] * inv + to_determinant * p.yy),
              to_yy = where(p.drawn, to_conic[0] * inv + to_determinant * p.xx);
    const F16 to_xy = where(p.drawn, 0.0f - to_conic[1] * inv - 2.0f * to_determinant * p.xy);
    F16 to_row[2][3], to_cov[9], to_local[3] = {zero(), zero(), to_depth};
    for (int j = 0; j < 3; ++j) {
      to_row[0][j] = 2.0f * to_xx * p.turned[0][j] + to_xy * p.turned[1][j];
      to_row[1][j] = 2.0f * to_yy * p.turned[1][j] + to_xy * p.turned[0][j];
      for (int k = 0; k < 3; ++k)
        to_cov[3 * j + k] = to_xx * p.row[0][j] * p.row[0][k] + to_yy * p.row[1][j] * p.row[1][k] +
                            0.5f * to_xy * (p.row[0][j] * p.row[1][k] + p.row[1][j] * p.row[0][k]);
    }
    const F16 inverse_depth = 1.0f / p.local[2];
    for (int k = 0; k < 2; ++k) {
      const F16 to_scale = dot(to_row[k], p.ray[k]);
      F16 to_clipped = zero();
      for (int j = 0; j < 3; ++j) {
        const F16 scaled = p.scale[k] * to_row[k][j];
        to_clipped -= scaled * lens.rotation[2][j];
        to.rotation[k][j] += scaled;
        to.rotation[2][j] -= scaled * p.clipped[k];
      }
      const F16 to_slope = to_mean[k] * lens.focal[k] + through_clip(lens, p, k, to_clipped, &to);
      to.focal[k] += to_mean[k] * p.slope[k] + to_scale * inverse_depth;
      to.centre[k] += to_mean[k];
      to_local[k] = to_slope * inverse_depth;
      to_local[2] -= (to_slope * p.slope[k] + to_scale * p.scale[k]) * inverse_depth;
    }
    F16 to_space[3] = {zero(), zero(), zero()};
    for (int k = 0; k < 3; ++k) {
      to.shift[k] += to_local[k];
      for (int j = 0; j < 3; ++j) {
        to.rotation[k][j] += to_local[k] * p.mean[j];
        to_space[j] += to_local[k] * lens.rotation[k][j];
      }
    }
    set_columns<3>(out.means + 3 * i, 3, count, to_space);
    set_columns<9>(out.covariances + 9 * i, 9, count, to_cov);
    set_columns<1>(out.opacities + i, 1, count, &to_opacity);
  }
  const F16* parts = &to.rotation[0][0];
  for (int k = 0; k < kCameraNumbers; ++k) {
    camera[k] = 0;
    for (int lane = 0; lane < 16; ++lane) camera[k] += parts[k][lane];
  }
}

}  // namespace
}  // namespace silky
