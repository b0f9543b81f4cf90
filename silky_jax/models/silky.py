"""Silky: Gaussians that ride on the texels of a head mesh, and a network that adds what the mesh does not know.

    x_i(t)   anchor: a point of a triangle of the posed rig, at fixed barycentric weights
    F_i(t)   carried frame: the rotation that took the triangle from the neutral head to its pose now
    mu_i     = x_i + F_i (o_i + d_i(t))                           o: static offset, d: the network's motion, both in head axes
    q_i      = F_i * dq_i(t) * s_i * b_i                           orientation; s: the triangle's axes on the neutral head, b: trained
    Sigma_i  = R(q_i) diag(exp 2(l_i + dl_i(t))) R(q_i)^T
    colour_i = g(t) max(0, 1/2 + Y(view direction in the head's frame) . h_i + dc_i(t)),  opacity_i = sigmoid(a_i + da_i(t))
               g: the camera's exposure, tracked

Coarse is everything but the d's; fine adds them: one residual network, gamma(position on the neutral head) and the frame's expression,
joints and eyelids in, all of (d, dq, dl, dc, da) out. It starts at zero, so training begins from the coarse avatar. After FlashAvatar
(Xiang et al. 2024) and the Silky release, with the faults of the latter put right: orthonormal frames that are composed, not averaged;
offsets bounded and zero at the start; additive log-deviations (the spec, 2 and 8.1).
"""

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from silky_jax.config import ConfigError, closest
from silky_jax.flame.model import HEAD_JOINT, flame_vertices
from silky_jax.flame.regions import REGIONS, face_regions, vertex_mask
from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.gaussians.seeding import uv_sites
from silky_jax.geometry import camera as cameras
from silky_jax.geometry.mesh import barycentric_points, face_frames, face_pieces
from silky_jax.geometry.neighbours import nearest
from silky_jax.math import harmonics, safe
from silky_jax.math.rotation import matrix_from_quaternion, quaternion_conjugate, quaternion_from_matrix, quaternion_multiply
from silky_jax.models.protocol import Aux, Avatar
from silky_jax.nets.mlp import Network, conditioned_mlp, encode_positions, encoded_size
from silky_jax.physics.term import Motion, PhysicsConfig, physics_term
from silky_jax.render.mesh import vertex_visibility
from silky_jax.types import FlameRig, Frame, Gaussians, Prediction, Subject, Variables

__all__ = ["SilkyConfig", "make"]

_NEIGHBOURS = 4
_HAIR, _HAIR_HEIGHT = ("scalp",), 0.015  # metres
_JOINT_SPREAD = 0.2  # radians; brings neck, jaw and eye rotations to about -1..1
_PLACE_SPREAD = 0.1  # metres; the same for the head's translation
_RIM = 0.012  # of the picture's height: so far inside the mask a pixel has to lie to be painted from
_SPREAD_STEPS = 3000  # of diffusion; colour travels about a neighbour's distance times the square root of them
_EXPRESSION_FLOOR = 0.05  # coefficient units; a coefficient that never moved in training must not be blown up when it does


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
  residual: Literal["none", "mlp"] = "mlp"  # "none" is the coarse avatar
  width: int = 128
  depth: int = 4  # hidden layers
  frequencies: int = 6  # octaves of the position encoding
  encoding_scale: float = 10.0  # 1/m, before the encoding
  condition_limit: float = 3.0  # standardised expression saturates here: beyond the training range the network must not run away
  condition_on_place: bool = False  # whether the network also sees where the head is and how it is turned: light falls from one side
  motion_limit: float = 0.020  # |d| stays below
  stretch_limit: float = 0.7  # |dl| stays below, natural logarithm
  residual_color: bool = True  # whether the network also changes colour and opacity
  color_limit: float = 0.5  # |dc| per channel stays below
  physics: PhysicsConfig = dataclasses.field(default_factory=PhysicsConfig)  # of the regulariser of that name


class _Surface(NamedTuple):
  """The mesh under the Gaussians at one moment."""

  anchors: Float[Array, "n 3"]  # world
  carried: Float[Array, "n 4"]  # F: neutral head axes -> world
  head: Float[Array, "3 3"]  # rotation of the skull


class _Change(NamedTuple):
  """What the network adds; zeros and the unit quaternion for the coarse avatar."""

  motion: Float[Array, "n 3"]
  rotation: Float[Array, "n 4"]
  stretch: Float[Array, "n 3"]
  color: Float[Array, "n 3"]
  opacity: Float[Array, "n"]


