"""Pictures of a studio person: z-buffer, textures, soft light with highlights, wrinkles, shells of hair; averaged down from 3x3 samples.

The light stands in the room, so a turned head is lit from another side. No renderer of splats is involved: what comes out is truth
that no family of avatars can reproduce exactly.
"""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import PARTS, face_parts
from silky_jax.geometry.camera import centre, rescale
from silky_jax.geometry.mesh import vertex_normals
from silky_jax.math import safe
from silky_jax.math.precision import exact
from silky_jax.render.mesh import rasterize_mesh
from silky_jax.studio.person import Person
from silky_jax.types import Camera, FlameRig

__all__ = ["Look", "Shot", "make_look", "shoot"]

SUPERSAMPLING = 3
_SHELLS = 5
_KEY, _FILL = np.array([0.45, 0.55, 0.70]), np.array([-0.7, 0.1, 0.7])  # directions towards the lamps
_KEY_COLOR, _FILL_COLOR = np.array([0.62, 0.59, 0.54]), np.array([0.10, 0.12, 0.15])
_SKY, _GROUND = np.array([0.52, 0.54, 0.58]), np.array([0.30, 0.27, 0.25])
_WRAP = 0.35  # soft light reaches past the terminator
_PUPIL, _IRIS = np.radians([12.0, 30.0])  # half angles, seen from the eyeball's centre
_HAIR, _CLOTH, _NECK, _LEFT_EYE, _RIGHT_EYE = (PARTS.index(name) for name in ("hair", "cloth", "neck", "left_eye", "right_eye"))


class Look(flax.struct.PyTreeNode):
  """A person as device arrays."""

  rest: Array  # [v, 3] with identity, metres
  hair: Array  # [v] metres
  openness: Array  # [v]
  albedo: Array  # [s, s, 3]
  gloss: Array  # [s, s]
  strands: Array  # [s, s]
  cloth: Array  # [s, s]
  wrinkles: Array  # [w, s, s, 3]
  iris: Array  # [3]
  eyes: Array  # [2, 3] centres of the eyeballs at rest, left, right
  hair_faces: Array  # [m] ids of the faces that carry hair
  parts: Array  # [f] labels


class Shot(NamedTuple):
  """One picture."""

  image: Float[Array, "h w 3"]  # 0..1, before a background: premultiplied by alpha
  alpha: Float[Array, "h w"]  # person
  mask: Float[Array, "h w"]  # head and neck
  parts: Int[Array, "h w"]


def make_look(person: Person) -> Look:
  """Put a person's arrays on the device."""
  rig = person.rig
  zero = jnp.zeros(rig.expression_basis.shape[-1])
  rest = np.asarray(flame_vertices(rig, jnp.asarray(person.shape), zero, jnp.zeros((5, 3)), offset=jnp.asarray(person.offset))[0])
  names = np.asarray(rig.region_names)[np.asarray(rig.regions)]
  faces = np.asarray(rig.faces)
  device = lambda x: jnp.asarray(x, jnp.float32)
  return Look(
    rest=device(rest),
    hair=device(person.hair),
    openness=device(person.openness),
    albedo=device(person.albedo),
    gloss=device(person.gloss),
    strands=device(person.strands),
    cloth=device(person.cloth),
    wrinkles=device(person.wrinkles),
    iris=device(person.iris),
    eyes=device(np.stack([rest[names == f"{side}_eyeball"].mean(axis=0) for side in ("left", "right")])),
    hair_faces=jnp.asarray(np.flatnonzero((person.hair[faces] > 1e-3).any(axis=1)), jnp.int32),
    parts=jnp.asarray(face_parts(rig), jnp.int32),
  )


