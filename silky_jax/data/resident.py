"""The training frames kept on the device: a step is then sent places instead of pictures, and gathers its batch there.

Pictures lie there as they are stored, one byte a value, and are looked up in the 256 numbers that reading them on the host would give:
a division on the device may differ from the host's in its last bit.
"""

import os
from collections.abc import Sequence as Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from silky_jax.data.clips import Batch, ClipPlan, Draw, Sequence
from silky_jax.progress import Progress
from silky_jax.types import Frame

__all__ = ["Film", "expected_bytes", "gather", "read_film", "rows"]

_LEVELS = np.arange(256, dtype=np.uint8).astype(np.float32) / 255.0  # as data/formats reads an 8-bit picture
_CHUNK = 16  # frames per read


class Film(NamedTuple):
  """All training frames, in the order of `ClipPlan.frames`."""

  drivers: Frame  # [n], without pictures (0 x 0 px)
  image: Any  # [n, h, w, 3] uint8, an index into `levels`; float32 where the sequence holds other values than those
  mask: Any  # [n, h, w] likewise
  parts: Any  # [n, h, w] uint8
  levels: Any  # [256] float32


def expected_bytes(sequence: Sequence, plan: ClipPlan) -> int:
  """Bytes of the pictures of a film, if they are 8-bit ones: three of colour, one of mask and one of labels a pixel."""
  height, width = sequence.size
  return 5 * height * width * len(plan.frames)


def read_film(sequence: Sequence, plan: ClipPlan, drivers: Frame, *, threads: int | None = None) -> Film:
  """Read the training frames, on threads.

  Args:
    sequence: the video.
    plan: says which frames.
    drivers: `load_drivers(sequence)`, of all frames.
    threads: that read; None: one a core, at most 8.

  Returns:
    Film of numpy arrays, for `jax.device_put`.
  """
  chunks = [plan.frames[i : i + _CHUNK] for i in range(0, len(plan.frames), _CHUNK)]

  def read(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frames = sequence.frames(chunk)
    return _coded(np.asarray(frames.image)), _coded(np.asarray(frames.mask)), np.asarray(frames.parts)

  found = []
  with Progress("pictures", len(plan.frames), "frames") as progress, ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
    for part in pool.map(read, chunks):
      found.append(part)
      progress.update(len(part[0]))
  image, mask, parts = (_joined(column) for column in zip(*found, strict=True))
  return Film(jax.tree.map(lambda a: a[plan.frames], drivers), image, mask, parts, _LEVELS)


def rows(plan: ClipPlan, draw: Draw) -> Draw:
  """A draw whose frames are rows of the film instead of positions in the sequence."""
  return Draw(np.searchsorted(plan.frames, draw.frames).astype(np.int32), draw.valid, draw.rendered)


def gather(film: Film, draw: Draw) -> Batch:
  """What `data.clips.load_batch` makes, from what lies on the device: the same numbers, bit for bit. Pure; the caller jits it.

  Args:
    film: on the device.
    draw: from `rows`.
  """
  pick = lambda a, at: a.at[at].get(mode="promise_in_bounds")
  clip: Frame = jax.tree.map(lambda a: pick(a, draw.frames), film.drivers)
  wanted = jnp.take_along_axis(jnp.asarray(draw.frames), jnp.asarray(draw.rendered), axis=1)
  target: Frame = jax.tree.map(lambda a: pick(a, wanted), film.drivers)
  shown = {"image": film.image, "mask": film.mask}
  pictures = {name: _seen(pick(stored, wanted), film.levels) for name, stored in shown.items()}
  target = target.replace(**pictures, parts=pick(film.parts, wanted))
  # The step behind must not be compiled into another one than for a batch that was sent: its sums would differ in their last bits.
  return jax.lax.optimization_barrier(Batch(clip.replace(valid=clip.valid & draw.valid), target, jnp.asarray(draw.rendered)))


def _seen(stored: Array, levels: Array) -> Array:
  return levels.at[stored].get(mode="promise_in_bounds") if stored.dtype == jnp.uint8 else stored


def _coded(values: np.ndarray) -> np.ndarray:
  """As 8-bit levels, where that loses nothing."""
  codes = np.clip(np.rint(values * np.float32(255.0)), 0, 255).astype(np.uint8)
  return codes if np.array_equal(_LEVELS[codes], values) else values


def _joined(chunks: Collection[np.ndarray]) -> np.ndarray:
  if len({chunk.dtype for chunk in chunks}) > 1:
    chunks = [_LEVELS[chunk] if chunk.dtype == np.uint8 else chunk for chunk in chunks]
  return np.concatenate(chunks)
