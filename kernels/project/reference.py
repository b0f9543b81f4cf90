"""project in plain JAX: the "xla" backend."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float
from silky_kernels.rasterize.definition import SMALLEST_ALPHA

__all__ = ["LARGEST", "MARGIN", "SLACK", "project"]

# The Jacobian is taken at most this part of the half field of view outside the picture, as 3D Gaussian splatting does: beyond it the
# linearisation blows thin splats up over the whole picture.
MARGIN = 0.3
# Metres (and metres^2): larger inputs count as broken. Their products with a focal length still fit float32.
LARGEST = 1e12
# Boxes are widened by this, px and relative, against rounding of the square roots.
SLACK = 1e-3


def project(
  means: Float[Array, "n 3"],
  covariances: Float[Array, "n 3 3"],
  opacities: Float[Array, "n"],
  features: Float[Array, "n c"],
  world_to_camera: Float[Array, "4 4"],
  intrinsics: Float[Array, "3 3"],
  width: int,
  height: int,
  near: float,
  low_pass: float,
) -> tuple[Float[Array, "..."], ...]:
  """See `api.project`; returns (means2d, boxes, depths, conics, opacities, radii)."""
  sound = _sound(means, covariances, opacities, features)
  means, covariances = jnp.where(sound[:, None], means, 0), jnp.where(sound[:, None, None], covariances, 0)
  rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
  local = jnp.sum(rotation * means[:, None, :], axis=-1) + translation
  # A draw at alpha = 1/255 is the rasterizer's own threshold, so boxes lose nothing and waste nothing.
  ahead = sound & (local[:, 2] > near) & (opacities >= SMALLEST_ALPHA)
  # Culled points move to a harmless place before any division: a masked NaN would still poison the gradient.
  local = jnp.where(ahead[:, None], local, jnp.asarray([0, 0, 1], local.dtype))
  focal, centre = jnp.stack([intrinsics[0, 0], intrinsics[1, 1]]), intrinsics[:2, 2]
  size = jnp.asarray([width, height], local.dtype)
  means2d = local[:, :2] / local[:, 2:] * focal + centre
  xx, xy, yy = _covariance2d(local, covariances, rotation, focal, centre, size, low_pass)

  determinant = xx * yy - xy * xy
  opacities = jnp.where(ahead, opacities, 0)
  reach = jnp.sqrt(2 * jnp.log(jnp.maximum(opacities / SMALLEST_ALPHA, 1)))
  spread = jnp.sqrt(jnp.maximum(jnp.stack([xx, yy], axis=-1), 0))
  boxes = lax.stop_gradient(reach[:, None] * spread * (1 + SLACK) + SLACK)
  on_screen = ((means2d + boxes > 0) & (means2d - boxes < size)).all(axis=-1)
  drawn = ahead & on_screen & (xx > 0) & (yy > 0) & (determinant > 0) & jnp.isfinite(boxes).all(axis=-1) & jnp.isfinite(determinant)

  xx, xy, yy, determinant = (jnp.where(drawn, value, safe) for value, safe in ((xx, 1), (xy, 0), (yy, 1), (determinant, 1)))
  boxes = jnp.where(drawn[:, None], boxes, 0)
  return (
    jnp.where(drawn[:, None], means2d, 0),
    boxes,
    jnp.where(drawn, local[:, 2], 0),
    jnp.stack([yy / determinant, -xy / determinant, xx / determinant], axis=-1),
    jnp.where(drawn, opacities, 0),
    jnp.ceil(jnp.max(boxes, axis=-1)),
  )


def _sound(means, covariances, opacities, features) -> Bool[Array, "n"]:
  """Finite everywhere and of a size that arithmetic survives."""
  return (
    (jnp.abs(means) < LARGEST).all(axis=-1)
    & (jnp.abs(covariances) < LARGEST).all(axis=(-2, -1))
    & jnp.isfinite(opacities)
    & jnp.isfinite(features).all(axis=-1)
  )


def _covariance2d(
  local: Float[Array, "n 3"],
  covariances: Float[Array, "n 3 3"],
  rotation: Float[Array, "3 3"],
  focal: Float[Array, "2"],
  centre: Float[Array, "2"],
  size: Float[Array, "2"],
  low_pass: float,
) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
  """(xx, xy, yy) px^2. Written out in sums: batched 3x3 products are slow on CPU and inexact by default on GPU."""
  margin = MARGIN * 0.5 * size / focal
  slopes = jnp.clip(local[:, :2] / local[:, 2:], -centre / focal - margin, (size - centre) / focal + margin)
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
