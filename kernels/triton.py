"""What every Pallas kernel here shares: whether it can run, how it is launched, loads and stores.

Kernels are written for Pallas' lowering to Triton. They see every array as one flat line, so that an index is one number, which every
version of JAX from 0.10 on can load from, on the GPU and in the interpreter. `SILKY_PALLAS=interpret` lets them run on a CPU, slowly: for
tests.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array

__all__ = ["INTERPRET", "interpreted", "launch", "load", "merge_batches", "store", "why_not"]

INTERPRET = "SILKY_PALLAS"
_OLDEST = 8.0  # compute capability that Triton's code wants


def interpreted() -> bool:
  """Whether kernels run in Pallas' interpreter: on request, and never on a GPU."""
  return os.environ.get(INTERPRET) == "interpret" and jax.default_backend() == "cpu"


def why_not() -> str | None:
  """Why Pallas kernels cannot run here, or None."""
  return None if interpreted() else _why_not(jax.default_backend())


@functools.cache
def _why_not(platform: str) -> str | None:
  if platform not in ("gpu", "cuda"):
    return f"it is for NVIDIA GPUs, and this is {platform}; {INTERPRET}=interpret runs it in an interpreter, for tests"
  device = jax.devices()[0]
  capability = str(getattr(device, "compute_capability", ""))
  try:
    if float(capability) < _OLDEST:
      return f"it wants a GPU of compute capability {_OLDEST} or more, and {device.device_kind} has {capability}"
  except ValueError:
    return f"it is for NVIDIA GPUs, and {device.device_kind} is none"
  try:
    from jax.experimental.pallas import triton
  except ImportError as error:
    return f"jax {jax.__version__} has no Pallas lowering to Triton ({error}); versions 0.10 to 0.12 are known to have it"
  missing = [name for name in ("CompilerParams", "load", "store") if not hasattr(triton, name)]
  return f"jax {jax.__version__}: jax.experimental.pallas.triton has no {', '.join(missing)}" if missing else None


def launch(
  kernel: Callable[..., None],
  grid: tuple[int, ...],
  outputs: Sequence[tuple[int, Any]],
  inputs: Sequence[Array],
  *,
  warps: int,
  interpret: bool,
  name: str,
) -> list[Array]:
  """Run a kernel once per place of the grid.

  Args:
    kernel: takes references to the flat inputs, then to the flat outputs; must write every number of the outputs that is read later.
    grid: programs.
    outputs: (size, dtype) of each.
    inputs: arrays of any shape.
    warps: of 32 threads, per program.
    interpret: run in the interpreter.
    name: for profiles.

  Returns:
    Flat arrays.
  """
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton

  found = pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=[pl.no_block_spec] * len(inputs),
    out_specs=[pl.no_block_spec] * len(outputs),
    out_shape=[jax.ShapeDtypeStruct((size,), dtype) for size, dtype in outputs],
    compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
    interpret=interpret,
    name=name,
  )(*(array.reshape(-1) for array in inputs))
  return list(found)


def merge_batches(
  function: Callable[..., tuple[Array, ...]], one_by_one: Callable[[Sequence[bool]], bool] | None = None
) -> Callable[..., tuple[Array, ...]]:
  """A function of rows whose batches, however nested under vmap, are more rows.

  Args:
    function: of arrays [n, ...]; its results are [n, ...] too, and row by row.
    one_by_one: given which arrays have a batch, says whether its members have to be done one after another.

  Returns:
    The same function.
  """

  @custom_vmap
  def run(*arrays):
    return tuple(function(*arrays))

  @run.def_vmap
  def _(size, batched, *arrays):
    if one_by_one is not None and one_by_one(batched):
      own = [array for array, every in zip(arrays, batched, strict=True) if every]
      found = jax.lax.map(lambda given: run(*_mix(batched, given, arrays)), own)
      return found, (True,) * len(found)
    whole = [array if every else jnp.broadcast_to(array[None], (size, *array.shape)) for array, every in zip(arrays, batched, strict=True)]
    found = run(*(array.reshape(-1, *array.shape[2:]) for array in whole))
    return tuple(array.reshape(size, -1, *array.shape[1:]) for array in found), (True,) * len(found)

  return run


def _mix(batched, given, arrays):
  given = iter(given)
  return [next(given) if every else array for array, every in zip(arrays, batched, strict=True)]


def load(reference: Any, at: Any, mask: Any = None) -> Array:
  """Numbers of a flat array; 0 where the mask is false."""
  from jax.experimental.pallas import triton

  return triton.load(reference.at[at], mask=mask, other=None if mask is None else 0)


def store(reference: Any, at: Any, value: Any, mask: Any = None) -> None:
  """Write numbers of a flat array, where the mask is true."""
  from jax.experimental.pallas import triton

  if mask is not None and interpreted():
    # The interpreter writes the old number back where the mask is false, and may do so after a new one was written there.
    at = jnp.where(mask, at, reference.shape[0])
  triton.store(reference.at[at], value, mask=mask)