@functools.partial(jax.jit, static_argnames=("supersampling",))
@exact
def shoot(
  look: Look,
  rig: FlameRig,
  vertices: Float[Array, "v 3"],
  head: Float[Array, "3 3"],
  creases: Float[Array, "w"],
  camera: Camera,
  *,
  supersampling: int = SUPERSAMPLING,
) -> Shot:
  """Photograph one moment. Not differentiable.

  Args:
    look: the person.
    rig: the rig.
    vertices: posed, world, metres.
    head: rotation of the skull.
    creases: 0..1, how far each wrinkle is open.
    camera: one camera.
    supersampling: samples per pixel and axis.

  Returns:
    Shot at the camera's size.
  """
  fine = rescale(camera, width=supersampling * camera.width, height=supersampling * camera.height)
  normals = vertex_normals(vertices, rig.faces)
  faces, weights, layer = _visible(look, rig, vertices, normals, fine)
  hit = faces >= 0
  face = jnp.maximum(faces, 0)
  uv = jnp.einsum("hwk,hwkc->hwc", weights, rig.uv[rig.uv_faces[face]])
  corners = rig.faces[face]
  mix = lambda values: jnp.einsum("hwk,hwkc->hwc", weights, values[corners])
  packed = mix(jnp.concatenate([vertices, normals, look.rest, look.openness[:, None]], axis=1))
  point, normal, rest, openness = packed[..., :3], packed[..., 3:6], packed[..., 6:9], packed[..., 9:]
  bump = sum((creases[k] * _lookup(w, uv) for k, w in enumerate(look.wrinkles)), jnp.zeros_like(normal))
  normal = safe.normalise(normal + bump @ head.T)
  view = safe.normalise(centre(fine) - point)
  bare = jnp.where(look.parts[face] == _CLOTH, _NECK, look.parts[face])
  label = jnp.where(layer > 0, _HAIR, jnp.where(_lookup(look.cloth[..., None], uv)[..., 0] > 0.5, _CLOTH, bare))
  albedo, gloss = _lookup(look.albedo, uv), _lookup(look.gloss[..., None], uv)
  albedo, gloss = _eyes(look, rest, label, albedo, gloss)
  depth_of_hair = jnp.where(layer > 0, 0.45 + 0.75 * layer / _SHELLS, 1.0)[..., None]
  color = _light(albedo * depth_of_hair, gloss, normal, view, jnp.where(layer[..., None] > 0, 1.0, openness), label)
  person = hit.astype(color.dtype)
  head_and_neck = person * (label != _CLOTH)
  pool = lambda x: x.reshape(camera.height, supersampling, camera.width, supersampling, *x.shape[2:]).mean(axis=(1, 3))
  middle = supersampling // 2
  parts = jnp.where(hit, label, 0)[middle::supersampling, middle::supersampling]
  return Shot(pool(jnp.clip(color, 0, 1) * person[..., None]), pool(person), pool(head_and_neck), parts.astype(jnp.uint8))


def _visible(look: Look, rig: FlameRig, vertices, normals, camera: Camera) -> tuple[Array, Array, Array]:
  """Face, weights and hair shell (0: the skin) in front at every sample."""
  faces, weights, depth = rasterize_mesh(vertices, rig.faces, camera)
  layer = jnp.zeros_like(faces)
  hairy = rig.faces[look.hair_faces]
  for shell in range(1, _SHELLS + 1):
    height = shell / _SHELLS
    raised = vertices + normals * (look.hair * height)[:, None]
    found, where, distance = rasterize_mesh(raised, hairy, camera)
    ids = look.hair_faces[jnp.maximum(found, 0)]
    uv = jnp.einsum("hwk,hwkc->hwc", where, rig.uv[rig.uv_faces[ids]])
    long = jnp.einsum("hwk,hwk->hw", where, look.hair[rig.faces[ids]])
    # Strands end at different heights: few reach the outermost shell.
    strand = _nearest(look.strands, uv)
    grown = (strand > -0.7 + 1.1 * height**2) & (long > 1.5e-3 + 1.5e-3 * (1.0 - strand))
    nearer = (found >= 0) & grown & ((faces < 0) | (distance < depth))
    faces, layer, depth = jnp.where(nearer, ids, faces), jnp.where(nearer, shell, layer), jnp.where(nearer, distance, depth)
    weights = jnp.where(nearer[..., None], where, weights)
  return faces, weights, layer


