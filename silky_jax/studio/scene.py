"""A person in motion before cameras: what drives the rig, what moves beyond the rig's bases, where the cameras stand."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from silky_jax.flame import open_head
from silky_jax.flame.model import HEAD_JOINT, flame_vertices
from silky_jax.geometry import camera as cameras
from silky_jax.math.precision import exact
from silky_jax.studio.motion import Motion, MotionConfig, make_motion
from silky_jax.studio.person import WRINKLES, Person
from silky_jax.types import Camera, FlameRig

__all__ = ["Scene", "SceneConfig", "make_scene", "posed"]

_CHEEK = np.array([0.0, -0.03, 0.07])  # whose acceleration shakes the cheeks, rest axes, metres
_CREASE_SECONDS = 0.15  # skin folds a little after the muscle, and unfolds as late
_SHAKE_HERTZ, _SHAKE_DAMPING, _SHAKE_LIMIT = 3.5, 0.3, 0.006
_SWALLOW = 0.006  # metres up
_DISTANCE = 0.6  # metres, of every camera from the head: as far as a webcam
_FRAMING = 0.42  # metres that the picture shows at that distance


@dataclasses.dataclass(frozen=True)
class SceneConfig:
  """What is filmed."""

  frames: int = 300
  fps: float = 25.0
  cameras: int = 1
  resolution: int = 256  # px, square pictures
  moving: bool = False  # one camera that swings around the head instead of fixed ones
  motion: MotionConfig = dataclasses.field(default_factory=MotionConfig)


class Scene(NamedTuple):
  """Everything but the pictures."""

  motion: Motion
  creases: Float[np.ndarray, "t w"]  # 0..1 per wrinkle of WRINKLES
  shake: Float[np.ndarray, "t 3"]  # metres, of the cheeks, in the skull's axes
  swallow: Float[np.ndarray, "t"]  # metres up, of the throat
  cameras: Camera  # [k, t]


def make_scene(person: Person, config: SceneConfig, *, seed: int) -> Scene:
  """Direct a scene.

  Args:
    person: who.
    config: what.
    seed: of the motion.

  Raises:
    ValueError: no frames, a number of cameras outside 1..16, more than one moving camera, or pictures below 16 px.
  """
  if not 1 <= config.cameras <= 16 or config.resolution < 16 or (config.moving and config.cameras > 1):
    raise ValueError(
      "cameras, resolution: expected 1 to 16 cameras (one, where it moves) and at least 16 px, "
      f"got {config.cameras}{' moving' if config.moving else ''} and {config.resolution}"
    )
  motion = make_motion(config.frames, config.fps, seed=seed, config=config.motion)
  creases = _creases(motion, config.fps)
  shake = _shake(person, motion, config.fps)
  return Scene(motion, creases, shake, _swallow(config, seed), _cameras(config))


def posed(person: Person, scene: Scene, start: int, stop: int) -> tuple[Float[np.ndarray, "t v 3"], Float[np.ndarray, "t 3 3"]]:
  """True vertices (world, metres) and skull rotations of some frames."""
  return _pose_frames(person, scene.motion, scene.shake, scene.swallow, slice(start, stop))


def _pose_frames(person: Person, motion: Motion, shake: np.ndarray, swallow: np.ndarray, at: slice) -> tuple[np.ndarray, np.ndarray]:
  vertices, head = _posed(
    person.rig,
    jnp.asarray(person.shape),
    jnp.asarray(person.offset),
    jnp.asarray(person.cheeks),
    jnp.asarray(person.throat),
    *(jnp.asarray(x[at], jnp.float32) for x in (motion.expression, motion.pose, motion.eyelids, motion.translation, shake, swallow)),
  )
  return np.asarray(vertices), np.asarray(head)


@jax.jit
@exact
def _posed(rig: FlameRig, shape, offset, cheeks, throat, expression, pose, eyelids, translation, shake, swallow) -> tuple[Array, Array]:
  def one(expression, pose, eyelids, translation, shake, swallow):
    vertices, joints = flame_vertices(rig, shape, expression, pose, eyelids=eyelids, offset=offset)
    head = joints[HEAD_JOINT, :3, :3]
    extra = cheeks[:, None] * (head @ shake) + throat[:, None] * (swallow * head[:, 1])
    return vertices + translation + extra, head

  return jax.vmap(one)(expression, pose, eyelids, translation, shake, swallow)


def _creases(motion: Motion, fps: float) -> Float[np.ndarray, "t w"]:
  """The mean of a wrinkle's drivers, late, and only once the face moves enough."""
  columns = [[open_head.ARKIT_NAMES.index(name) for name in names] for names in WRINKLES.values()]
  drive = np.stack([motion.arkit[:, c].mean(axis=1) for c in columns], axis=1)
  keep, out = np.exp(-1 / (_CREASE_SECONDS * fps)), np.empty_like(drive)
  state = drive[0]
  for k, now in enumerate(drive):
    state = keep * state + (1 - keep) * now
    out[k] = state
  x = np.clip((out - 0.10) / 0.55, 0, 1)
  return (x * x * (3 - 2 * x)).astype(np.float32)


