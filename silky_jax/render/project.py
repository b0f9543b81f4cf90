"""EWA projection: world-space Gaussians to splats in the picture (Zwicker et al. 2001; Kerbl et al. 2023, section 4)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from silky_jax.types import Camera, Gaussians, Splats

__all__ = ["project"]

# A splat is drawn where its alpha reaches this: the rasterizer's own threshold, so boxes lose nothing and waste nothing.
_SMALLEST_ALPHA = 1 / 255
# The Jacobian is taken at most this part of the half field of view outside the picture, as 3D Gaussian splatting does: beyond it the
# linearisation blows thin splats up over the whole picture.
_MARGIN = 0.3
# Metres (and metres^2): larger inputs count as broken. Their products with a focal length still fit float32.
_LARGEST = 1e12
# Boxes are widened by this, px and relative, against rounding of the square roots.
_SLACK = 1e-3


def project(gaussians: Gaussians, camera: Camera, *, near: float = 0.01, low_pass: float = 0.3) -> tuple[Splats, Float[Array, "n 2"]]:
  """Splats of Gaussians seen by a camera. One view; vmap for more.

  Equation: p = R mu + t; mean2d = (fx p_x / p_z + cx, fy p_y / p_z + cy); covariance2d = J R Sigma R^T J^T + low_pass I with J the
  Jacobian of the projection at p, its p_x / p_z and p_y / p_z clamped to 1.3 times the half field of view about the principal point.

  Culled, which means radius 0, opacity 0 and no gradient: Gaussians at or nearer than `near` (by their mean's depth), with an opacity
  below 1/255 (dead slots), whose box misses the picture, and those with a NaN, an infinity or a number beyond 1e12 in their mean or
  covariance, or a NaN or infinity in opacity or features. So one broken Gaussian never spoils the picture; `radii` shows it is gone.

  Args:
    gaussians: means [n, 3] m, covariances [n, 3, 3] m^2 (only the symmetric part is used), opacities [n], features [n, c].
    camera: one camera.
    near: metres.
    low_pass: px^2 added to the diagonal of the 2D covariance: no splat is narrower than a pixel.

  Returns:
    splats: means2d px, conics px^-2, depths m, radii px (the larger half width of the box, rounded up), opacities, features.
    boxes: [n, 2] px, half widths along x and y within which alpha reaches 1/255: what `bin_tiles` wants. Not differentiable.
  """
  sound = _sound(gaussians)
  means = jnp.where(sound[:, None], gaussians.means, 0)
  covariances = jnp.where(sound[:, None, None], gaussians.covariances, 0)
  rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
  local = _matvec(rotation, means) + translation
  ahead = sound & (local[:, 2] > near) & (gaussians.opacities >= _SMALLEST_ALPHA)
  # Culled points move to a harmless place before any division: a masked NaN would still poison the gradient.
  local = jnp.where(ahead[:, None], local, jnp.asarray([0, 0, 1], local.dtype))
  means2d = local[:, :2] / local[:, 2:] * _focal(camera) + camera.intrinsics[:2, 2]
  xx, xy, yy = _covariance2d(local, covariances, rotation, camera, low_pass)

  determinant = xx * yy - xy * xy
  opacities = jnp.where(ahead, gaussians.opacities, 0)
  reach = jnp.sqrt(2 * jnp.log(jnp.maximum(opacities / _SMALLEST_ALPHA, 1)))
  spread = jnp.sqrt(jnp.maximum(jnp.stack([xx, yy], axis=-1), 0))
  boxes = lax.stop_gradient(reach[:, None] * spread * (1 + _SLACK) + _SLACK)
  size = jnp.asarray([camera.width, camera.height], means2d.dtype)
  on_screen = ((means2d + boxes > 0) & (means2d - boxes < size)).all(axis=-1)
  drawn = ahead & on_screen & (xx > 0) & (yy > 0) & (determinant > 0) & jnp.isfinite(boxes).all(axis=-1) & jnp.isfinite(determinant)

  xx, xy, yy, determinant = (jnp.where(drawn, value, safe) for value, safe in ((xx, 1), (xy, 0), (yy, 1), (determinant, 1)))
  boxes = jnp.where(drawn[:, None], boxes, 0)
  splats = Splats(
    means2d=jnp.where(drawn[:, None], means2d, 0),
    conics=jnp.stack([yy / determinant, -xy / determinant, xx / determinant], axis=-1),
    depths=jnp.where(drawn, local[:, 2], 0),
    radii=jnp.ceil(jnp.max(boxes, axis=-1)),
    opacities=jnp.where(drawn, opacities, 0),
    features=jnp.where(drawn[:, None], gaussians.features, 0),
  )
  return splats, boxes


def _sound(gaussians: Gaussians) -> Bool[Array, "n"]:
  """Finite everywhere and of a size that arithmetic survives."""
  means, covariances = jnp.abs(gaussians.means), jnp.abs(gaussians.covariances)
  return (
    (means < _LARGEST).all(axis=-1)
    & (covariances < _LARGEST).all(axis=(-2, -1))
    & jnp.isfinite(gaussians.opacities)
    & jnp.isfinite(gaussians.features).all(axis=-1)
  )


def _covariance2d(
  local: Float[Array, "n 3"], covariances: Float[Array, "n 3 3"], rotation: Float[Array, "3 3"], camera: Camera, low_pass: float
) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
  """(xx, xy, yy) px^2. Written out in sums: batched 3x3 products are slow on CPU and inexact by default on GPU."""
  focal = _focal(camera)
  size = jnp.asarray([camera.width, camera.height], local.dtype)
  margin = _MARGIN * 0.5 * size / focal
  low, high = -camera.intrinsics[:2, 2] / focal - margin, (size - camera.intrinsics[:2, 2]) / focal + margin
  slopes = jnp.clip(local[:, :2] / local[:, 2:], low, high)
  # Rows of J R: d pixel_x / d world = fx / z (R_x - slope_x R_z), likewise y.
  scale = focal / local[:, 2:]
  row_x = scale[:, :1] * (rotation[0] - slopes[:, :1] * rotation[2])
  row_y = scale[:, 1:] * (rotation[1] - slopes[:, 1:] * rotation[2])
  symmetric = 0.5 * (covariances + jnp.swapaxes(covariances, -1, -2))
  turned_x = jnp.sum(symmetric * row_x[:, None, :], axis=-1)
  turned_y = jnp.sum(symmetric * row_y[:, None, :], axis=-1)
  xx = jnp.sum(row_x * turned_x, axis=-1) + low_pass
  yy = jnp.sum(row_y * turned_y, axis=-1) + low_pass
  return xx, jnp.sum(row_y * turned_x, axis=-1), yy


def _matvec(matrix: Float[Array, "3 3"], vectors: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
  return jnp.sum(matrix * vectors[:, None, :], axis=-1)


def _focal(camera: Camera) -> Float[Array, "2"]:
  return jnp.stack([camera.intrinsics[0, 0], camera.intrinsics[1, 1]])