def make(config: SilkyConfig) -> Avatar:
  """The family as pure functions.

  Args:
    config: settings.

  Raises:
    ConfigError: a harmonics degree outside 0..3.
  """
  if not 0 <= config.harmonics_degree <= 3:
    raise ConfigError(f"model.harmonics_degree: expected 0 to 3, got {config.harmonics_degree}")
  bound = functools.partial
  return Avatar(
    init=bound(_init, config),
    deform=bound(_deform, config),
    regularize=bound(_regularize, config),
    paint=bound(_paint, config),
    clip_terms=("physics",),
    deforms_clip=False,
  )


# ---- one frame -------------------------------------------------------------------------------------------------------------------


def _deform(config: SilkyConfig, variables: Variables, rig: FlameRig, frame: Frame) -> tuple[Gaussians, Aux]:
  """The Gaussians of one frame, in the world.

  `aux` holds what terms on motion need, per Gaussian: `anchors` [n 3] world m; `carried` [n 4] = F; `local` [n 3] = F^T (mu - x), m,
  head axes, and its parts `offset` and `motion`; `quaternions` [n 4] = q without F; `log_deviations` [n 3], log m; `color_change` [n 3];
  and of the frame `head` [3 3], `translation` [3].
  """
  params, buffers = variables.params["gaussians"], variables.buffers
  surface = _surface(buffers, rig, frame)
  change = _change(config, variables, frame)

  offset = _bounded(params["offset"], buffers["offset_limit"][:, None])
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


def _surface(buffers: dict[str, Any], rig: FlameRig, frame: Frame) -> _Surface:
  """Anchors and carried frames on the posed rig."""
  vertices, joints = _posed(buffers, rig, frame)
  anchors = barycentric_points(vertices, rig.faces, buffers["faces"], buffers["barycentric"])
  axes = quaternion_from_matrix(face_frames(vertices, rig.faces[buffers["faces"]]).rotation)
  carried = quaternion_multiply(axes, quaternion_conjugate(buffers["axes"]))
  return _Surface(anchors, carried, joints[HEAD_JOINT, :3, :3])


def _posed(buffers: dict[str, Any], rig: FlameRig, frame: Frame) -> tuple[Float[Array, "v 3"], Float[Array, "j 4 4"]]:
  """The rig in the world, and its joint transforms (without the translation)."""
  vertices, joints = flame_vertices(
    rig, buffers["shape"], frame.expression, frame.pose, eyelids=frame.eyelids, offset=buffers["vertex_offset"]
  )
  return vertices + frame.translation, joints


def _colors(
  config: SilkyConfig, params: dict[str, Array], surface: _Surface, means: Float[Array, "n 3"], change: _Change, frame: Frame
) -> Float[Array, "n 3"]:
  """Harmonics in the direction from the camera, in the skull's axes, so that colours turn with the head."""
  colors = 0.5 + harmonics.CONSTANT * params["color"] + change.color
  if config.harmonics_degree:
    directions = jnp.sum((means - cameras.centre(frame.camera))[:, :, None] * surface.head, axis=1)
    basis = harmonics.basis(config.harmonics_degree, directions)[:, 1:]
    colors = colors + jnp.sum(basis[:, :, None] * params["harmonics"], axis=1)
  return jnp.maximum(colors, 0.0) * (1.0 if frame.exposure is None else frame.exposure)


# ---- the residual network --------------------------------------------------------------------------------------------------------


def _network(config: SilkyConfig, condition: int) -> Network:
  outputs = 13 if config.residual_color else 9
  return conditioned_mlp(
    points=encoded_size(config.frequencies), condition=condition, width=config.width, depth=config.depth, outputs=outputs
  )


