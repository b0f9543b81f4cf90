"""Comparisons of pictures and of gradients, and how close they must be.

A splatted picture is discontinuous in its inputs: a pixel skips a splat below alpha 1/255 and stops at transmittance 1e-4, so two right
answers may differ by up to 1/255 of a colour (or more behind a nearly opaque splat) where rounding decides. Pictures are therefore
compared with a boundary band: nearly all pixels must agree tightly, a counted few may flip. Gradients are compared as vectors, where a flip
is one term of many: by relative L2 (size), cosine (direction) and, where nothing can flip, per element.
"""

from typing import NamedTuple

import jax
import numpy as np
import pytest

__all__ = ["TOLERANCES", "Tolerance", "assert_gradients_close", "assert_pictures_close", "sound_triton_kernels"]


class Tolerance(NamedTuple):
  """How close a picture and its gradients must be."""

  band: float  # largest difference of a pixel that has not flipped
  flipped: float  # part of the pixels that may have flipped
  relative_l2: float  # |a - b| / |b| of a whole gradient array
  cosine: float
  element: float  # largest difference of an element over the largest element


TOLERANCES: dict[str, Tolerance] = {
  # Float32 against float64. Some 30 splats per pixel at 6e-8 each, through an exponential of up to ln 255: measured at most 2e-6. The
  # gradient of alpha divides a difference by 1 - alpha >= 1e-3: measured 2e-6 to 1e-5 relative.
  "float32": Tolerance(band=1e-5, flipped=5e-4, relative_l2=1e-4, cosine=0.99999, element=1e-3),
  # Float64 against float64: the same formulas in another order. Nothing flips unless a value sits within 1e-13 of a threshold.
  "float64": Tolerance(band=1e-10, flipped=0.0, relative_l2=1e-9, cosine=1 - 1e-12, element=1e-9),
}


def assert_pictures_close(actual, expected, tolerance: Tolerance, name: str = "picture") -> None:
  """Every number is finite, and all pixels but a counted few agree within the band. Depth and colours alike: [h, w] or [h, w, c]."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
  assert np.isfinite(actual).all(), f"{name}: {np.sum(~np.isfinite(actual))} numbers are not finite"
  difference = np.abs(actual - expected) / max(1.0, np.abs(expected).max(initial=0))
  difference = difference.reshape(*actual.shape[:2], -1).max(axis=-1, initial=0)
  flipped = np.sum(difference > tolerance.band)
  assert flipped <= tolerance.flipped * difference.size, (
    f"{name}: {flipped} of {difference.size} pixels differ by more than {tolerance.band:g} (largest {difference.max():.3g})"
  )


def assert_gradients_close(actual, expected, tolerance: Tolerance, name: str = "gradient", *, per_element: bool = True) -> None:
  """Finite, and close as a vector; a gradient that should be zero must be exactly zero."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
  assert np.isfinite(actual).all(), f"{name}: {np.sum(~np.isfinite(actual))} numbers are not finite"
  size = np.linalg.norm(expected)
  if size == 0:
    assert not actual.any(), f"{name}: expected exactly zero, largest {np.abs(actual).max():.3g}"
    return
  relative = np.linalg.norm(actual - expected) / size
  assert relative <= tolerance.relative_l2, f"{name}: relative L2 {relative:.3g} > {tolerance.relative_l2:g}"
  cosine = np.vdot(actual, expected) / (size * np.linalg.norm(actual))
  assert cosine >= tolerance.cosine, f"{name}: 1 - cosine {1 - cosine:.3g} > {1 - tolerance.cosine:.3g}"
  if per_element:
    element = np.abs(actual - expected).max() / np.abs(expected).max()
    assert element <= tolerance.element, f"{name}: an element is off by {element:.3g} of the largest, more than {tolerance.element:g}"


def sound_triton_kernels(function, *arrays):
  """Names of the Triton kernels that a function is lowered to for a GPU, without one. Their code is read back and verified, which the
  lowering itself does not."""
  from jaxlib.mlir import ir
  from jaxlib.triton import dialect

  try:
    lowered = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",))
  except RuntimeError as error:
    if "No supported GPU devices" not in str(error):
      raise
    pytest.skip("this jax lowers for a GPU only where there is one")
  found = []
  for operation in _operations(lowered.compiler_ir().operation):
    if operation.name == "stablehlo.custom_call" and "mhlo.backend_config" in operation.attributes:
      config = ir.DictAttr(operation.attributes["mhlo.backend_config"])
      context = ir.Context()
      dialect.register_dialect(context)
      with context:
        assert ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes).operation.verify()
      found.append(ir.StringAttr(config["name"]).value)
  return found


def _operations(operation):
  for region in operation.regions:
    for block in region:
      for inner in block:
        yield inner.operation
        yield from _operations(inner.operation)
