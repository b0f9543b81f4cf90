"""project: Gaussians in space to splats in a picture."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float
from silky_kernels.backend import Backend, choose
from silky_kernels.project import cpu, reference

__all__ = ["ProjectOutput", "project"]


class ProjectOutput(NamedTuple):
  """Splats. A culled one has zeros everywhere and the conic of a circle."""

  means2d: Float[Array, "n 2"]  # px
  boxes: Float[Array, "n 2"]  # px, half widths along x and y within which alpha reaches 1/255
  depths: Float[Array, "n"]  # metres
  conics: Float[Array, "n 3"]  # px^-2, inverse covariance (xx, xy, yy)
  opacities: Float[Array, "n"]
  radii: Float[Array, "n"]  # px, the larger half width, rounded up; 0: culled


def project(
  means: Float[Array, "n 3"],
  covariances: Float[Array, "n 3 3"],
  opacities: Float[Array, "n"],
  features: Float[Array, "n c"],
  world_to_camera: Float[Array, "4 4"],
  intrinsics: Float[Array, "3 3"],
  *,
  width: int,
  height: int,
  near: float = 0.01,
  low_pass: float = 0.3,
  backend: Backend | None = None,
) -> ProjectOutput:
  """EWA projection (Zwicker et al. 2001; Kerbl et al. 2023, section 4). One view; vmap for more.

  Equation: p = R mu + t; mean2d = (fx p_x / p_z + cx, fy p_y / p_z + cy); covariance2d = J R Sigma R^T J^T + low_pass I with J the
  Jacobian of the projection at p, its p_x / p_z and p_y / p_z clamped to 1.3 times the half field of view about the principal point.

  Culled: Gaussians at or nearer than `near` (by their mean's depth), with an opacity below 1/255 (dead slots), whose box misses the
  picture, and those with a NaN, an infinity or a number beyond 1e12 in their mean or covariance, or a NaN or infinity in opacity or
  features. So one broken Gaussian never spoils the picture.

  Args:
    means: metres.
    covariances: metres^2; only the symmetric part is used.
    opacities: 0..1.
    features: looked at for values that are not finite.
    world_to_camera: OpenCV axes.
    intrinsics: px: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].
    width: px.
    height: px.
    near: metres.
    low_pass: px^2 added to the diagonal of the 2D covariance: no splat is narrower than a pixel.
    backend: "cpu" (C++, float32), "pallas" (NVIDIA GPUs, float32), "xla", or None for the best available.

  Returns:
    ProjectOutput. Reverse-mode differentiable in means, covariances, opacities and the camera ("xla" in every mode and order), through
    all but `boxes` and `radii`; culled Gaussians have no gradient.

  Raises:
    ValueError: sizes that are not positive.
    NotImplementedError: a backend that cannot run here.
  """
  for name, value in (("width", width), ("height", height), ("n", means.shape[0]), ("c", features.shape[1])):
    if value < 1:
      raise ValueError(f"{name}: expected at least 1, got {value}")
  arrays = (means, covariances, opacities, features, world_to_camera, intrinsics)
  chosen = choose("project", backend, exact=any(a.dtype != jnp.float32 for a in arrays))
  if chosen == "pallas":
    from silky_kernels.project import pallas  # pulls Pallas in: only when somebody uses it

    made = pallas.project(*arrays, width, height, near, low_pass)
  else:
    made = (cpu if chosen == "cpu" else reference).project(*arrays, width, height, near, low_pass)
  means2d, boxes, depths, conics, opacities, radii = made
  return ProjectOutput(means2d, lax.stop_gradient(boxes), depths, conics, opacities, lax.stop_gradient(radii))