def _change(config: SilkyConfig, variables: Variables, frame: Frame) -> _Change:
  """The network's output, squashed so that no part of it can leave its limit; exactly nothing while the output is zero."""
  count = variables.buffers["alive"].shape[0]
  if config.residual == "none":
    out = jnp.zeros((count, 13))
  else:
    condition = _condition(config, variables.buffers, frame)
    out = _network(config, condition.shape[0]).apply(variables.params["residual"], variables.buffers["encoding"], condition)
  color, opacity = jnp.zeros((count, 3)), jnp.zeros(count)
  if out.shape[1] > 9:
    color, opacity = config.color_limit * jnp.tanh(out[:, 9:12]), out[:, 12]
  return _Change(
    motion=_bounded(config.motion_limit * out[:, 0:3], config.motion_limit),
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


def _condition_size(config: SilkyConfig, rig: FlameRig, subject: Subject) -> int:
  return subject.mean_expression.shape[0] + 6 * config.condition_on_place + 3 * (len(rig.parents) - 1) + 2


# ---- a clip ----------------------------------------------------------------------------------------------------------------------


def _regularize(config: SilkyConfig, variables: Variables, rig: FlameRig, clip: Frame, prediction: Prediction) -> dict[str, Array]:
  """Terms on what rides on the mesh, each a mean, unweighted.

  `motion`: |d|^2, mm^2. `offset`: |o|^2 in units of the limit squared. `smoothness`: |o_i - o_j|^2 over neighbours on the surface, in
  units of their distance squared. `size`: log-deviations beyond twice the site's spacing, squared. `color_change`: dc^2.

  Three say what a Gaussian is where no training frame tells. The optimizer's steps do not shrink with a gradient, so tiny weights do it:
  `color_smoothness`: (c_i - c_j)^2 over neighbours, colours 0..1. `view_dependence`: square of the harmonics beyond the constant one.
  `transparency`: 1 - sigmoid(a), without the network's part.

  And of a clip of at least four frames, `physics`: `physics.term.physics_term`, over a sample of the Gaussians.
  """
  params, buffers, aux = variables.params["gaussians"], variables.buffers, prediction.aux
  neighbours = buffers["neighbours"]
  offset = _bounded(params["offset"], buffers["offset_limit"][:, None])
  difference = offset[:, None, :] - offset[neighbours]
  color_difference = harmonics.CONSTANT * (params["color"][:, None, :] - params["color"][neighbours])
  excess = jax.nn.relu(jnp.max(aux["log_deviations"], axis=-1) - jnp.log(2.0 * buffers["spacing"]))
  return {
    "motion": 1e6 * jnp.mean(jnp.sum(aux["motion"] ** 2, axis=-1)),
    "offset": jnp.mean(jnp.sum((offset / buffers["offset_limit"][:, None]) ** 2, axis=-1)),
    "smoothness": jnp.mean(jnp.sum(difference**2, axis=-1) / buffers["spacing"][:, None] ** 2),
    "size": jnp.mean(excess**2),
    "color_change": jnp.mean(aux["color_change"] ** 2),
    "color_smoothness": jnp.mean(jnp.sum(color_difference**2, axis=-1)),
    "view_dependence": jnp.mean(params["harmonics"] ** 2) if "harmonics" in params else jnp.zeros(()),
    "transparency": jnp.mean(jax.nn.sigmoid(-params["opacity"])),
    "physics": lambda: _physics(config, variables, rig, clip),
  }


# What there is one of per Gaussian, beside all of `params["gaussians"]`.
_PER_GAUSSIAN = ("faces", "barycentric", "offset_limit", "regions", "alive", "axes", "neighbours", "spacing", "encoding")


def _physics(config: SilkyConfig, variables: Variables, rig: FlameRig, clip: Frame) -> Array:
  """The physics term of a sample of the Gaussians, which are deformed in every frame of the clip."""
  settings, frames = config.physics, clip.index.shape[1]
  if frames <= settings.history:
    raise ConfigError(f"clips.length: the term physics wants at least {settings.history + 1} frames, got {frames}")
  count = variables.buffers["alive"].shape[0]
  wanted = min(settings.sample or count, count)
  stride = count // wanted
  at = jnp.sum(clip.index) % stride + stride * jnp.arange(wanted)  # other Gaussians in other steps
  few = variables.replace(
    params={**variables.params, "gaussians": jax.tree.map(lambda leaf: leaf[at], variables.params["gaussians"])},
    buffers=variables.buffers | {name: variables.buffers[name][at] for name in _PER_GAUSSIAN},
  )

  def one(frame: Frame) -> tuple[Array, ...]:
    gaussians, aux = _deform(config, few, rig, frame)
    anchors = jnp.sum((aux["anchors"] - aux["translation"])[:, :, None] * aux["head"], axis=1)  # head^T x
    back = jnp.broadcast_to(quaternion_conjugate(quaternion_from_matrix(aux["head"])), aux["carried"].shape)
    return aux["local"], anchors, quaternion_multiply(back, aux["carried"]), aux["quaternions"], aux["log_deviations"], gaussians.opacities

  local, anchors, carried, quaternions, deviations, opacities = jax.vmap(jax.vmap(one))(clip)
  motion = Motion(clip.time, clip.valid, clip.shot, local, anchors, carried, quaternions, deviations, opacities, few.buffers["regions"])
  return physics_term(motion, settings, len(rig.region_names)).value


# ---- the start -------------------------------------------------------------------------------------------------------------------


def _init(config: SilkyConfig, key: jax.Array, rig: FlameRig, subject: Subject) -> Variables:
  """Bind Gaussians to the rig's texels; the rig's layout decides how many, so this part is host code."""
  corners = np.asarray(rig.faces)
  dropped = _vertices_of(rig, config.drop_regions, "drop_regions")[corners].any(axis=1)
  sites = uv_sites(np.asarray(rig.uv), np.asarray(rig.uv_faces), size=config.uv_size, keep=~dropped)
  limit = np.full(len(sites.faces), config.offset_limit, np.float32)
  for name, value in config.region_offset_limits.items():
    inside = _vertices_of(rig, (name,), "region_offset_limits")
    limit[inside[corners[sites.faces]].all(axis=1)] = value
  # Hair ends where skin begins: what is not seen of either takes nothing from the other.
  hairy = _vertices_of(rig, _HAIR, "drop_regions")[corners].all(axis=1)
  piece = 2 * face_pieces(corners) + hairy
  fixed = {
    "faces": jnp.asarray(sites.faces),
    "barycentric": jnp.asarray(sites.barycentric),
    "offset_limit": jnp.asarray(limit),
    "piece": jnp.asarray(piece[sites.faces]),
  }
  known = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), subject)
  return jax.jit(functools.partial(_grow_from_sites, config))(key, rig, known, fixed)


