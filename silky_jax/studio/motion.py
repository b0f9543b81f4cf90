"""How a studio person moves: speech-like expressions, blinks, glances, nods, a hard turn of the head. Host code, seeded."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from silky_jax.flame import open_head

__all__ = ["Motion", "MotionConfig", "make_motion"]

# ARKit weights of mouth shapes in speech, by the sound they stand for.
_VISEMES = {
  "a": {"jawOpen": 0.55, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2},
  "e": {"jawOpen": 0.22, "mouthStretchLeft": 0.35, "mouthStretchRight": 0.35, "mouthSmileLeft": 0.12, "mouthSmileRight": 0.12},
  "o": {"jawOpen": 0.35, "mouthFunnel": 0.6},
  "u": {"jawOpen": 0.12, "mouthPucker": 0.75},
  "m": {"mouthPressLeft": 0.45, "mouthPressRight": 0.45, "mouthClose": 0.05},
  "f": {"mouthRollLower": 0.55, "mouthUpperUpLeft": 0.25, "mouthUpperUpRight": 0.25, "jawOpen": 0.08},
  "l": {"jawOpen": 0.25, "mouthShrugUpper": 0.15},
  "s": {"jawOpen": 0.08, "mouthStretchLeft": 0.3, "mouthStretchRight": 0.3, "mouthUpperUpLeft": 0.1, "mouthUpperUpRight": 0.1},
}
# Moods that come and go over seconds.
_MOODS = {
  "smile": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.75, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5, "mouthDimpleLeft": 0.2},
  "surprise": {"browInnerUp": 0.8, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7, "eyeWideLeft": 0.5, "eyeWideRight": 0.5},
  "frown": {"browDownLeft": 0.8, "browDownRight": 0.75, "noseSneerLeft": 0.25, "noseSneerRight": 0.2},
  "doubt": {"browOuterUpLeft": 0.7, "browDownRight": 0.4, "mouthLeft": 0.35, "mouthFrownRight": 0.3},
  "sad": {"browInnerUp": 0.6, "mouthFrownLeft": 0.6, "mouthFrownRight": 0.6, "mouthShrugLower": 0.3},
}
_GAZE_RANGE = np.radians([14.0, 7.0])  # yaw, pitch, of a glance
_EYE_LOOK = np.radians(30.0)  # of gaze per unit of an eyeLook weight, about


@dataclasses.dataclass(frozen=True)
class MotionConfig:
  """Sizes of the motion; angles in degrees, times in seconds."""

  speech: float = 1.0  # scales mouth shapes
  mood: float = 1.0
  blink_every: float = 3.0
  sway: tuple[float, float, float] = (5.0, 9.0, 3.0)  # standard deviation of slow pitch, yaw and roll
  nod: float = 7.0
  turn: float = 45.0  # yaw of the hard turn
  turn_seconds: float = 0.45  # from the middle to the side
  shift: float = 0.008  # metres, standard deviation of the translation


class Motion(NamedTuple):
  """What drives the rig, and the weights it came from."""

  expression: Float[np.ndarray, "t e"]
  pose: Float[np.ndarray, "t 5 3"]
  eyelids: Float[np.ndarray, "t 2"]
  translation: Float[np.ndarray, "t 3"]
  arkit: Float[np.ndarray, "t 52"]


def make_motion(frames: int, fps: float, *, seed: int, config: MotionConfig | None = None) -> Motion:
  """Someone who talks, looks about, nods, and turns the head hard once, at three quarters of the clip.

  Args:
    frames: how many.
    fps: per second.
    seed: of everything.
    config: sizes.

  Returns:
    Motion, float32; the open head's controls.

  Raises:
    ValueError: no frames, or fps not positive.
  """
  if frames < 1 or not fps > 0:
    raise ValueError(f"frames, fps: expected positive numbers, got {frames} and {fps}")
  config = config or MotionConfig()
  rng = np.random.default_rng([seed, 1])
  weights = _speech(frames, fps, rng) * config.speech + _moods(frames, fps, rng) * config.mood
  gaze = _glances(frames, fps, rng)
  weights += _look(gaze)
  turn = _turn(frames, fps, config)
  blinks = np.maximum(_blinks(frames, fps, rng, config), _turn_blink(turn))
  for side in ("Left", "Right"):
    weights[:, _column(f"eyeBlink{side}")] = blinks
  weights = np.clip(weights, 0.0, 1.0)
  # The map is linear: its matrix is what it makes of the unit weights.
  units = jax.vmap(open_head.arkit_to_rig)(jnp.eye(weights.shape[1]))
  expression, lids = np.asarray(units.expression), np.asarray(units.eyelids)
  joints = np.stack([np.asarray(x) for x in (units.jaw_pose, units.left_eye_pose, units.right_eye_pose)], axis=1)
  pose = np.zeros((frames, 5, 3))
  pose[:, 2:] = np.einsum("tu,ujc->tjc", weights, joints)
  head = _sway(frames, fps, rng, config)
  head[:, 1] += turn
  head[:, 0] += _nods(frames, fps, rng, config)
  pose[:, 0], pose[:, 1] = 0.4 * head, 0.6 * head
  shift = config.shift * _slow(frames, fps, rng, 3, 1.2)
  floats = lambda x: np.ascontiguousarray(x, np.float32)
  return Motion(floats(weights @ expression), floats(pose), floats(np.clip(weights @ lids, 0, 1)), floats(shift), floats(weights))


def _column(name: str) -> int:
  return open_head.ARKIT_NAMES.index(name)


def _weights(shape: dict[str, float]) -> Float[np.ndarray, "52"]:
  out = np.zeros(len(open_head.ARKIT_NAMES))
  for name, value in shape.items():
    out[_column(name)] = value
  return out


def _speech(frames: int, fps: float, rng: np.random.Generator) -> Float[np.ndarray, "t 52"]:
  """Mouth shapes of 80 to 200 ms in phrases with pauses between, run into each other."""
  shapes = np.stack([_weights(shape) for shape in _VISEMES.values()])
  curve = np.zeros((frames, shapes.shape[1]))
  time, end = 0.0, frames / fps
  while time < end:
    stop = time + rng.uniform(1.5, 3.5)
    loud = rng.uniform(0.6, 1.1)
    while time < min(stop, end):
      length = rng.uniform(0.08, 0.2)
      curve[int(time * fps) : max(int(time * fps) + 1, int((time + length) * fps))] = (
        loud * rng.uniform(0.7, 1.1) * shapes[rng.integers(len(shapes))]
      )
      time += length
    time += rng.uniform(0.3, 1.0)
  return gaussian_filter1d(curve, 0.05 * fps, axis=0, mode="nearest")


def _moods(frames: int, fps: float, rng: np.random.Generator) -> Float[np.ndarray, "t 52"]:
  """Moods that swell and fade, one after the other, each a little lopsided."""
  curve = np.zeros((frames, len(open_head.ARKIT_NAMES)))
  names, time = list(_MOODS), 0.3
  order = rng.permutation(len(names))
  at = np.arange(frames) / fps
  for k in range(10_000):
    if time > frames / fps:
      break
    length = rng.uniform(1.2, 2.6)
    envelope = np.exp(-0.5 * ((at - time - length / 2) / (length / 4)) ** 2)
    lopsided = rng.uniform(0.8, 1.1, curve.shape[1])
    curve += rng.uniform(0.6, 1.0) * envelope[:, None] * _weights(_MOODS[names[order[k % len(names)]]]) * lopsided
    time += length + rng.uniform(0.0, 1.0)
  return curve


def _blinks(frames: int, fps: float, rng: np.random.Generator, config: MotionConfig) -> Float[np.ndarray, "t"]:
  at, closed, time = np.arange(frames) / fps, np.zeros(frames), rng.uniform(0.5, config.blink_every)
  while time < frames / fps:
    # Lids close in 80 ms and open in 160 ms.
    rise, fall = 0.08, 0.16
    closed = np.maximum(closed, np.clip(np.where(at < time, 1 - (time - at) / rise, 1 - (at - time - 0.04) / fall), 0, 1))
    time += config.blink_every * rng.uniform(0.5, 1.5)
  return closed


def _turn_blink(turn: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
  """People blink while they turn."""
  speed = np.abs(np.gradient(turn)) if len(turn) > 1 else np.zeros(1)
  return np.clip(1.2 * speed / max(speed.max(), 1e-9) - 0.2, 0, 1) * (speed.max() > 1e-6)


def _glances(frames: int, fps: float, rng: np.random.Generator) -> Float[np.ndarray, "t 2"]:
  """Yaw and pitch of the gaze: held, then moved within 60 ms."""
  gaze, start = np.zeros((frames, 2)), 0
  while start < frames:
    stop = start + max(1, int(rng.uniform(0.4, 2.0) * fps))
    gaze[start:stop] = rng.normal(size=2).clip(-1.5, 1.5) * _GAZE_RANGE / 1.5 if rng.uniform() < 0.6 else 0.0
    start = stop
  return gaussian_filter1d(gaze, 0.03 * fps, axis=0, mode="nearest")


def _look(gaze: Float[np.ndarray, "t 2"]) -> Float[np.ndarray, "t 52"]:
  """Gaze as eyeLook weights: positive yaw towards the subject's left, positive pitch up."""
  out = np.zeros((len(gaze), len(open_head.ARKIT_NAMES)))
  yaw, pitch = np.maximum(gaze, 0) / _EYE_LOOK, np.maximum(-gaze, 0) / _EYE_LOOK
  for name, value in (("OutLeft", yaw[:, 0]), ("InRight", yaw[:, 0]), ("InLeft", pitch[:, 0]), ("OutRight", pitch[:, 0])):
    out[:, _column(f"eyeLook{name}")] = value
  for side in ("Left", "Right"):
    out[:, _column(f"eyeLookUp{side}")] = yaw[:, 1]
    out[:, _column(f"eyeLookDown{side}")] = pitch[:, 1]
  return out


