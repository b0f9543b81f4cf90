"""Drivers that a tracker left noisy, made calm for the avatar: `physics.inertia` on every parameter of a sequence of frames.

The avatar shows a tracker's jitter as it is: its Gaussians ride on the mesh that the parameters pose. No term of the loss sees that on
frames that are not trained on. What can be done there is what a live driver can do: trust each parameter's own motion as far as its own
track says.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from silky_jax.physics.inertia import Inertia, calmed, fit_inertia
from silky_jax.types import Frame

__all__ = ["PARAMETERS", "calm", "fit_calm"]

PARAMETERS = ("expression", "pose", "eyelids", "translation")
_GAP = 1.5  # times the usual time between frames: more is a cut


def fit_calm(frames: Frame) -> Inertia:
  """How noisy and how inert each driving parameter is, from frames in order of time; see `physics.inertia`.

  Args:
    frames: [t], as tracked; of a film's training frames, if the others are to be judged.

  Returns:
    Of the parameters one after the other, in the order of PARAMETERS.

  Raises:
    ValueError: no twelve frames with three before each.
  """
  moments = _moments(frames)
  here = moments.first[moments.valid]
  return fit_inertia(
    _table(frames)[here], moments.times[moments.valid], _stretches(moments.times[moments.valid], moments.shots[moments.valid])
  )


def calm(frames: Frame, inertia: Inertia) -> Frame:
  """Frames whose driving parameters went through the causal filter; everything else is theirs.

  Args:
    frames: [t] in order of time; several cameras may see the same moment.
    inertia: of `fit_calm`.
  """
  moments = _moments(frames)
  table = calmed(
    _table(frames)[moments.first], inertia, moments.times, _stretches(moments.times, moments.shots), np.asarray(moments.valid)
  )[moments.place]
  made, at = {}, 0
  for name in PARAMETERS:
    like = np.asarray(getattr(frames, name))
    width = int(np.prod(like.shape[1:]))
    made[name] = table[:, at : at + width].reshape(like.shape)
    at += width
  lids = np.asarray(frames.eyelids)
  made["eyelids"] = np.clip(made["eyelids"], np.minimum(lids.min(initial=0.0), 0.0), np.maximum(lids.max(initial=1.0), 1.0))
  return frames.replace(**made)


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


def _stretches(times: Float[np.ndarray, "m"], shots: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
  """A number per frame that changes at cuts and at gaps."""
  steps = np.diff(times)
  usual = np.median(steps) if len(steps) else 1.0
  return np.concatenate([[0], np.cumsum((np.diff(shots) != 0) | (steps > _GAP * usual))])