def _texel(size: int, uv: Array) -> Array:
  """Row and column of a point of the atlas, texel centres at integers."""
  return jnp.stack([(1 - uv[..., 1]) * size - 0.5, uv[..., 0] * size - 0.5])


def _nearest(texture: Float[Array, "s s"], uv: Array) -> Array:
  row, column = jnp.clip(jnp.round(_texel(len(texture), uv)).astype(jnp.int32), 0, len(texture) - 1)
  return texture[row, column]


def _lookup(texture: Float[Array, "s s c"], uv: Array) -> Array:
  """Bilinear."""
  at = jnp.clip(_texel(len(texture), uv), 0, len(texture) - 1.001)
  low = jnp.floor(at).astype(jnp.int32)
  t = (at - low)[..., None]
  pick = lambda i, j: texture[low[0] + i, low[1] + j]
  return (1 - t[0]) * ((1 - t[1]) * pick(0, 0) + t[1] * pick(0, 1)) + t[0] * ((1 - t[1]) * pick(1, 0) + t[1] * pick(1, 1))


def _eyes(look: Look, rest: Array, label: Array, albedo: Array, gloss: Array) -> tuple[Array, Array]:
  """Pupil, iris and white by the angle from the eye's axis at rest."""
  left = (label == _LEFT_EYE)[..., None]
  eye = left | (label == _RIGHT_EYE)[..., None]
  direction = safe.normalise(rest - jnp.where(left, look.eyes[0], look.eyes[1]))
  angle = jnp.arccos(jnp.clip(direction[..., 2:], -1, 1))
  around = jnp.arctan2(direction[..., 1:2], direction[..., 0:1])
  step = lambda at, width: jax.nn.sigmoid((angle - at) / width)
  fibres = 1 + 0.25 * jnp.sin(23 * around) * jnp.sin(41 * around + 5 * angle / _IRIS)
  iris = look.iris * fibres * (1 - 0.55 * jnp.exp(-(((angle - _IRIS) / 0.05) ** 2)))
  white = jnp.asarray([0.86, 0.83, 0.81]) - jnp.asarray([0.0, 0.10, 0.12]) * jnp.clip((angle - 0.9) / 0.6, 0, 1)
  color = iris * (1 - step(_IRIS, 0.02)) + white * step(_IRIS, 0.02)
  color = 0.03 + (color - 0.03) * step(_PUPIL, 0.02)
  return jnp.where(eye, color, albedo), jnp.where(eye, 1.0, gloss)


def _light(albedo: Array, gloss: Array, normal: Array, view: Array, openness: Array, label: Array) -> Array:
  """Wrapped diffuse light of two lamps and a sky, Blinn's highlights."""
  key, fill = (jnp.asarray(v / np.linalg.norm(v), albedo.dtype) for v in (_KEY, _FILL))
  wrapped = lambda lamp: jnp.clip((normal @ lamp + _WRAP) / (1 + _WRAP), 0, 1)[..., None] ** 1.2
  sky = 0.5 + 0.5 * normal[..., 1:2]
  shade = 0.25 + 0.75 * jnp.clip(1.15 * openness, 0, 1)
  diffuse = shade * (_KEY_COLOR * wrapped(key) + _FILL_COLOR * wrapped(fill) + 0.85 * (_SKY * sky + _GROUND * (1 - sky)))
  half = safe.normalise(view + key)
  eye = ((label == _LEFT_EYE) | (label == _RIGHT_EYE))[..., None]
  towards = jnp.clip(jnp.sum(normal * half, axis=-1, keepdims=True), 0, 1)
  highlight = jnp.where(eye, 0.9 * towards**180, 0.16 * towards**18 + 0.10 * towards**55)
  return albedo * diffuse + gloss * highlight * shade
