"""A trained avatar opened from disk, ready to be looked at from anywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from silky_jax.config import UserError
from silky_jax.data.clips import Sequence
from silky_jax.evaluation import reenact
from silky_jax.evaluation.playback import RenderFrames, driving, take
from silky_jax.flame import open_head
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import face_mask, vertex_mask
from silky_jax.models import corrections
from silky_jax.models.drive import frames_renderer
from silky_jax.render.mesh import rasterize_mesh
from silky_jax.training.checkpoint import Restored, restore_run
from silky_jax.training.experiment import build
from silky_jax.types import Camera, FlameRig, Frame, Gaussians

__all__ = ["Player", "Stance", "find_rig", "head_box", "open_avatar", "open_driver", "outline", "resting", "stance", "stand"]

_HEAD_SHARE = 0.62  # of the picture's height that the head takes in views around it


class Player(NamedTuple):
  """An avatar as functions of frames."""

  render: RenderFrames
  own: Callable[[Frame], Frame]  # frames of the dataset it was trained on, seen by the cameras that training found (`corrections`)
  gaussians: Callable[[Frame], Gaussians]  # of one frame (no batch), world space
  vertices: Callable[[Frame], Float[Array, "t v 3"]]  # of the rig in the frames [t], world space, metres
  silhouette: Callable[[Frame], Bool[np.ndarray, "t h w"]]  # where the rig's head and neck are in the pictures of frames [t]
  rig: FlameRig
  restored: Restored
  background: Float[np.ndarray, "3"]

  def facts(self) -> dict[str, Any]:
    """What a report says of the avatar."""
    config, state = self.restored.config, self.restored.state
    perceptual = config.losses.perceptual
    return {
      "family": config.family,
      "gaussians": int(state.variables.buffers["alive"].shape[0]),
      "steps": int(state.step),
      "rig": self.restored.meta.rig_name,
      "device": jax.devices()[0].device_kind,
      "corrected": ["training frames", "cameras"][: 1 + config.corrections.camera] if config.corrections.enabled else [],
      "trained_lpips": {"alexnet": "AlexNet", "vgg16": "VGG16"}[config.losses.perceptual_net] if perceptual.weight else None,
    }


class Stance(NamedTuple):
  """Where to put a camera that goes around a head."""

  centre: Float[np.ndarray, "3"]  # of the head, metres
  distance: float  # metres, as far as the camera of the video was
  focal: float  # px per px of picture height: the head takes 62 % of it


def find_rig(name: str, mark: str) -> FlameRig:
  """The rig that a dataset or checkpoint was made on.

  Args:
    name: its name.
    mark: its hash.

  Raises:
    UserError: it is not the bundled head of this version.
  """
  rig = open_head.load()[0]
  if (name, mark) != (rig.name, rig_hash(rig)):
    raise UserError(
      f"made on the rig {name!r} ({mark}), but this version carries {rig.name!r} ({rig_hash(rig)}): preprocess and train again"
    )
  return rig


def open_avatar(checkpoint: Path | str, *, step: int | None = None) -> Player:
  """Open the avatar of a training run.

  Args:
    checkpoint: the --output_dir of `train`.
    step: which checkpoint; the newest that can be read when None.

  Raises:
    UserError: no run, no readable checkpoint, or one of another format or rig; the message names what was found.
  """
  restored = restore_run(checkpoint, step=step)
  rig = find_rig(restored.meta.rig_name, restored.meta.rig_hash)
  experiment = build(restored.config)
  variables = restored.state.variables
  background = np.asarray(restored.config.background, np.float32)
  config = experiment.step_config(experiment.stages[-1], restored.meta.capacity).render
  render = frames_renderer(experiment.avatar, variables, rig, jnp.asarray(background), config=config)
  deform = jax.jit(lambda variables, rig, frame: experiment.avatar.deform(variables, rig, frame)[0])

  @jax.jit
  def posed(rig, buffers, frames):
    def one(frame):
      return (
        flame_vertices(rig, buffers["shape"], frame.expression, frame.pose, eyelids=frame.eyelids, offset=buffers.get("vertex_offset"))[0]
        + frame.translation
      )

    return jax.vmap(one)(frames)

  def vertices(frames: Frame) -> Float[Array, "t v 3"]:
    return posed(rig, variables.buffers, driving(frames).replace(camera=None))

  def silhouette(frames: Frame) -> Bool[np.ndarray, "t h w"]:
    return outline(rig, vertices(frames), frames.camera)

  return Player(
    render=render,
    own=lambda frames: corrections.calibrate(variables, frames),
    gaussians=lambda frame: deform(variables, rig, driving(frame)),
    vertices=vertices,
    silhouette=silhouette,
    rig=rig,
    restored=restored,
    background=background,
  )


def open_driver(player: Player, flame_params: Path | str) -> reenact.Driver:
  """A driver that fits an avatar; one without a camera is seen by the camera of the avatar's video.

  Raises:
    UserError: missing, broken, or of another rig.
  """
  driver = reenact.read_driver(flame_params)
  meta = player.restored.meta
  reenact.check_rig(driver, meta.rig_name, meta.rig_hash, expressions=player.rig.expression_basis.shape[-1])
  return reenact.with_camera(driver, player.restored.camera)


def outline(rig: FlameRig, vertices: Float[Array, "t v 3"], camera: Camera) -> Bool[np.ndarray, "t h w"]:
  """Where a rig's head and neck (all but the torso) are in pictures.

  Args:
    rig: the head.
    vertices: world space, metres.
    camera: one per moment [t].
  """
  faces = rig.faces[face_mask(rig, set(rig.region_names) - {"torso"})]
  cameras = [jax.tree.map(lambda a, k=k: jnp.asarray(a)[k], camera) for k in range(len(vertices))]
  return np.stack([np.asarray(rasterize_mesh(shape, faces, one)[0]) >= 0 for shape, one in zip(vertices, cameras, strict=True)])


def resting(sequence: Sequence) -> Frame:
  """One moment (batch [1], no pictures): the person's usual face, looking straight ahead from the origin.

  Expression, jaw, eyes and lids are medians over the training frames; head, neck and translation are zero, exposure is 1.

  Args:
    sequence: the dataset.
  """
  train = driving(sequence.frames(np.asarray(sequence.splits["train"])))
  pose = np.median(np.asarray(train.pose), axis=0, keepdims=True)
  pose[:, :2] = 0.0
  middle = {key: np.median(np.asarray(getattr(train, key)), axis=0, keepdims=True) for key in ("expression", "eyelids")}
  return take(train, np.array([0])).replace(pose=pose, translation=np.zeros((1, 3), np.float32), exposure=None, **middle)


def stance(player: Player, sequence: Sequence, frame: Frame) -> Stance:
  """Where to stand for pictures from around the head of `frame` (batch [1]).

  Args:
    player: the avatar.
    sequence: the dataset, which tells how far away the camera of the video was.
    frame: the moment that will be shown.
  """
  train = driving(sequence.frames(np.asarray(sequence.splits["train"])[:1]))
  low, high = head_box(player, train)
  pose = np.asarray(train.camera.world_to_camera[0])
  distance = float(np.linalg.norm(pose[:3, :3] @ (0.5 * (low + high)) + pose[:3, 3]))
  return stand(*head_box(player, frame), distance=distance)


def head_box(player: Player, frame: Frame) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
  """Corners of the box around the head (no neck, no torso) of `frame` (batch [1]), world, metres."""
  head = np.asarray(vertex_mask(player.rig, set(player.rig.region_names) - {"torso", "neck"}))
  points = np.asarray(player.vertices(frame)[0])[head]
  return points.min(axis=0), points.max(axis=0)


def stand(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], *, distance: float) -> Stance:
  """A camera's stand before a box, so that its height takes a fixed share of the picture."""
  return Stance((0.5 * (low + high)).astype(np.float32), distance, _HEAD_SHARE * distance / float(high[1] - low[1]))
