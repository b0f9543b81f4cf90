"""The compiled library behind every "cpu" backend: `csrc/`, one custom call per op and direction.

Compiled on first use (`build.py`), or now by `python -m silky_kernels`. Runs on the threads that XLA hands to a call. The
environment variable `SILKY_SIMD` forces an instruction set.
"""

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from silky_kernels import build

__all__ = ["SIMD", "best_simd", "call", "load", "why_not"]

SIMD = ("portable", "avx2", "avx512")  # numbered so in csrc/calls.h
_CALLS = ("silky_splat_forward", "silky_splat_backward", "silky_project_forward", "silky_project_backward")
_AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")


def _recipe() -> build.Recipe:
  objects = [(name, ()) for name in ("calls.cc", "splat.cc", "project.cc", "bins.cc")] + [("path.cc", ("-DSILKY_PATH=portable_path",))]
  objects += build.x86_only(("-mavx2", "-mfma"), "-DSILKY_PATH=avx2_path", "path.cc")
  objects += build.x86_only(_AVX512, "-DSILKY_PATH=avx512_path", "path.cc")
  return build.Recipe("cpu", Path(__file__).parent / "csrc", objects)


@functools.cache
def load() -> ctypes.CDLL:
  """The library, its calls registered.

  Raises:
    BuildError: it cannot be compiled here.
  """
  library = build.library(_recipe())
  for name in _CALLS:
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
  return library


@functools.cache
def why_not() -> str | None:
  """Why the compiled backends cannot run here, or None. Compiles, if that was not done before."""
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


def call(name: str, shapes: Sequence[jax.ShapeDtypeStruct], arrays: Sequence[jax.Array], **attributes: Any) -> tuple[jax.Array, ...]:
  """One custom call of the library; a batch stays one. Attributes: Python integers become int64, floats float32."""
  kept = {key: np.float32(value) if isinstance(value, float) else np.int64(value) for key, value in attributes.items()}
  return tuple(jax.ffi.ffi_call(name, list(shapes), vmap_method="broadcast_all")(*arrays, **kept))
