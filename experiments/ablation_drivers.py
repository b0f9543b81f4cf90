"""Ways to drive a film: as tracked, by the inertia that its own track shows, and by what a cheap trick would do."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from silky_jax.data.clips import load_drivers
from silky_jax.data.formats import native
from silky_jax.evaluation.calm import PARAMETERS, calm, fit_calm
from silky_jax.physics.inertia import STRENGTH
from silky_jax.types import Frame

__all__ = ["LOW_PASSES", "WAYS", "calmly", "drive", "driven_by"]

_EURO_SLOPE_CUTOFF = 1.0  # Hz, as published


def drive(sequence: native.NativeSequence, way: str) -> native.NativeSequence:
  """The film driven another way. Nothing but "smooth" looks ahead; what is fitted is fitted on the training frames' parameters.

  Args:
    sequence: as tracked.
    way: one of WAYS.

  Raises:
    KeyError: another name.
  """
  return driven_by(sequence, WAYS[way](sequence, load_drivers(sequence)))


def driven_by(sequence: native.NativeSequence, made: Frame) -> native.NativeSequence:
  """The film with other driving parameters."""
  return dataclasses.replace(sequence, arrays=sequence.arrays | {name: np.asarray(getattr(made, name)) for name in PARAMETERS})


def calmly(sequence: native.NativeSequence, frames: Frame, *, ahead: bool = False, strength: float = STRENGTH) -> Frame:
  """The film's frames by `evaluation.calm`, fitted on its training frames."""
  repeats = np.isin(np.arange(len(sequence)), sequence.splits.get("repeat", ()))
  return calm(frames, fit_calm(load_drivers(sequence, np.asarray(sequence.splits["train"]))), repeats, ahead=ahead, strength=strength)


def _each(frames: Frame, change: Callable[[Float[np.ndarray, "t c"], float], np.ndarray]) -> Frame:
  """Every parameter by itself, from the first frame to the last of a clip without cuts."""
  times = np.asarray(frames.time, np.float64)
  step = float(np.median(np.diff(times)))
  made = {}
  for name in PARAMETERS:
    values = np.asarray(getattr(frames, name), np.float64)
    made[name] = change(values.reshape(len(values), -1), step).reshape(values.shape).astype(np.float32)
  return frames.replace(**made)


def _low_pass(share: float) -> Callable[[native.NativeSequence, Frame], Frame]:
  """One pole: x_k = share z_k + (1 - share) x_k-1."""

  def change(seen: np.ndarray, step: float) -> np.ndarray:
    del step
    out = seen.copy()
    for k in range(1, len(seen)):
      out[k] = share * seen[k] + (1 - share) * out[k - 1]
    return out

  return lambda sequence, frames: _each(frames, change)


def _one_euro(cutoff: float, beta: float) -> Callable[[native.NativeSequence, Frame], Frame]:
  """The 1 euro filter (Casiez et al. 2012): one pole whose cutoff grows with speed, here speed in deviations of the channel."""

  def change(seen: np.ndarray, step: float) -> np.ndarray:
    share = lambda hertz: 1 / (1 + 1 / (2 * np.pi * hertz * step))
    out, slope, spread = seen.copy(), np.zeros_like(seen[0]), seen.std(axis=0) + 1e-9
    for k in range(1, len(seen)):
      keep = share(_EURO_SLOPE_CUTOFF)
      slope = keep * (seen[k] - seen[k - 1]) / step + (1 - keep) * slope
      now = share(cutoff + beta * np.abs(slope) / spread)
      out[k] = now * seen[k] + (1 - now) * out[k - 1]
    return out

  return lambda sequence, frames: _each(frames, change)


LOW_PASSES = {
  **{f"one pole {share:g}": _low_pass(share) for share in (0.8, 0.6, 0.5, 0.4, 0.3)},
  **{f"one euro {cutoff:g} {beta:g}": _one_euro(cutoff, beta) for cutoff, beta in ((2.0, 1.0), (1.0, 0.5))},
}
WAYS: dict[str, Callable[[native.NativeSequence, Frame], Frame]] = {
  "tracked": lambda sequence, frames: frames,
  "calm": calmly,
  "smooth": functools.partial(calmly, ahead=True),
  **LOW_PASSES,
}
