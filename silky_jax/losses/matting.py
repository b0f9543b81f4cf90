"""What of an outline's pixels is the head's, and what belongs to the wall behind it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

__all__ = ["unmix_outline"]

_INWARD, _OUTWARD = 0.5, 2.0  # deviations of the means in widths: hair is a thin band before the skin begins, walls are plain
_EXACT = jax.lax.Precision.HIGHEST  # colours are divided by small weights
_NEAR = 1e-5  # share of a Gaussian that has to lie on known pixels
_CONTRAST = 0.1  # between head and background, from which their mixture can be told


def unmix_outline(
  images: Float[Array, "*b h w 3"], masks: Float[Array, "*b h w"], width: int
) -> tuple[Float[Array, "*b h w 3"], Float[Array, "*b h w"]]:
  """What the head adds to the pixels of its outline, which mix it with what stands behind: image = a F + (1 - a) B.

  F and B are the Gaussian means of the pixels further in and further out; a is the share that explains the pixel best,
  a = (image - B).(F - B) / |F - B|^2, clipped to 0..1, and the mask where F and B are alike. An avatar that learns the mixed
  pixels as they are carries a line of the wall's colour through its hair when it turns.

  Args:
    images: 0..1.
    masks: 0..1, right to about `width` px.
    width: px, on either side of the outline.

  Returns:
    foreground: F within the rim and outside, the image inside. alpha: a within the rim, the mask elsewhere.
  """
  inner = _erode(masks, width) > 0.9
  outer = _erode(1.0 - masks, width) > 0.9
  front, front_weight = _local_mean(images, inner, _INWARD * width)
  back, back_weight = _local_mean(images, outer, _OUTWARD * width)
  contrast = jnp.sum((front - back) ** 2, axis=-1)
  share = jnp.clip(jnp.sum((images - back) * (front - back), axis=-1) / jnp.maximum(contrast, 1e-6), 0.0, 1.0)
  trust = contrast / (contrast + _CONTRAST**2) * (front_weight > _NEAR) * (back_weight > _NEAR)
  rim = ~inner & ~outer
  alpha = jnp.where(rim, trust * share + (1.0 - trust) * masks, masks)
  return jnp.where((inner | (front_weight <= _NEAR))[..., None], images, front), alpha


def _erode(masks: Float[Array, "*b h w"], width: int) -> Float[Array, "*b h w"]:
  window = (1,) * (masks.ndim - 2) + (2 * width + 1,) * 2
  return jax.lax.reduce_window(masks, jnp.inf, jax.lax.min, window, (1,) * masks.ndim, "SAME")


def _local_mean(
  images: Float[Array, "*b h w 3"], where: Bool[Array, "*b h w"], sigma: float
) -> tuple[Float[Array, "*b h w 3"], Float[Array, "*b h w"]]:
  """Gaussian mean of the chosen pixels about every pixel, and how much of the Gaussian they fill."""
  rows, columns = (_spread_matrix(size, sigma) for size in images.shape[-3:-1])
  chosen = where[..., None].astype(images.dtype)
  stack = jnp.concatenate([images * chosen, chosen], axis=-1)
  stack = jnp.einsum("yh,...hwc->...ywc", rows, stack, precision=_EXACT)
  stack = jnp.einsum("xw,...ywc->...yxc", columns, stack, precision=_EXACT)
  weight = stack[..., 3]
  return stack[..., :3] / jnp.maximum(weight, _NEAR)[..., None], weight


@functools.cache
def _spread_matrix(size: int, sigma: float) -> np.ndarray:
  """[size, size]: row i holds a Gaussian about pixel i, cut at five deviations."""
  distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
  return np.where(distance <= 5 * sigma, np.exp(-0.5 * (distance / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)), 0.0).astype(np.float32)
