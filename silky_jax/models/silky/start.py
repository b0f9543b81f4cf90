"""Where an avatar starts: Gaussians on the texels of the rig, and what a few training frames tell of them."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from silky_jax.config import ConfigError, closest
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import PARTS, REGIONS, face_regions, vertex_mask
from silky_jax.gaussians.seeding import uv_sites
from silky_jax.geometry import camera as cameras
from silky_jax.geometry.mesh import barycentric_points, face_frames, face_pieces
from silky_jax.geometry.neighbours import nearest
from silky_jax.math import harmonics, safe
from silky_jax.math.rotation import matrix_from_quaternion, quaternion_from_matrix, quaternion_multiply
from silky_jax.models.silky import anatomy
from silky_jax.models.silky.model import SilkyConfig, condition_size, network_of, posed, surface_of
from silky_jax.nets.mlp import encode_positions
from silky_jax.render.mesh import vertex_visibility
from silky_jax.types import FlameRig, Frame, Subject, Variables

__all__ = ["init", "paint"]

_NEIGHBOURS = 4
_HAIR, _HAIR_HEIGHT = ("scalp",), 0.015  # metres
_RIM = 0.012  # of the picture's height: so far inside the mask a pixel has to lie to be painted from
_SPREAD_STEPS = 3000  # of diffusion; colour travels about a neighbour's distance times the square root of them
_EXPRESSION_FLOOR = 0.05  # coefficient units; a coefficient that never moved in training must not be blown up when it does


def init(config: SilkyConfig, key: jax.Array, rig: FlameRig, subject: Subject) -> Variables:
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
    "texels": jnp.asarray(sites.texels),
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
  faces, piece, texels, count = fixed["faces"], fixed.pop("piece"), fixed.pop("texels"), fixed["faces"].shape[0]
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
  if config.residual == "uv":
    buffers |= {"texels": texels, "atlas": _atlas(config.uv_size, texels, buffers["encoding"])}
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
    params["residual"] = network_of(config, condition_size(config, rig, subject)).init(key)
  return Variables(params=params, buffers=anatomy.begin(config, rig, points, vertices, buffers))


def _atlas(size: int, texels: Int[Array, "n"], encoding: Float[Array, "n d"]) -> Float[Array, "s s c"]:
  """What the U-Net looks at: the encoding where a Gaussian is, and whether there is one."""
  known = jnp.concatenate([encoding, jnp.ones_like(encoding[:, :1])], axis=1)
  return jnp.zeros((size * size, known.shape[1])).at[texels].set(known).reshape(size, size, -1)


def _across_the_surface(neighbours: Int[Array, "n k"], normals: Float[Array, "n 3"], piece: Int[Array, "n"]) -> Int[Array, "n k"]:
  """Neighbours in space that are neighbours on the surface; the others replaced by itself, which counts for nothing.

  Lips touch, a lid lies on its eyeball: near, but another surface, which faces the other way or belongs to another piece.
  """
  itself = jnp.arange(neighbours.shape[0], dtype=neighbours.dtype)[:, None]
  same_side = jnp.sum(normals[:, None, :] * normals[neighbours], axis=-1) > 0
  return jnp.where(same_side & (piece[:, None] == piece[neighbours]), neighbours, itself)


def paint(config: SilkyConfig, variables: Variables, rig: FlameRig, frames: Frame) -> Variables:
  """Start colours: the mean colour where a Gaussian's anchor is seen face on, inside the mask; elsewhere that of the seen surface near by.
  And anatomy: which labels a Gaussian is seen as, how far its group moves.

  Args:
    frames: a few training frames [t], with pictures.
  """
  buffers = variables.buffers
  points = _neutral(buffers, rig)
  seen = jax.lax.map(lambda frame: _seen(buffers, rig, frame, points), frames)
  weights, colors = jnp.sum(seen.weight, axis=0), jnp.sum(seen.weight[..., None] * seen.color, axis=0)

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
  painted = variables.replace(params={**variables.params, "gaussians": gaussians})
  votes = jnp.sum(jax.nn.one_hot(seen.part, len(PARTS)) * (seen.weight > 0)[..., None], axis=0)
  return anatomy.learn(config, painted, rig, points, seen.displacement, votes)


def _neutral(buffers: dict[str, Any], rig: FlameRig) -> Float[Array, "n 3"]:
  """The sites on the neutral head."""
  still = jnp.zeros_like(buffers["mean_expression"])
  vertices, _ = flame_vertices(rig, buffers["shape"], still, jnp.zeros((5, 3)), offset=buffers["vertex_offset"])
  return barycentric_points(vertices, rig.faces, buffers["faces"], buffers["barycentric"])


class _Seen(NamedTuple):
  """What one frame shows of every Gaussian."""

  weight: Float[Array, "n"]  # how well it is seen; 0: not at all
  color: Float[Array, "n 3"]  # under it, as the mean exposure would show it
  part: Int[Array, "n"]  # label under it
  displacement: Float[Array, "n 3"]  # of its anchor from the neutral head's, by face and jaw alone, metres


def _seen(buffers: dict[str, Any], rig: FlameRig, frame: Frame, points: Float[Array, "n 3"]) -> _Seen:
  # Hair stands off the scalp: in front of its anchors, near the hairline, there is skin.
  height = _HAIR_HEIGHT * jnp.asarray([name in _HAIR for name in rig.region_names])[buffers["regions"]][:, None]
  surface = surface_of(buffers, rig, frame)
  normals = matrix_from_quaternion(quaternion_multiply(surface.carried, buffers["axes"]))[:, :, 1]
  towards = safe.normalise(cameras.centre(frame.camera) - surface.anchors)
  pixels, depths = cameras.project(surface.anchors + height * normals, frame.camera)
  column, row = jnp.floor(pixels).astype(jnp.int32).T
  inside = (row >= 0) & (row < frame.camera.height) & (column >= 0) & (column < frame.camera.width) & (depths > 0)
  facing = jax.nn.relu(jnp.sum(normals * towards, axis=-1) - 0.2)
  open_view = vertex_visibility(posed(buffers, rig, frame)[0], rig.faces, frame.camera)[rig.faces[buffers["faces"]]].all(axis=-1)
  # An outline's pixels show half of what stands behind.
  window = (2 * round(_RIM * frame.camera.height) + 1,) * 2
  sure = jax.lax.reduce_window(frame.mask, jnp.inf, jax.lax.min, window, (1, 1), "SAME")
  under = lambda picture: picture.at[row, column].get(mode="clip")
  upright = frame.replace(pose=frame.pose.at[:2].set(0.0), translation=jnp.zeros(3))
  return _Seen(
    weight=jnp.where(inside & open_view, facing * (under(sure) > 0.9), 0.0),
    color=under(frame.image) / (1.0 if frame.exposure is None else frame.exposure),
    part=under(frame.parts).astype(jnp.int32),
    displacement=surface_of(buffers, rig, upright).anchors - points,
  )