def _vertices_of(rig: FlameRig, names: tuple[str, ...], setting: str) -> np.ndarray:
  known = {*rig.region_names, *REGIONS}
  for name in names:
    if name not in known:
      raise ConfigError(f"model.{setting}: no region {name!r}{closest(name, known)}")
  with jax.ensure_compile_time_eval():  # also under `eval_shape`
    return np.asarray(vertex_mask(rig, names))


def _grow_from_sites(config: SilkyConfig, key: jax.Array, rig: FlameRig, subject: Subject, fixed: dict[str, Array]) -> Variables:
  """A closed, grey surface of Gaussians on the subject's neutral head, and a network that does nothing yet."""
  fixed = dict(fixed)
  faces, piece, count = fixed["faces"], fixed.pop("piece"), fixed["faces"].shape[0]
  vertices, _ = flame_vertices(rig, subject.shape, jnp.zeros_like(subject.mean_expression), jnp.zeros((5, 3)), offset=subject.offset)
  points = barycentric_points(vertices, rig.faces, faces, fixed["barycentric"])
  squared, neighbours = nearest(points, points, _NEIGHBOURS, exclude_self=True)
  spacing = jnp.clip(jnp.mean(jnp.sqrt(squared), axis=1), 2 * config.smallest_deviation, config.largest_deviation)
  frames = face_frames(vertices, rig.faces[faces]).rotation
  buffers = {
    **fixed,
    "regions": face_regions(rig)[faces],
    "alive": jnp.ones(count, bool),
    "axes": quaternion_from_matrix(frames),
    "neighbours": _across_the_surface(neighbours, frames[:, :, 1], piece),
    "spacing": spacing,
    "encoding": encode_positions(points, frequencies=config.frequencies, scale=config.encoding_scale),
    "shape": subject.shape,
    "vertex_offset": subject.offset,
    "mean_expression": subject.mean_expression,
    "expression_scale": jnp.sqrt(subject.expression_variance + _EXPRESSION_FLOOR**2),
  }
  # The face frame's normal is its second axis.
  widths = jnp.asarray([config.initial_width, config.initial_thickness, config.initial_width], jnp.float32)
  gaussians = {
    "offset": jnp.zeros((count, 3), jnp.float32),
    "rotation": jnp.tile(jnp.asarray([1.0, 0.0, 0.0, 0.0], jnp.float32), (count, 1)),
    "scale": jnp.log(spacing[:, None] * widths),
    "opacity": jnp.full(count, math.log(config.initial_opacity / (1 - config.initial_opacity)), jnp.float32),
    "color": jnp.zeros((count, 3), jnp.float32),
  }
  if config.harmonics_degree:
    gaussians["harmonics"] = jnp.zeros((count, (config.harmonics_degree + 1) ** 2 - 1, 3), jnp.float32)
  params: dict[str, Any] = {"gaussians": gaussians}
  if config.residual != "none":
    params["residual"] = _network(config, _condition_size(config, rig, subject)).init(key)
  return Variables(params=params, buffers=buffers)


