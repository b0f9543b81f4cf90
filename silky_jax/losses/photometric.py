"""Losses between pictures: L1, Huber, SSIM, and the weight maps that stress parts of a face.

Images are `[*b, h, w, c]` in [0, 1]. Every function returns one number per picture; the caller averages over a batch.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer

__all__ = ["huber", "l1", "part_weights", "ssim", "weighted_mean"]

# Kept small and per call site, so that an exact product costs nothing: SSIM subtracts nearly equal second moments, and a TF32 product
# (the GPU default) leaves it only three digits.
_EXACT = lax.Precision.HIGHEST


def weighted_mean(values: Float[Array, "*b h w c"], weights: Float[Array, "*b h w"] | None = None) -> Float[Array, "*b"]:
  """Mean of `weights * values` over the **whole** picture, not over the weights' sum.

  So the loss "full picture + 40 x mouth" of the released code (the spec, section 3) is this with weights `1 + 40 mouth`: a small region
  counts by its area times its weight, and a picture without it costs nothing extra.

  Args:
    values: per pixel and channel.
    weights: per pixel; None means 1.
  """
  if weights is not None:
    values = values * weights[..., None]
  return jnp.mean(values, axis=(-3, -2, -1))


def l1(
  predicted: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], weights: Float[Array, "*b h w"] | None = None
) -> Float[Array, "*b"]:
  """Mean absolute difference; see `weighted_mean`. The derivative at a zero difference is taken as 0."""
  return weighted_mean(jnp.abs(predicted - target), weights)


def huber(
  predicted: Float[Array, "*b h w c"],
  target: Float[Array, "*b h w c"],
  weights: Float[Array, "*b h w"] | None = None,
  *,
  delta: float = 0.1,
) -> Float[Array, "*b"]:
  """Mean Huber difference: d^2 / 2 below `delta`, delta (|d| - delta / 2) above; see `weighted_mean`.

  Args:
    predicted, target: images.
    weights: per pixel; None means 1.
    delta: where the parabola becomes a line, in image units; 0.1 is the released code's.
  """
  size = jnp.abs(predicted - target)
  inside = jnp.minimum(size, delta)
  return weighted_mean(inside * (size - 0.5 * inside), weights)


def part_weights(parts: Integer[Array, "*b h w"], table: Float[Array, "labels"]) -> Float[Array, "*b h w"]:
  """The weight of each pixel by its label: `1 + table[label]`. Not differentiable in `parts`.

  Args:
    parts: label map, ids below `labels`.
    table: extra weight per label; 0 leaves a label at weight 1.
  """
  return 1.0 + jnp.asarray(table)[parts.astype(jnp.int32)]


def ssim(
  predicted: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], *, window: int = 11, sigma: float = 1.5
) -> Float[Array, "*b"]:
  """Structural similarity, 1 for equal pictures (Wang et al. 2004, eq. 13, K1 = 0.01, K2 = 0.03, data range 1).

  The Gaussian window is moved only over places where it fits whole, as scikit-image's `gaussian_weights=True,
  use_sample_covariance=False` does. It is separable. On a CPU each direction is one product with a banded matrix, about ten times the
  speed of a depthwise convolution; elsewhere a sum of shifted pictures, which reads little and multiplies by no zeros.

  Args:
    predicted, target: images, at least `window` pixels in both directions.
    window: width of the window, px, odd.
    sigma: standard deviation of the window, px.

  Raises:
    ValueError: an image is smaller than the window.
  """
  height, width = predicted.shape[-3:-1]
  if min(height, width) < window:
    raise ValueError(f"ssim: the window of {window} px needs images of at least that size, got {height} x {width}")
  taps = _window(window, sigma)
  stack = jnp.concatenate([predicted, target, predicted * predicted + target * target, predicted * target], axis=-1)
  stack = lax.platform_dependent(stack, cpu=lambda x: _blur_by_products(x, taps), default=lambda x: _blur_by_shifts(x, taps))
  mean_a, mean_b, squares, product = jnp.split(stack, 4, axis=-1)
  variances = squares - mean_a * mean_a - mean_b * mean_b
  covariance = product - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
  structure = (2 * covariance + c2) / (variances + c2)
  return jnp.mean(luminance * structure, axis=(-3, -2, -1))


def _window(window: int, sigma: float) -> tuple[float, ...]:
  taps = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / sigma) ** 2)
  return tuple((taps / taps.sum()).tolist())


def _blur_by_shifts(x: Float[Array, "*b h w c"], taps: tuple[float, ...]) -> Float[Array, "*b y x c"]:
  """One direction after the other; the barrier keeps a compiler from making one pass of 121 taps of both."""
  for axis in (-3, -2):
    size = x.shape[axis] - len(taps) + 1
    x = functools.reduce(jnp.add, [tap * lax.slice_in_dim(x, i, i + size, axis=axis) for i, tap in enumerate(taps)])
    x = lax.optimization_barrier(x)
  return x


def _blur_by_products(x: Float[Array, "*b h w c"], taps: tuple[float, ...]) -> Float[Array, "*b y x c"]:
  rows, columns = (_window_matrix(size, taps) for size in x.shape[-3:-1])
  x = jnp.einsum("yh,...hwc->...ywc", rows, x, precision=_EXACT)
  return jnp.einsum("xw,...ywc->...yxc", columns, x, precision=_EXACT)


@functools.cache
def _window_matrix(size: int, taps: tuple[float, ...]) -> np.ndarray:
  """[size - taps + 1, size]: row i is the window over pixels i, i + 1, ..."""
  matrix = np.zeros((size - len(taps) + 1, size), np.float32)
  for i in range(len(matrix)):
    matrix[i, i : i + len(taps)] = taps
  return matrix