def _shake(person: Person, motion: Motion, fps: float) -> Float[np.ndarray, "t 3"]:
  """A damped spring under the cheeks, driven by what the skull's acceleration does to them."""
  calm, quiet = np.zeros((len(motion.pose), 3)), np.zeros(len(motion.pose))
  place = np.empty((len(motion.pose), 3))
  nearest = int(np.argmin(np.linalg.norm(np.asarray(person.rig.template) - _CHEEK, axis=1)))
  heads = np.empty((len(motion.pose), 3, 3))
  for start in range(0, len(place), 64):
    vertices, heads[start : start + 64] = _pose_frames(person, motion, calm, quiet, slice(start, start + 64))
    place[start : start + 64] = vertices[:, nearest]
  if len(place) < 3:
    return np.zeros((len(place), 3), np.float32)
  force = -np.gradient(np.gradient(place, axis=0), axis=0) * fps**2
  stiffness, drag = (2 * np.pi * _SHAKE_HERTZ) ** 2, 2 * _SHAKE_DAMPING * 2 * np.pi * _SHAKE_HERTZ
  moved, speed, out = np.zeros(3), np.zeros(3), np.empty_like(place)
  steps = 8
  for k in range(len(place)):
    push = heads[k].T @ force[k]
    for _ in range(steps):
      speed = speed + (push - stiffness * moved - drag * speed) / (fps * steps)
      moved = moved + speed / (fps * steps)
    out[k] = moved
  size = np.linalg.norm(out, axis=1, keepdims=True)
  return (out / np.sqrt(1 + (size / _SHAKE_LIMIT) ** 2)).astype(np.float32)


def _swallow(config: SceneConfig, seed: int) -> Float[np.ndarray, "t"]:
  rng = np.random.default_rng([seed, 3])
  at, out, time = np.arange(config.frames) / config.fps, np.zeros(config.frames), rng.uniform(1.0, 4.0)
  while time < config.frames / config.fps:
    out += np.exp(-0.5 * ((at - time) / 0.15) ** 2)
    time += rng.uniform(4.0, 8.0)
  return (_SWALLOW * out).astype(np.float32)


def _cameras(config: SceneConfig) -> Camera:
  """On an arc in front of the head: one in the middle, more from side to side and alternately higher and lower."""
  count, frames = config.cameras, config.frames
  spread = np.linspace(-60.0, 60.0, count) if count > 1 else np.zeros(1)
  yaw = np.broadcast_to(spread[:, None], (count, frames)).copy()
  pitch = np.broadcast_to((8.0 * (np.arange(count) % 2) - 2.0 * (count > 1))[:, None], (count, frames)).copy()
  if config.moving:
    phase = 2 * np.pi * np.arange(frames) / max(frames, 1)
    yaw, pitch = yaw + 25.0 * np.sin(2 * phase), pitch + 8.0 * np.sin(3 * phase)
  a, b = np.radians(yaw), np.radians(pitch)
  direction = np.stack([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)], axis=-1)
  middle = np.array([0.0, -0.01, 0.0])
  eye = jnp.asarray(middle + _DISTANCE * direction, jnp.float32)
  pose = cameras.look_at(eye, jnp.broadcast_to(jnp.asarray(middle, jnp.float32), eye.shape))
  focal = config.resolution * _DISTANCE / _FRAMING
  return cameras.from_focal(pose, float(focal), width=config.resolution, height=config.resolution)
