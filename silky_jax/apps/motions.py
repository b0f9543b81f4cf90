"""Made-up motion: an expression sweep seen by a turning camera."""

import numpy as np
from jaxtyping import Float

from silky_jax.apps.player import Stance
from silky_jax.data.clips import Sequence
from silky_jax.evaluation.playback import driving
from silky_jax.evaluation.views import orbit, repeat
from silky_jax.types import Frame

__all__ = ["SWEEP", "expression_sweep"]

# What moves, one after the other: expression units by the start of their names; the jaw and the lids go by their own parameters.
SWEEP = (
  ("jaw", ("jawOpen",)),
  ("smile", ("mouthSmile", "cheekSquint")),
  ("pucker", ("mouthPucker", "mouthFunnel")),
  ("brows up", ("browInnerUp", "browOuterUp")),
  ("brows down", ("browDown",)),
  ("lids", ()),
)
_BEYOND = 1.25  # times the 99th percentile of training: a little further than the person went
_LEAST, _MOST = 0.35, 1.0  # expression units: a unit the person hardly used is still shown; none beyond its full range
_JAW_LEAST = 0.15  # radians
_YAW, _PITCH = 40.0, 10.0  # degrees


def expression_sweep(sequence: Sequence, rest: Frame, names: tuple[str, ...], stance: Stance, *, size: int, frames_each: int = 26) -> Frame:
  """Jaw, lips, brows and lids one after the other, while the camera swings once to both sides.

  Args:
    sequence: the dataset, whose training frames say how far the person goes.
    rest: the moment to start from, batch [1].
    names: of the rig's expression coefficients.
    stance: where the camera stands.
    size: px.
    frames_each: frames per movement.

  Returns:
    Frames [t] without pictures.
  """
  train = driving(sequence.frames(np.asarray(sequence.splits["train"])))
  reach = np.clip(_BEYOND * np.percentile(np.asarray(train.expression), 99, axis=0), _LEAST, _MOST)
  jaw = max(_BEYOND * float(np.percentile(np.asarray(train.pose)[:, 2, 0], 99)), _JAW_LEAST)
  count = frames_each * len(SWEEP)
  turn = 2 * np.pi * np.arange(count) / count
  camera = orbit(
    stance.centre, _YAW * np.sin(turn), _PITCH * np.sin(2 * turn), distance=stance.distance, focal=stance.focal * size, size=size
  )
  frames = repeat(rest, camera)
  expression, pose, eyelids = (np.array(x, np.float32) for x in (frames.expression, frames.pose, frames.eyelids))
  for k, (what, units) in enumerate(SWEEP):
    at = slice(k * frames_each, (k + 1) * frames_each)
    rise = _rise(frames_each)
    for column, name in enumerate(names):
      if units and name.startswith(units):
        expression[at, column] += rise * (reach[column] - expression[at, column])
    if what == "jaw":
      pose[at, 2, 0] += rise * (jaw - pose[at, 2, 0])
    if what == "lids":
      eyelids[at] += rise[:, None] * (1.0 - eyelids[at])
  order = np.arange(count, dtype=np.int32)
  return frames.replace(expression=expression, pose=pose, eyelids=eyelids, index=order, timestep=order)


def _rise(count: int) -> Float[np.ndarray, "t"]:
  """0 up to 1 and back, smoothly."""
  return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(count) + 0.5) / count)