def _slow(frames: int, fps: float, rng: np.random.Generator, width: int, seconds: float) -> Float[np.ndarray, "t w"]:
  """Smooth noise of unit standard deviation that changes over about `seconds`."""
  pad = int(4 * seconds * fps) + 1
  noise = gaussian_filter1d(rng.normal(size=(frames + 2 * pad, width)), seconds * fps, axis=0)[pad : pad + frames]
  return noise * np.sqrt(2 * np.sqrt(np.pi) * seconds * fps)


def _sway(frames: int, fps: float, rng: np.random.Generator, config: MotionConfig) -> Float[np.ndarray, "t 3"]:
  return np.radians(config.sway) * _slow(frames, fps, rng, 3, 0.8)


def _nods(frames: int, fps: float, rng: np.random.Generator, config: MotionConfig) -> Float[np.ndarray, "t"]:
  """Bursts of two or three nods at about 2 Hz."""
  at, out, time = np.arange(frames) / fps, np.zeros(frames), rng.uniform(1.0, 3.0)
  while time < frames / fps:
    length, rate = rng.uniform(0.8, 1.4), rng.uniform(1.8, 2.6)
    window = np.clip(np.minimum(at - time, time + length - at) / 0.2, 0, 1)
    out += np.radians(config.nod) * rng.uniform(0.5, 1.0) * window * np.sin(2 * np.pi * rate * (at - time))
    time += length + rng.uniform(2.0, 5.0)
  return out


def _turn(frames: int, fps: float, config: MotionConfig) -> Float[np.ndarray, "t"]:
  """To one side at 70 % of the clip, held for half a second, and back."""
  at, start, quick = np.arange(frames) / fps, 0.7 * frames / fps, config.turn_seconds
  smooth = lambda x: np.clip(x, 0, 1) ** 2 * (3 - 2 * np.clip(x, 0, 1))
  return np.radians(config.turn) * (smooth((at - start) / quick) - smooth((at - start - quick - 0.5) / quick))
