"""The Gaussians of one frame: the surface under them, the network, their colours."""

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.flame.model import HEAD_JOINT, flame_vertices
from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.geometry import camera as cameras
from silky_jax.geometry.mesh import barycentric_points, face_frames
from silky_jax.math import harmonics, safe
from silky_jax.math.rotation import matrix_from_quaternion, quaternion_conjugate, quaternion_from_matrix, quaternion_multiply
from silky_jax.models.protocol import Aux
from silky_jax.nets.mlp import Network, Precision, conditioned_mlp, encoded_size
from silky_jax.nets.unet import conditioned_unet
from silky_jax.ot.term import TransportConfig
from silky_jax.physics.term import PhysicsConfig
from silky_jax.types import FlameRig, Frame, Gaussians, Subject, Variables

__all__ = ["SilkyConfig", "bounded", "condition_size", "deform", "network_of", "posed", "surface_of"]

_JOINT_SPREAD = 0.2  # radians; brings neck, jaw and eye rotations to about -1..1
_PLACE_SPREAD = 0.1  # metres; the same for the head's translation


@dataclasses.dataclass(frozen=True)
class SilkyConfig:
  """Settings of the family. Lengths in metres."""

  uv_size: int = 128  # texels per side of the atlas: one Gaussian per covered texel
  drop_regions: tuple[str, ...] = ("torso", "eye_socket")  # no Gaussians on triangles that touch one; a rig need not have them all
  offset_limit: float = 0.010  # how far a Gaussian may sit off its anchor
  region_offset_limits: dict[str, float] = dataclasses.field(default_factory=lambda: {"scalp": 0.040})  # hair needs room
  harmonics_degree: int = 1  # of the view-dependent colour, 0 to 3
  initial_opacity: float = 0.7
  initial_width: float = 0.7  # standard deviation along the surface, in units of the distance to the nearest sites
  initial_thickness: float = 0.3  # along the normal, same units
  smallest_deviation: float = 5e-5
  largest_deviation: float = 0.020
  residual: Literal["none", "mlp", "uv"] = "mlp"  # "none" is the coarse avatar, "uv" a U-Net over the atlas: the UV splatter image
  width: int = 128
  depth: int = 4  # hidden layers
  uv_width: int = 16  # channels of the U-Net's finest level
  precision: Precision = "float32"  # of the network's products; "tf32" is "float32" but on a GPU
  frequencies: int = 6  # octaves of the position encoding
  encoding_scale: float = 10.0  # 1/m, before the encoding
  condition_limit: float = 3.0  # standardised expression saturates here: beyond the training range the network must not run away
  condition_on_place: bool = False  # whether the network also sees where the head is and how it is turned: light falls from one side
  motion_limit: float = 0.020  # |d| stays below
  stretch_limit: float = 0.7  # |dl| stays below, natural logarithm
  residual_color: bool = True  # whether the network also changes colour and opacity
  color_limit: float = 0.5  # |dc| per channel stays below
  physics: PhysicsConfig = dataclasses.field(default_factory=PhysicsConfig)  # of the regulariser of that name
  transport: TransportConfig = dataclasses.field(default_factory=TransportConfig)  # likewise


class Surface(NamedTuple):
  """The mesh under the Gaussians at one moment."""

  anchors: Float[Array, "n 3"]  # world
  carried: Float[Array, "n 4"]  # F: neutral head axes -> world
  head: Float[Array, "3 3"]  # rotation of the skull


class Change(NamedTuple):
  """What the network adds; zeros and the unit quaternion for the coarse avatar."""

  motion: Float[Array, "n 3"]
  rotation: Float[Array, "n 4"]
  stretch: Float[Array, "n 3"]
  color: Float[Array, "n 3"]
  opacity: Float[Array, "n"]


def deform(config: SilkyConfig, variables: Variables, rig: FlameRig, frame: Frame) -> tuple[Gaussians, Aux]:
  """The Gaussians of one frame, in the world.

  `aux` holds what terms on motion need, per Gaussian: `anchors` [n 3] world m; `carried` [n 4] = F; `local` [n 3] = F^T (mu - x), m,
  head axes, and its parts `offset` and `motion`; `quaternions` [n 4] = q without F; `log_deviations` [n 3], log m; `color_change` [n 3];
  and of the frame `head` [3 3], `translation` [3].
  """
  params, buffers = variables.params["gaussians"], variables.buffers
  surface = surface_of(buffers, rig, frame)
  change = _change(config, variables, frame)

  offset = bounded(params["offset"], buffers["offset_limit"][:, None])
  local = offset + change.motion
  means = surface.anchors + jnp.sum(matrix_from_quaternion(surface.carried) * local[:, None, :], axis=-1)

  quaternions = quaternion_multiply(change.rotation, quaternion_multiply(buffers["axes"], safe.normalise(params["rotation"])))
  low, high = math.log(config.smallest_deviation), math.log(config.largest_deviation)
  log_deviations = _soft_clip(params["scale"] + change.stretch, low, high)

  gaussians = Gaussians(
    means=means,
    covariances=covariance_from_axes(quaternion_multiply(surface.carried, quaternions), jnp.exp(log_deviations)),
    opacities=jax.nn.sigmoid(params["opacity"] + change.opacity) * buffers["alive"],
    features=_colors(config, params, surface, means, change, frame),
  )
  aux = {
    "anchors": surface.anchors,
    "carried": surface.carried,
    "local": local,
    "offset": offset,
    "motion": change.motion,
    "quaternions": quaternions,
    "log_deviations": log_deviations,
    "color_change": change.color,
    "head": surface.head,
    "translation": frame.translation,
  }
  return gaussians, aux


