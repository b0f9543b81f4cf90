"""The splats of all pictures as the other kernels read them, in one launch: lines for the lists, records for the tiles, keys for the sort.

A splat with a number that is not finite, or without a box, becomes zeros, which touch nothing.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, UInt32
from silky_kernels.splat.pallas.layout import FEATURES, LINE, Layout
from silky_kernels.triton import launch, load, store

__all__ = ["Packed", "pack"]

_NUMBERS = 2048  # of a program's block of records
_LOG2_E = 1.4426950408889634


class Packed(NamedTuple):
  """Of the m splats of all pictures."""

  lines: Float[Array, "m 8"]  # layout.Splat
  records: Float[Array, "m r"]  # mean, conic in powers of two, opacity, depth, features, padding
  keys: UInt32[Array, "m"]  # bits of the depth, which ascend with it


def pack(layout: Layout, means2d: Array, boxes: Array, depths: Array, conics: Array, opacities: Array, features: Array) -> Packed:
  """See the module's text. Arrays [b, n, ...]."""
  count, width, channels = layout.batch * layout.n, layout.record, layout.channels
  rows = max(1, _NUMBERS // width)

  def kernel(
    means2d: Any, boxes: Any, depths: Any, conics: Any, opacities: Any, features: Any, lines: Any, records: Any, keys: Any
  ) -> None:
    row = pl.program_id(0) * rows + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
    real = row < count

    def beside(column: Array, *parts: tuple[Any, int, int]) -> Array:
      """Arrays [m, width] side by side, each from its own column on."""
      found = jnp.zeros((rows, column.shape[1]), jnp.float32)
      for array, size, first in parts:
        here = (column >= first) & (column < first + size)
        found = jnp.where(here, load(array, row * size + column - first, here & real), found)
      return found

    column, short = lax.broadcasted_iota(jnp.int32, (1, width), 1), lax.broadcasted_iota(jnp.int32, (1, LINE), 1)
    record = beside(column, (means2d, 2, 0), (conics, 3, 2), (opacities, 1, 5), (depths, 1, 6), (features, channels, FEATURES))
    line = beside(short, (means2d, 2, 0), (conics, 3, 2), (opacities, 1, 5), (boxes, 2, 6))
    broken = lambda values, wrong: jnp.max(jnp.where(wrong, 1, jnp.where(jnp.abs(values) < jnp.inf, 0, 1)), axis=1, keepdims=True)
    sound = (broken(record, column < 0) == 0) & (broken(line, (short >= 6) & (line <= 0)) == 0)
    in_powers_of_two = jnp.where((column == 2) | (column == 4), -0.5 * _LOG2_E, jnp.where(column == 3, -_LOG2_E, 1.0))
    # Also the features: a turn's spare places look at splat 0, with weight 0, and 0 times what is not finite is not 0.
    store(records, row * width + column, jnp.where(sound, record * in_powers_of_two, 0.0), real & (column >= 0))
    store(lines, row * LINE + short, jnp.where(sound, line, 0.0), real & (short >= 0))
    depth = jnp.where(sound, jnp.abs(load(depths, row, real)), 0.0)
    store(keys, row, lax.bitcast_convert_type(depth, jnp.uint32), real)

  outputs = [(count * LINE, jnp.float32), (count * width, jnp.float32), (count, jnp.uint32)]
  grid, inputs = (-(-count // rows),), [means2d, boxes, depths, conics, opacities, features]
  lines, records, keys = launch(kernel, grid, outputs, inputs, warps=4, interpret=layout.interpret, name="silky_pack")
  return Packed(lines.reshape(count, LINE), records.reshape(count, width), keys)
