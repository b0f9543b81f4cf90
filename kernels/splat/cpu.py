"""splat on the CPU: one XLA custom call forward, one backward (`csrc/splat.cc`). A batch is one call."""

import ctypes
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from silky_kernels import native

__all__ = ["splat", "stages"]

_TILE = 16  # kTile in csrc/splat.h
# Pairs per splat that the picture hands on to its gradient, 8 bytes each; a picture with more has them made twice. A closed surface has
# four where a splat is about a pixel wide, and nine where it is two.
_KEPT_PAIRS = 12


def splat(
  means2d: Float[Array, "n 2"],
  boxes: Float[Array, "n 2"],
  depths: Float[Array, "n"],
  conics: Float[Array, "n 3"],
  opacities: Float[Array, "n"],
  features: Float[Array, "n c"],
  background: Float[Array, "c"],
  width: int,
  height: int,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"], Float[Array, "h w"]]:
  """See `api.splat`; returns (image, alpha, depth)."""
  layout = (width, height, native.SIMD.index(native.best_simd()))
  return _splat(layout, means2d, boxes, depths, conics, opacities, features, background)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _splat(layout, *arrays):
  return _call(layout, arrays, kept=(0, 0))[:3]


def _forward(layout, *arrays):
  width, height, _ = layout
  n, tiles = arrays[0].shape[0], -(-width // _TILE) * -(-height // _TILE)
  made = _call(layout, arrays, kept=(n, 3 + tiles + n + 2 * _KEPT_PAIRS * n))
  return made[:3], (arrays, made)


def _call(layout, arrays, *, kept: tuple[int, int]) -> tuple[Array, ...]:
  """(image, alpha, depth), and what the gradient need not make again: splats as lines, bins. See `Kept` in csrc/splat.h."""
  width, height, simd = layout
  shapes = ((height, width, arrays[-1].shape[-1]), (height, width), (height, width), (kept[0], 16))
  out = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes] + [jax.ShapeDtypeStruct(kept[1:], jnp.int32)]
  return native.call("silky_splat_forward", out, arrays, width=width, height=height, simd=simd)


def _backward(layout, residuals, cotangents):
  arrays, made = residuals
  width, height, simd = layout
  means2d, boxes, depths, conics, opacities, features, background = arrays
  out = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (means2d, depths, conics, opacities, features, background)]
  given = (*arrays, *made, *cotangents)
  to_means, *others = native.call("silky_splat_backward", out, given, width=width, height=height, simd=simd)
  return (to_means, jnp.zeros_like(boxes), *others)


_splat.defvjp(_forward, _backward)


def stages(splats: dict[str, np.ndarray], width: int, height: int, *, repeats: int = 5) -> dict[str, float]:
  """What a picture and its gradient take on one thread, and how much work that is: for benches.

  Args:
    splats: means2d, boxes, depths, conics, opacities, features, background.
    width: px.
    height: px.
    repeats: the smallest time of so many counts.

  Returns:
    "meetings": of a splat with a block of 4 x 4 px, in the picture; "bins", "picture", "gradient_tiles", "gradient_splats": milliseconds.
  """
  names = ("means2d", "boxes", "depths", "conics", "opacities", "features", "background")
  arrays = [np.ascontiguousarray(splats[name], np.float32) for name in names]
  n, channels = splats["features"].shape
  out = np.zeros(5)
  run = native.load().silky_stages
  run.restype = ctypes.c_bool
  pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
  simd = native.SIMD.index(native.best_simd())
  sizes = (ctypes.c_int64(n), ctypes.c_int64(channels), ctypes.c_int(width), ctypes.c_int(height))
  if not run(*sizes, *pointers, ctypes.c_int(simd), ctypes.c_int(repeats), out.ctypes.data_as(ctypes.c_void_p)):
    raise ValueError("stages: too many tile pairs")
  return dict(zip(("meetings", "bins", "picture", "gradient_tiles", "gradient_splats"), out.tolist(), strict=True))
