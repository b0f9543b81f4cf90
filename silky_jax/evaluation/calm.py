"""Drivers that a tracker left noisy, made calm for the avatar: `physics.inertia` on every parameter of a sequence of frames.

The avatar shows a tracker's jitter as it is: its Gaussians ride on the mesh that the parameters pose. No term of the loss sees that on
frames that are not trained on. What can be done there is what a live driver can do: trust each parameter's own motion as far as its own
track says.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from silky_jax.config import UserError
from silky_jax.evaluation.playback import driving
from silky_jax.evaluation.reenact import Driver
from silky_jax.physics.inertia import STRENGTH, Inertia, calmed, fit_inertia, stretches
from silky_jax.types import Frame

__all__ = ["PARAMETERS", "calm", "calm_driver", "fit_calm"]

PARAMETERS = ("expression", "pose", "eyelids", "translation")


def fit_calm(frames: Frame) -> Inertia:
  """How noisy and how inert each driving parameter is, from frames in order of time; see `physics.inertia`.

  Args:
    frames: [t], as tracked, without repeats of a picture; of a film's training frames, if the others are to be judged.

  Returns:
    Of the parameters one after the other, in the order of PARAMETERS.

  Raises:
    ValueError: no twelve frames with three before each.
  """
  moments = _moments(frames)
  times, shots = moments.times[moments.valid], moments.shots[moments.valid]
  return fit_inertia(_table(frames)[moments.first[moments.valid]], times, stretches(times, shots))


def calm(
  frames: Frame, inertia: Inertia, repeats: Bool[np.ndarray, "t"] | None = None, *, ahead: bool = False, strength: float = STRENGTH
) -> Frame:
  """Frames whose driving parameters went through the causal filter, or the whole track's smoother; everything else is theirs.

  Args:
    frames: [t] in order of time; several cameras may see the same moment.
    inertia: of `fit_calm`.
    repeats: where the picture is that of the frame before: a webcam's clock, not a face that stands still. They get the parameters of the
      frame before. None: nowhere.
    ahead: whether later frames may be looked at: what is recorded is known whole, what is live is not.
    strength: see `physics.inertia.calmed`.
  """
  moments = _moments(frames)
  again = np.zeros(len(moments.first), bool) if repeats is None else np.asarray(repeats, bool)[moments.first]
  again[:1] = False
  kept = np.flatnonzero(~again)
  times, shots = moments.times[kept], moments.shots[kept]
  made = calmed(
    _table(frames)[moments.first[kept]], inertia, times, stretches(times, shots), moments.valid[kept], ahead=ahead, strength=strength
  )
  table = made[(np.cumsum(~again) - 1)[moments.place]]
  parts, at = {}, 0
  for name in PARAMETERS:
    like = np.asarray(getattr(frames, name))
    width = int(np.prod(like.shape[1:]))
    parts[name] = table[:, at : at + width].reshape(like.shape)
    at += width
  lids = np.asarray(frames.eyelids)
  parts["eyelids"] = np.clip(parts["eyelids"], min(lids.min(), 0.0), max(lids.max(), 1.0))
  return frames.replace(**parts)


def calm_driver(driver: Driver, *, ahead: bool) -> Driver:
  """A driver by the inertia that its own track shows.

  Args:
    driver: the motion.
    ahead: see `calm`.

  Raises:
    UserError: too short a track to say how noisy it is.
  """
  whole = np.ones(len(driver.frames.index), bool) if driver.repeats is None else ~driver.repeats
  try:
    inertia = fit_calm(jax.tree.map(lambda leaf: np.asarray(leaf)[whole], driving(driver.frames).replace(camera=None)))
  except ValueError as error:
    raise UserError(f"{driver.path}: too short to tell its noise from its motion ({error}); render it without --calm") from error
  return dataclasses.replace(driver, frames=calm(driver.frames, inertia, driver.repeats, ahead=ahead))


class _Moments(NamedTuple):
  first: Int[np.ndarray, "m"]  # a frame of each moment
  place: Int[np.ndarray, "t"]  # of each frame's moment
  times: Float[np.ndarray, "m"]
  shots: Int[np.ndarray, "m"]
  valid: Bool[np.ndarray, "m"]


def _moments(frames: Frame) -> _Moments:
  _, first, place = np.unique(np.asarray(frames.timestep), return_index=True, return_inverse=True)
  pick = lambda x: np.asarray(x)[first]
  return _Moments(first, place, pick(frames.time).astype(np.float64), pick(frames.shot), pick(frames.valid).astype(bool))


def _table(frames: Frame) -> Float[np.ndarray, "t c"]:
  count = len(np.asarray(frames.timestep))
  return np.concatenate([np.asarray(getattr(frames, name), np.float64).reshape(count, -1) for name in PARAMETERS], axis=1)
