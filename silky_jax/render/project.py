"""EWA projection of Gaussians seen by a camera: the op `silky_kernels.project` on this project's pytrees."""

import jax.numpy as jnp
from jaxtyping import Array, Float
from silky_kernels import Backend
from silky_kernels import project as project_arrays

from silky_jax.types import Camera, Gaussians, Splats

__all__ = ["project"]


def project(
  gaussians: Gaussians, camera: Camera, *, near: float = 0.01, low_pass: float = 0.3, backend: Backend | None = None
) -> tuple[Splats, Float[Array, "n 2"]]:
  """Splats of Gaussians seen by a camera. One view; vmap for more.

  Equation, and what is culled: `silky_kernels.project`. A culled Gaussian has radius 0, opacity 0 and no gradient.

  Args:
    gaussians: means [n, 3] m, covariances [n, 3, 3] m^2 (only the symmetric part is used), opacities [n], features [n, c].
    camera: one camera.
    near: metres.
    low_pass: px^2 added to the diagonal of the 2D covariance: no splat is narrower than a pixel.
    backend: "cpu" (C++) and "pallas" (NVIDIA GPUs): float32, reverse mode once; "xla" (any mode and order), or None for the best available.

  Returns:
    splats: means2d px, conics px^-2, depths m, radii px (the larger half width of the box, rounded up), opacities, features.
    boxes: [n, 2] px, half widths along x and y within which alpha reaches 1/255: what `splat` wants. Not differentiable.
  """
  made = project_arrays(
    gaussians.means,
    gaussians.covariances,
    gaussians.opacities,
    gaussians.features,
    camera.world_to_camera,
    camera.intrinsics,
    width=camera.width,
    height=camera.height,
    near=near,
    low_pass=low_pass,
    backend=backend,
  )
  features = jnp.where(made.radii[:, None] > 0, gaussians.features, 0)
  splats = Splats(
    means2d=made.means2d, conics=made.conics, depths=made.depths, radii=made.radii, opacities=made.opacities, features=features
  )
  return splats, made.boxes
