"""splat: projected Gaussians to a picture, binning included."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int
from silky_kernels.backend import Backend, choose
from silky_kernels.bin_tiles.api import bin_tiles
from silky_kernels.rasterize.api import rasterize_tiles
from silky_kernels.splat import cpu

__all__ = ["SplatOutput", "splat"]


class SplatOutput(NamedTuple):
  """A composited picture."""

  image: Float[Array, "h w c"]  # over the background
  alpha: Float[Array, "h w"]  # sum of weights
  depth: Float[Array, "h w"]  # sum of weight * depth, no background
  overflow: Int[Array, ""]  # tile pairs dropped because `capacity` was too small; 0 where the backend has no capacity
  wanted: Int[Array, ""]  # tile pairs kept + dropped; 0 where the backend has no capacity


def splat(
  means2d: Float[Array, "n 2"],
  boxes: Float[Array, "n 2"],
  depths: Float[Array, "n"],
  conics: Float[Array, "n 3"],
  opacities: Float[Array, "n"],
  features: Float[Array, "n c"],
  background: Float[Array, "c"],
  *,
  width: int,
  height: int,
  tile: int = 8,
  capacity: int = 196_608,
  backend: Backend | None = None,
) -> SplatOutput:
  """Composites splats front to back: `bin_tiles`, then `rasterize_tiles`, whose docstring has the equations.

  Args:
    means2d: px.
    boxes: half widths along x and y within which alpha reaches 1/255, px; 0 on either axis is a culled splat. Smaller ones cut the splat
      at the border of a tile, whose size depends on the backend.
    depths: metres; sort key, and summed. At least 0 for splats that are not culled.
    conics: px^-2, inverse covariance as (xx, xy, yy).
    opacities: 0..1.
    features: any channels, at least 1; those of a culled splat are not looked at.
    background: colour behind everything.
    width: px.
    height: px.
    tile: px of a tile's side, where `backend` is "xla".
    capacity: most tile pairs, where `backend` is "xla" or "pallas"; under "pallas" the pictures of a batch share theirs.
    backend: "cpu" (C++, float32; no tile or capacity to choose), "pallas" (NVIDIA GPUs, float32; tiles of 8 px), "xla", or None for the
      best available.

  Returns:
    SplatOutput. Reverse-mode differentiable once in all but `boxes`; thresholds and boxes are constants. The "cpu" and
    "pallas" backends do not draw a splat with a value that is not finite; their results are the same bits in every run.

  Raises:
    ValueError: array sizes that do not fit each other, sizes that are not positive.
    NotImplementedError: a backend that cannot run here.
  """
  for name, value in (("width", width), ("height", height), ("n", means2d.shape[0]), ("c", features.shape[1])):
    if value < 1:
      raise ValueError(f"{name}: expected at least 1, got {value}")
  if background.shape[0] != features.shape[1]:
    raise ValueError(f"background: expected [{features.shape[1]}] like features, got {background.shape}")
  boxes = lax.stop_gradient(boxes)
  arrays = (means2d, boxes, depths, conics, opacities, features, background)
  chosen = choose("splat", backend, exact=any(a.dtype != jnp.float32 for a in arrays))
  if chosen == "cpu":
    image, alpha, depth = cpu.splat(*arrays, width, height)
    return SplatOutput(image, alpha, depth, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
  if chosen == "pallas":
    from silky_kernels.splat.pallas.splat import splat as on_gpu  # pulls Pallas in: only when somebody uses it

    return SplatOutput(*on_gpu(*arrays, width, height, capacity))
  features = jnp.where((boxes > 0).all(axis=-1, keepdims=True), features, 0)  # those of a culled splat may be anything
  sizes = {"width": width, "height": height, "tile": tile, "backend": "xla"}
  bins = bin_tiles(lax.stop_gradient(means2d), boxes, lax.stop_gradient(depths), capacity=capacity, **sizes)
  made = rasterize_tiles(means2d, conics, features, opacities, depths, bins.pairs, bins.tile_starts, background, **sizes)
  return SplatOutput(made.image, made.alpha, made.depth, bins.overflow, bins.wanted)