def _across_the_surface(neighbours: Int[Array, "n k"], normals: Float[Array, "n 3"], piece: Int[Array, "n"]) -> Int[Array, "n k"]:
  """Neighbours in space that are neighbours on the surface; the others replaced by itself, which counts for nothing.

  Lips touch, a lid lies on its eyeball: near, but another surface, which faces the other way or belongs to another piece.
  """
  itself = jnp.arange(neighbours.shape[0], dtype=neighbours.dtype)[:, None]
  same_side = jnp.sum(normals[:, None, :] * normals[neighbours], axis=-1) > 0
  return jnp.where(same_side & (piece[:, None] == piece[neighbours]), neighbours, itself)


def _paint(config: SilkyConfig, variables: Variables, rig: FlameRig, frames: Frame) -> Variables:
  """Start colours: the mean colour where a Gaussian's anchor is seen face on, inside the mask; elsewhere that of the seen surface near by.

  Args:
    frames: a few training frames [t], with pictures.
  """
  buffers = variables.buffers
  # Hair stands off the scalp: in front of its anchors, near the hairline, there is skin.
  hairy = jnp.asarray([name in _HAIR for name in rig.region_names])[buffers["regions"]]
  height = _HAIR_HEIGHT * hairy[:, None]

  def seen(frame: Frame) -> tuple[Array, Array]:
    surface = _surface(buffers, rig, frame)
    normals = matrix_from_quaternion(quaternion_multiply(surface.carried, buffers["axes"]))[:, :, 1]
    towards = safe.normalise(cameras.centre(frame.camera) - surface.anchors)
    pixels, depths = cameras.project(surface.anchors + height * normals, frame.camera)
    column, row = jnp.floor(pixels).astype(jnp.int32).T
    inside = (row >= 0) & (row < frame.camera.height) & (column >= 0) & (column < frame.camera.width) & (depths > 0)
    facing = jax.nn.relu(jnp.sum(normals * towards, axis=-1) - 0.2)
    open_view = vertex_visibility(_posed(buffers, rig, frame)[0], rig.faces, frame.camera)[rig.faces[buffers["faces"]]].all(axis=-1)
    # An outline's pixels show half of what stands behind.
    window = (2 * round(_RIM * frame.camera.height) + 1,) * 2
    sure = jax.lax.reduce_window(frame.mask, jnp.inf, jax.lax.min, window, (1, 1), "SAME")
    weight = jnp.where(inside & open_view, facing * (sure.at[row, column].get(mode="clip") > 0.9), 0.0)
    gain = 1.0 if frame.exposure is None else frame.exposure
    return weight, weight[:, None] * frame.image.at[row, column].get(mode="clip") / gain

  weights, colors = (jnp.sum(x, axis=0) for x in jax.lax.map(seen, frames))

  def per_region(x: Array) -> Array:
    return jax.ops.segment_sum(x, buffers["regions"], len(rig.region_names))

  overall = jnp.sum(colors, axis=0) / (jnp.sum(weights) + 1e-6)
  prior = (per_region(colors) + overall) / (per_region(weights)[:, None] + 1.0)
  start = (colors + 1e-2 * prior[buffers["regions"]]) / (weights[:, None] + 1e-2)

  def spread(_: Any, c: Array) -> Array:
    around = jnp.mean(c[buffers["neighbours"]], axis=1)
    return (colors + 1e-2 * around) / (weights[:, None] + 1e-2)

  mean = jax.lax.fori_loop(0, _SPREAD_STEPS, spread, start)
  gaussians = {**variables.params["gaussians"], "color": (mean - 0.5) / harmonics.CONSTANT}
  return variables.replace(params={**variables.params, "gaussians": gaussians})


# ---- bounds ----------------------------------------------------------------------------------------------------------------------


def _bounded(vector: Float[Array, "n 3"], limit: Float[Array, "n 1"] | float) -> Float[Array, "n 3"]:
  """The vector, shortened so that its length stays below `limit`; unchanged to second order near 0, smooth everywhere."""
  return vector / jnp.sqrt(1.0 + jnp.sum(vector * vector, axis=-1, keepdims=True) / limit**2)


def _soft_clip(x: Float[Array, "*b"], low: float, high: float) -> Float[Array, "*b"]:
  """x between the limits, with a gradient also beyond them, so that nothing sticks there; off by 1e-7 one unit inside."""
  sharpness = 16.0
  return low + (jax.nn.softplus(sharpness * (x - low)) - jax.nn.softplus(sharpness * (x - high))) / sharpness
