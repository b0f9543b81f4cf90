"""splat on the CPU: one XLA custom call forward, one backward, in C++ (`csrc/`). A batch is one call.

Compiled on first use (`silky_kernels/build.py`); runs on the threads that XLA hands to the call. The environment variable `SILKY_SIMD`
forces an instruction set.
"""

import ctypes
import functools
import logging
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from silky_kernels import build

__all__ = ["SIMD", "best_simd", "load", "meetings", "splat", "why_not"]

SIMD = ("portable", "avx2", "avx512")  # numbered so in csrc/splat.cc
_LOGGER = logging.getLogger("silky_kernels")
_TILE = 16  # kTile in csrc/splat.h
# Pairs per splat that the picture hands on to its gradient, 8 bytes each; a picture with more has them made twice. A closed surface has four
# where a splat is about a pixel wide, and nine where it is two.
_KEPT_PAIRS = 12
_AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")


def _recipe() -> build.Recipe:
  objects = [("splat.cc", ()), ("bins.cc", ()), ("path.cc", ("-DSILKY_PATH=portable_path",))]
  objects += build.x86_only(("-mavx2", "-mfma"), "-DSILKY_PATH=avx2_path", "path.cc")
  objects += build.x86_only(_AVX512, "-DSILKY_PATH=avx512_path", "path.cc")
  return build.Recipe("splat", Path(__file__).parent / "csrc", objects)


@functools.cache
def load() -> ctypes.CDLL:
  """The library, its calls registered.

  Raises:
    BuildError: it cannot be compiled here.
  """
  library = build.library(_recipe())
  for name in ("silky_splat_forward", "silky_splat_backward"):
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
  return library


@functools.cache
def why_not() -> str | None:
  """Why this backend cannot run here, or None. Compiles it, if that was not done before."""
  try:
    load()
  except build.BuildError as error:
    return str(error)
  return None


def best_simd() -> str:
  """The instruction set that calls traced from now on use: `SILKY_SIMD`, or the widest that this processor has.

  Raises:
    ValueError: `SILKY_SIMD` names none, or one that this processor does not have.
  """
  library, wanted = load(), os.environ.get("SILKY_SIMD")
  if wanted is None:
    return max((name for name in SIMD if library.silky_runs(SIMD.index(name))), key=SIMD.index)
  if wanted not in SIMD:
    raise ValueError(f"SILKY_SIMD: expected one of {SIMD}, got {wanted!r}")
  if not library.silky_runs(SIMD.index(wanted)):
    raise ValueError(f"SILKY_SIMD={wanted}: this processor does not have it; unset it, or take 'portable'")
  return wanted


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
  layout = (width, height, SIMD.index(best_simd()))
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
  """(image, alpha, depth), and what the gradient need not make again: splats as compositing wants them, bins. See `Kept` in csrc/splat.h."""
  width, height, _ = layout
  shapes = ((height, width, arrays[-1].shape[-1]), (height, width), (height, width), (kept[0], 16))
  out = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes] + [jax.ShapeDtypeStruct(kept[1:], jnp.int32)]
  return tuple(jax.ffi.ffi_call("silky_splat_forward", out, vmap_method="broadcast_all")(*arrays, **_attributes(layout)))


def _backward(layout, residuals, cotangents):
  arrays, made = residuals
  means2d, boxes, depths, conics, opacities, features, background = arrays
  out = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (means2d, depths, conics, opacities, features, background))
  call = jax.ffi.ffi_call("silky_splat_backward", out, vmap_method="broadcast_all")
  to_means, *others = call(*arrays, *made, *cotangents, **_attributes(layout))
  return (to_means, jnp.zeros_like(boxes), *others)


def _attributes(layout: tuple[int, int, int]) -> dict[str, np.int64]:
  return {name: np.int64(value) for name, value in zip(("width", "height", "simd"), layout, strict=True)}


_splat.defvjp(_forward, _backward)


def meetings(splats: dict[str, np.ndarray], width: int, height: int) -> int:
  """How many (splat, block of 4 x 4 px) meetings a picture takes: the work that a bench divides by.

  Args:
    splats: means2d, boxes, depths, conics, opacities.
    width: px.
    height: px.
  """
  arrays = [np.ascontiguousarray(splats[name], np.float32) for name in ("means2d", "boxes", "depths", "conics", "opacities")]
  count = load().silky_meetings
  count.restype = ctypes.c_int64
  pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
  return int(count(ctypes.c_int64(len(arrays[2])), ctypes.c_int(width), ctypes.c_int(height), *pointers))
