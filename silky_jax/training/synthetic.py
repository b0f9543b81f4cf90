"""A sequence with known truth, rendered from a coarse avatar in random colours: what the smoke config and the tests train on."""

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.data.memory import MemorySequence
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.flame.model import flame_vertices
from silky_jax.geometry import camera as cameras
from silky_jax.models.drive import frames_renderer
from silky_jax.models.silky import SilkyConfig, make
from silky_jax.render.pipeline import RenderConfig
from silky_jax.types import Camera, FlameRig, Frame, Subject, Variables

__all__ = ["synthetic_sequence"]

_FPS = 25.0


def synthetic_sequence(rig: FlameRig, *, frames: int = 40, size: int = 64, seed: int = 0, uv_size: int = 96) -> MemorySequence:
  """A person who turns the head, talks and blinks, smoothly and never twice the same.

  The last fifth of the frames is held out as "heldout_tail", behind two guard frames.

  Args:
    rig: the head.
    frames: how many, at 25 per second.
    size: px, square.
    seed: of the person and of the motion.
    uv_size: texels per side of the truth's Gaussians.
  """
  person, motion, paint = jax.random.split(jax.random.key(seed), 3)
  subject = Subject(
    shape=0.5 * jax.random.normal(person, (rig.shape_basis.shape[-1],)),
    offset=jnp.zeros_like(rig.template),
    mean_expression=jnp.zeros(rig.expression_basis.shape[-1]),
    expression_variance=jnp.zeros(rig.expression_basis.shape[-1]),
  )
  driven = _motion(motion, rig, _camera(rig, subject, size), frames)
  truth = SilkyConfig(uv_size=uv_size, residual="none", harmonics_degree=0, region_offset_limits={}, initial_opacity=0.95)
  variables = _paint(make(truth).init(paint, rig, subject), paint)
  play = frames_renderer(make(truth), variables, rig, jnp.zeros(3), config=RenderConfig())
  image, alpha = (np.asarray(x) for x in play(driven))
  # On black, a picture is its own colours times alpha; a photograph has the colours whole.
  image = np.clip(image / np.maximum(alpha, 1e-3)[..., None], 0, 1)
  driven = driven.replace(image=image, mask=alpha, parts=(alpha > 0.5).astype(np.uint8))
  driven = jax.tree.map(np.asarray, driven)
  held = frames // 5
  splits = {
    "train": np.arange(frames - held - 2),
    "guard": np.arange(frames - held - 2, frames - held),
    "heldout_tail": np.arange(frames - held, frames),
    "heldout_blocks": np.arange(0),
    "repeat": np.arange(0),
    "dropped": np.arange(0),
  }
  expression = driven.expression[splits["train"]]
  seen = jax.tree.map(np.asarray, subject.replace(mean_expression=expression.mean(axis=0), expression_variance=expression.var(axis=0)))
  return MemorySequence(driven, splits, seen, rig.name, rig_hash(rig), _FPS)


def _camera(rig: FlameRig, subject: Subject, size: int) -> Camera:
  """In front of the head, far enough to see it whole."""
  vertices, _ = flame_vertices(rig, subject.shape, subject.mean_expression, jnp.zeros((5, 3)))
  low, high = jnp.min(vertices, axis=0), jnp.max(vertices, axis=0)
  middle, extent = (low + high) / 2, jnp.max(high - low)
  pose = cameras.look_at(middle + jnp.asarray([0.0, 0.0, 5.0]) * extent, middle)
  return cameras.from_focal(pose, 4.0 * size, width=size, height=size)


def _motion(key: jax.Array, rig: FlameRig, camera: Camera, count: int) -> Frame:
  """Sums of slow waves for every degree of freedom."""
  time = jnp.arange(count) / _FPS
  wave_key, size_key = jax.random.split(key)
  expressions = rig.expression_basis.shape[-1]
  phases, speeds = jax.random.uniform(wave_key, (2, expressions + 15 + 2), maxval=2 * jnp.pi)
  waves = jnp.sin(time[:, None] * (1.0 + speeds) + phases)
  strength = jax.random.uniform(size_key, (expressions,)) * 0.5
  # Radians per joint: global, neck, jaw, eyes; only small turns, the jaw one-sided.
  turns = jnp.asarray([[0.1, 0.25, 0.05], [0.05, 0.05, 0.02], [0.15, 0.0, 0.0], [0.1, 0.1, 0.0], [0.1, 0.1, 0.0]])
  pose = waves[:, expressions : expressions + 15].reshape(count, 5, 3) * turns
  pose = pose.at[:, 2, 0].set(jnp.abs(pose[:, 2, 0]))
  numbers = jnp.arange(count, dtype=jnp.int32)
  return Frame(
    index=numbers,
    time=time,
    shot=jnp.zeros(count, jnp.int32),
    timestep=numbers,
    view=jnp.zeros(count, jnp.int32),
    camera=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), camera),
    expression=waves[:, :expressions] * strength,
    pose=pose,
    eyelids=jnp.clip(3 * waves[:, -2:] - 2, 0, 1),
    translation=0.01 * waves[:, :3] if expressions >= 3 else jnp.zeros((count, 3)),
    image=jnp.zeros((count, 0, 0, 3)),
    mask=jnp.zeros((count, 0, 0)),
    parts=jnp.zeros((count, 0, 0), jnp.uint8),
    landmarks=jnp.zeros((count, 0, 2)),
    valid=jnp.ones(count, bool),
  )


def _paint(variables: Variables, key: jax.Array) -> Variables:
  """Colours that vary smoothly over the head, so that a wrong pose shows."""
  encoding = variables.buffers["encoding"]
  colors = jnp.sin(2.0 * encoding @ jax.random.normal(key, (encoding.shape[1], 3)) / jnp.sqrt(encoding.shape[1]))
  gaussians = {**variables.params["gaussians"], "color": colors}
  return variables.replace(params={**variables.params, "gaussians": gaussians})