def surface_of(buffers: dict[str, Any], rig: FlameRig, frame: Frame) -> Surface:
  """Anchors and carried frames on the posed rig."""
  vertices, joints = posed(buffers, rig, frame)
  anchors = barycentric_points(vertices, rig.faces, buffers["faces"], buffers["barycentric"])
  axes = quaternion_from_matrix(face_frames(vertices, rig.faces[buffers["faces"]]).rotation)
  carried = quaternion_multiply(axes, quaternion_conjugate(buffers["axes"]))
  return Surface(anchors, carried, joints[HEAD_JOINT, :3, :3])


def posed(buffers: dict[str, Any], rig: FlameRig, frame: Frame) -> tuple[Float[Array, "v 3"], Float[Array, "j 4 4"]]:
  """The rig in the world, and its joint transforms (without the translation)."""
  vertices, joints = flame_vertices(
    rig, buffers["shape"], frame.expression, frame.pose, eyelids=frame.eyelids, offset=buffers["vertex_offset"]
  )
  return vertices + frame.translation, joints


def _colors(
  config: SilkyConfig, params: dict[str, Array], surface: Surface, means: Float[Array, "n 3"], change: Change, frame: Frame
) -> Float[Array, "n 3"]:
  """Harmonics in the direction from the camera, in the skull's axes, so that colours turn with the head."""
  colors = 0.5 + harmonics.CONSTANT * params["color"] + change.color
  if config.harmonics_degree:
    directions = jnp.sum((means - cameras.centre(frame.camera))[:, :, None] * surface.head, axis=1)
    basis = harmonics.basis(config.harmonics_degree, directions)[:, 1:]
    colors = colors + jnp.sum(basis[:, :, None] * params["harmonics"], axis=1)
  return jnp.maximum(colors, 0.0) * (1.0 if frame.exposure is None else frame.exposure)


# ---- the residual network --------------------------------------------------------------------------------------------------------


def network_of(config: SilkyConfig, condition: int) -> Network:
  """Of residual "mlp": (params, encoding [n, d], condition) -> [n, o]; of "uv": (params, map [s, s, d + 1], condition) -> [s, s, o]."""
  outputs = 13 if config.residual_color else 9
  if config.residual == "uv":
    return conditioned_unet(
      size=config.uv_size,
      channels=encoded_size(config.frequencies) + 1,
      condition=condition,
      width=config.uv_width,
      outputs=outputs,
      precision=config.precision,
    )
  return conditioned_mlp(
    points=encoded_size(config.frequencies),
    condition=condition,
    width=config.width,
    depth=config.depth,
    outputs=outputs,
    precision=config.precision,
  )


def _change(config: SilkyConfig, variables: Variables, frame: Frame) -> Change:
  """The network's output, squashed so that no part of it can leave its limit; exactly nothing while the output is zero."""
  count = variables.buffers["alive"].shape[0]
  if config.residual == "none":
    out = jnp.zeros((count, 13))
  else:
    condition, buffers = _condition(config, variables.buffers, frame), variables.buffers
    apply = functools.partial(network_of(config, condition.shape[0]).apply, variables.params["residual"])
    if config.residual == "uv":
      out = apply(buffers["atlas"], condition).reshape(config.uv_size**2, -1)[buffers["texels"]]
    else:
      out = apply(buffers["encoding"], condition)
  color, opacity = jnp.zeros((count, 3)), jnp.zeros(count)
  if out.shape[1] > 9:
    color, opacity = config.color_limit * jnp.tanh(out[:, 9:12]), out[:, 12]
  return Change(
    motion=bounded(config.motion_limit * out[:, 0:3], config.motion_limit),
    rotation=safe.normalise(jnp.concatenate([jnp.ones((count, 1)), 0.5 * out[:, 3:6]], axis=1)),
    stretch=config.stretch_limit * jnp.tanh(out[:, 6:9]),
    color=color,
    opacity=opacity,
  )


def _condition(config: SilkyConfig, buffers: dict[str, Any], frame: Frame) -> Float[Array, "q"]:
  """phi: standardised expression, joint rotations but the global one, eyelids; the global ones if wanted. The same for all Gaussians."""
  limit = config.condition_limit
  parts = [(frame.expression - buffers["mean_expression"]) / buffers["expression_scale"]]
  if config.condition_on_place:
    parts += [frame.pose[0] / _JOINT_SPREAD, frame.translation / _PLACE_SPREAD]
  saturated = [limit * jnp.tanh(part / limit) for part in parts]
  return jnp.concatenate([*saturated, frame.pose[1:].reshape(-1) / _JOINT_SPREAD, frame.eyelids])


def condition_size(config: SilkyConfig, rig: FlameRig, subject: Subject) -> int:
  return subject.mean_expression.shape[0] + 6 * config.condition_on_place + 3 * (len(rig.parents) - 1) + 2


# ---- bounds ----------------------------------------------------------------------------------------------------------------------


def bounded(vector: Float[Array, "n 3"], limit: Float[Array, "n 1"] | float) -> Float[Array, "n 3"]:
  """The vector, shortened so that its length stays below `limit`; unchanged to second order near 0, smooth everywhere."""
  return vector / jnp.sqrt(1.0 + jnp.sum(vector * vector, axis=-1, keepdims=True) / limit**2)


def _soft_clip(x: Float[Array, "*b"], low: float, high: float) -> Float[Array, "*b"]:
  """x between the limits, with a gradient also beyond them, so that nothing sticks there; off by 1e-7 one unit inside."""
  sharpness = 16.0
  return low + (jax.nn.softplus(sharpness * (x - low)) - jax.nn.softplus(sharpness * (x - high))) / sharpness
