"""A made-up person: the open head with a face of its own, procedural skin, brows, lips, eyes, teeth, a shirt and a volume of hair.

Everything is drawn from one seed. Textures are baked once into the rig's UV atlas from fields over the rest pose, so they have no seams.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.spatial import KDTree

from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.geometry import camera as cameras
from silky_jax.geometry.mesh import barycentric_points, mesh_edges, vertex_normals
from silky_jax.geometry.uv import rasterize_uv
from silky_jax.render.mesh import vertex_visibility
from silky_jax.studio.noise3d import fractal, solid
from silky_jax.types import FlameRig

__all__ = ["WRINKLES", "Person", "make_person"]

# A wrinkle's drivers (ARKit units, the mean of which opens it) by name, in the order of `Person.wrinkles`.
WRINKLES = {
  "forehead": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
  "glabella": ("browDownLeft", "browDownRight"),
  "left_fold": ("mouthSmileLeft", "mouthUpperUpLeft", "cheekSquintLeft"),
  "right_fold": ("mouthSmileRight", "mouthUpperUpRight", "cheekSquintRight"),
  "crows_feet": ("cheekSquintLeft", "cheekSquintRight", "mouthSmileLeft"),
}
_SKINS = np.array([[0.86, 0.67, 0.57], [0.78, 0.57, 0.45], [0.62, 0.43, 0.33], [0.44, 0.30, 0.23]])
_HAIRS = np.array([[0.13, 0.09, 0.07], [0.30, 0.19, 0.11], [0.50, 0.36, 0.20], [0.08, 0.07, 0.07]])
_IRISES = np.array([[0.25, 0.38, 0.50], [0.32, 0.22, 0.12], [0.30, 0.38, 0.24]])
_SHIRTS = np.array([[0.22, 0.33, 0.50], [0.62, 0.62, 0.64], [0.45, 0.16, 0.17], [0.20, 0.30, 0.24]])
_TEETH, _TONGUE, _GUM = np.array([0.88, 0.84, 0.75]), np.array([0.72, 0.36, 0.36]), np.array([0.45, 0.16, 0.15])


@dataclasses.dataclass(frozen=True)
class Person:
  """Geometry beyond the rig, and textures on its atlas. Colours are display-coded, 0..1."""

  rig: FlameRig
  shape: Float[np.ndarray, "k"]
  offset: Float[np.ndarray, "v 3"]  # metres: what no identity coefficient says
  hair: Float[np.ndarray, "v"]  # metres that hair stands off
  cheeks: Float[np.ndarray, "v"]  # 0..1: how much flesh lags behind the skull
  throat: Float[np.ndarray, "v"]  # 0..1: what moves when swallowing
  openness: Float[np.ndarray, "v"]  # 0..1: share of the sky that the rest pose leaves free
  albedo: Float[np.ndarray, "s s 3"]
  gloss: Float[np.ndarray, "s s"]
  strands: Float[np.ndarray, "s s"]  # -1..1, hair
  cloth: Float[np.ndarray, "s s"]  # 0..1, the shirt
  wrinkles: Float[np.ndarray, "w s s 3"]  # what a wrinkle adds to the rest normal
  iris: Float[np.ndarray, "3"]


class _Texels(NamedTuple):
  """The atlas's covered texels: where they are on the rest head."""

  covered: np.ndarray  # [s, s] bool
  faces: Int[np.ndarray, "n"]
  barycentric: Float[np.ndarray, "n 3"]
  points: Float[np.ndarray, "n 3"]
  regions: np.ndarray  # [n] region names

  def of(self, vertices: Float[np.ndarray, "v *c"], rig: FlameRig) -> Float[np.ndarray, "n *c"]:
    """A value per vertex, at the texels."""
    flat = np.asarray(vertices, np.float64).reshape(len(vertices), -1)
    out = np.asarray(barycentric_points(jnp.asarray(flat, jnp.float32), rig.faces, jnp.asarray(self.faces), jnp.asarray(self.barycentric)))
    return out.reshape(len(self.faces), *np.shape(vertices)[1:])


def make_person(seed: int, *, texture_size: int = 1024) -> Person:
  """Draw a person.

  Args:
    seed: of everything about them.
    texture_size: texels per side.

  Raises:
    ValueError: a texture smaller than 64.
  """
  if texture_size < 64:
    raise ValueError(f"texture_size: expected at least 64, got {texture_size}")
  rng = np.random.default_rng([seed, 0])
  rig = open_head.load()[0]
  shape = (0.8 * rng.normal(size=rig.shape_basis.shape[-1])).clip(-2, 2).astype(np.float32)
  template = np.asarray(rig.template)
  smooth = _smoother(rig)
  offset = _own_features(template, rig, smooth, rng)
  rest = np.asarray(
    flame_vertices(
      rig, jnp.asarray(shape), jnp.zeros(rig.expression_basis.shape[-1]), jnp.zeros((5, 3)), offset=jnp.asarray(offset, jnp.float32)
    )[0]
  )
  scalp = smooth(_in(rig, "scalp"), 2)
  hair = _hair(template, scalp, smooth, rng)
  texels = _texels(rig, rest, texture_size)
  albedo, gloss, strands, cloth = _paint(rig, texels, template, rng, seed)
  fields = lambda values, channels: _spread(texels, values, texture_size, channels)
  cheeks = np.exp(-0.5 * (np.linalg.norm(np.abs(template) - np.array([0.045, 0.035, 0.065]), axis=1) / 0.022) ** 2)
  cheeks *= ~np.isin(_names(rig), ("upper_teeth", "lower_teeth", "tongue", "mouth_interior", "eye_socket"))
  throat = np.exp(-0.5 * (np.linalg.norm((template - np.array([0.0, -0.105, 0.045])) / np.array([0.012, 0.014, 0.02]), axis=1)) ** 2)
  throat *= _in(rig, "neck")
  floats = lambda x: np.ascontiguousarray(x, np.float32)
  return Person(
    rig=rig,
    shape=shape,
    offset=floats(offset),
    hair=floats(hair),
    cheeks=floats(cheeks),
    throat=floats(throat),
    openness=floats(_openness(rig, rest, smooth)),
    albedo=floats(fields(albedo, 3)),
    gloss=floats(fields(gloss, 1)[..., 0]),
    strands=floats(fields(strands, 1)[..., 0]),
    cloth=floats(fields(cloth, 1)[..., 0]),
    wrinkles=floats(np.stack([fields(w, 3) for w in _wrinkles(texels, seed)])),
    iris=floats(_IRISES[rng.integers(len(_IRISES))]),
  )


# ---- shape -----------------------------------------------------------------------------------------------------------------------


def _names(rig: FlameRig) -> np.ndarray:
  return np.asarray(rig.region_names)[np.asarray(rig.regions)]


def _in(rig: FlameRig, *names: str) -> Float[np.ndarray, "v"]:
  return np.isin(_names(rig), names).astype(np.float64)


def _smoother(rig: FlameRig):
  """A function (values per vertex, rounds) -> the same, averaged over neighbours."""
  edges = mesh_edges(np.asarray(rig.faces))
  count = len(rig.template)
  both = np.concatenate([edges, edges[:, ::-1], np.stack([np.arange(count)] * 2, axis=1)])
  matrix = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
  weights = np.asarray(matrix.sum(axis=1))[:, 0]

  def smooth(values: np.ndarray, rounds: int) -> np.ndarray:
    for _ in range(rounds):
      values = (matrix @ values) / (weights if values.ndim == 1 else weights[:, None])
    return values

  return smooth


def _own_features(template, rig: FlameRig, smooth, rng: np.random.Generator) -> Float[np.ndarray, "v 3"]:
  """A smooth displacement of about a millimetre that no identity coefficient says: nobody's face is symmetric."""
  seeds = rng.integers(1 << 30, size=3)
  field = np.stack([fractal(template, 0.05, int(s), 2) for s in seeds], axis=1) * 1.2e-3
  still = _in(
    rig, "left_eyeball", "right_eyeball", "eye_socket", "left_eye_region", "right_eye_region", "upper_teeth", "lower_teeth", "tongue"
  )
  still = np.maximum(still, _in(rig, "mouth_interior", "upper_lip", "lower_lip", "torso"))
  return field * (1 - smooth(still, 6))[:, None]


def _hair(template, scalp, smooth, rng: np.random.Generator) -> Float[np.ndarray, "v"]:
  """How far hair stands off: nothing at the hairline, most on top, with tufts."""
  top = np.clip((template[:, 1] - 0.02) / 0.09, 0, 1)
  length = rng.uniform(0.012, 0.022) * (0.35 + 0.65 * top)
  tufts = 1 + 0.25 * fractal(template, 0.03, int(rng.integers(1 << 30)), 2)
  return smooth(np.clip(2 * scalp - 0.7, 0, 1), 1) * length * tufts


def _openness(rig: FlameRig, rest, smooth, directions: int = 48) -> Float[np.ndarray, "v"]:
  """Share of a sky of directions from which a vertex is seen, weighted by the cosine: dark where the mouth and the sockets are."""
  k = np.arange(directions) + 0.5
  height, angle = 1 - 2 * k / directions, np.pi * (1 + 5**0.5) * k
  sky = np.stack([np.sqrt(1 - height**2) * np.sin(angle), height, np.sqrt(1 - height**2) * np.cos(angle)], axis=1)
  normals = np.asarray(vertex_normals(jnp.asarray(rest), rig.faces))
  seen, total = np.zeros(len(rest)), np.zeros(len(rest))
  middle = jnp.asarray([0.0, 0.0, 0.0])
  for direction in sky:
    up = jnp.asarray([0.0, 1.0, 0.0] if abs(direction[1]) < 0.95 else [0.0, 0.0, 1.0])
    pose = cameras.look_at(jnp.asarray(3.0 * direction, jnp.float32), middle, up)
    camera = cameras.from_focal(pose, 1100.0, width=256, height=256)
    cosine = np.maximum(normals @ direction, 0)
    seen += cosine * np.asarray(vertex_visibility(jnp.asarray(rest), rig.faces, camera, tolerance=4e-3))
    total += cosine
  open_ = smooth(seen / np.maximum(total, 1e-6), 2)
  # Teeth are wet and catch what light there is.
  return np.where(np.isin(_names(rig), ("upper_teeth", "lower_teeth")), np.maximum(open_, 0.55), open_)


# ---- textures --------------------------------------------------------------------------------------------------------------------


def _texels(rig: FlameRig, rest, size: int) -> _Texels:
  atlas = rasterize_uv(np.asarray(rig.uv), np.asarray(rig.uv_faces), size)
  faces, barycentric = atlas.face_ids[atlas.covered], atlas.barycentric[atlas.covered]
  points = np.asarray(barycentric_points(jnp.asarray(rest), rig.faces, jnp.asarray(faces), jnp.asarray(barycentric)))
  corner = np.asarray(rig.faces)[faces][np.arange(len(faces)), barycentric.argmax(axis=1)]
  return _Texels(atlas.covered, faces, barycentric, points, _names(rig)[corner])


def _spread(texels: _Texels, values: np.ndarray, size: int, channels: int) -> np.ndarray:
  """Values at the covered texels as a map; uncovered ones take the nearest covered one, so that lookups across a seam stay clean."""
  out = np.zeros((size, size, channels))
  out[texels.covered] = values.reshape(len(values), channels)
  near = np.asarray(distance_transform_edt(~texels.covered, return_distances=False, return_indices=True))
  return out[near[0], near[1]]


def _paint(rig: FlameRig, texels: _Texels, template, rng: np.random.Generator, seed: int):
  """Albedo [n, 3], gloss [n], hair strands [n] and cloth [n] at the texels."""
  points, home = texels.points, texels.of(template, rig)  # on this head, and on the average one: features have their places there
  skin = _SKINS[rng.integers(len(_SKINS))] + rng.normal(0, 0.02, 3)
  hair = _HAIRS[rng.integers(len(_HAIRS))]
  shirt = _SHIRTS[rng.integers(len(_SHIRTS))]
  region = lambda *names, rounds=2: texels.of(_smoother(rig)(_in(rig, *names), rounds), rig)

  color = skin + 0.030 * fractal(points, 0.03, seed + 1)[:, None] + 0.020 * fractal(points, 0.002, seed + 2, 3)[:, None]
  color = color + np.array([0.05, -0.02, -0.02]) * 0.5 * fractal(points, 0.02, seed + 3)[:, None]
  blush = _bumps(home, [([0.045, -0.02, 0.075], 0.018), ([-0.045, -0.02, 0.075], 0.018), ([0, -0.022, 0.115], 0.012)]) + 0.8 * region(
    "left_ear", "right_ear"
  )
  color = color + blush[:, None] * np.array([0.03, -0.05, -0.04])
  beard = rng.uniform(0, 0.8) * np.clip(
    1.4 * _bumps(home, [([0, -0.075, 0.085], 0.03), ([0.04, -0.06, 0.06], 0.028), ([-0.04, -0.06, 0.06], 0.028)]), 0, 1
  )
  color = color * (1 - beard[:, None] * (0.16 + 0.20 * (solid(points, 0.0011, seed + 4) > 0.15))[:, None] * np.array([1.0, 0.85, 0.75]))
  moles = solid(points, 0.009, seed + 5) > 0.93
  color = np.where(moles[:, None], color * 0.6, color)
  gloss = (
    np.full(len(points), 0.35)
    + 0.25 * _bumps(home, [([0, 0.06, 0.1], 0.03), ([0, -0.01, 0.115], 0.015)])
    + 0.1 * fractal(points, 0.004, seed + 6, 2)
  )

  lips = np.clip(1.6 * region("upper_lip", "lower_lip", rounds=1) - 0.2, 0, 1)[:, None]
  fine = (1 + 0.10 * solid(points * np.array([1, 0.25, 0.25]), 0.0012, seed + 7))[:, None]
  color = color * (1 - lips) + lips * (skin * np.array([0.88, 0.58, 0.58])) * fine
  gloss = gloss + 0.3 * lips[:, 0]

  # Strands run from the crown down: noise drawn out along that way, and bent.
  bent = points + 0.004 * np.stack([solid(points, 0.02, seed + k) for k in (30, 31, 32)], axis=1)
  way = np.stack(
    [np.arctan2(bent[:, 0], bent[:, 2] + 0.03) * 0.08, np.linalg.norm(bent - [0, 0.13, -0.03], axis=1) * 0.12, 0 * bent[:, 0]], axis=1
  )
  strand = 0.7 * solid(way, 0.0012, seed + 8) + 0.3 * fractal(points, 0.012, seed + 9, 2)
  brow = np.clip(1.3 * _brows(rig, template, home) + 0.25 * solid(points * np.array([0.3, 1, 1]), 0.0009, seed + 10) - 0.2, 0, 1)[:, None]
  color = color * (1 - 0.85 * brow) + 0.85 * brow * hair * 1.1
  lash = _lashes(rig, template, home)[:, None]
  color = color * (1 - 0.8 * lash) + 0.8 * lash * hair * 0.6
  scalp = np.clip(2.2 * region("scalp", rounds=1) - 0.8 + 0.35 * fractal(points, 0.004, seed + 11, 2), 0, 1)[:, None]
  color = color * (1 - scalp) + scalp * hair * (1 + 0.35 * strand[:, None])
  gloss = gloss * (1 - 0.6 * scalp[:, 0])
  strand = np.where(scalp[:, 0] > 0.8, strand, -1.0)  # no strand grows from bare skin

  weave = 1 + 0.12 * solid(points * np.array([1, 0.2, 1]), 0.002, seed + 14) + 0.06 * fractal(points, 0.02, seed + 12, 2)
  cloth = np.clip(6 * (region("torso", rounds=3) - 0.5) + 0.5, 0, 1)
  color = color * (1 - cloth[:, None]) + cloth[:, None] * shirt * weave[:, None]
  gloss = gloss * (1 - 0.9 * cloth)
  special = {
    "upper_teeth": (_TEETH * _between_teeth(home)[:, None], 0.7),
    "lower_teeth": (_TEETH * 0.95 * _between_teeth(home)[:, None], 0.7),
    "tongue": (_TONGUE * (1 + 0.15 * solid(points, 0.0015, seed + 13))[:, None], 0.5),
    "mouth_interior": (np.broadcast_to(_GUM, color.shape), 0.4),
    "eye_socket": (skin * 0.6 + np.zeros_like(color), 0.2),
  }
  for name, (paint, shine) in special.items():
    inside = texels.regions == name
    color, gloss = np.where(inside[:, None], paint, color), np.where(inside, shine, gloss)
  return np.clip(color, 0.01, 0.98), np.clip(gloss, 0, 1), strand, cloth


def _bumps(points, bumps) -> Float[np.ndarray, "n"]:
  return np.sum([np.exp(-0.5 * (np.linalg.norm(points - np.array(middle), axis=1) / size) ** 2) for middle, size in bumps], axis=0)


def _brows(rig: FlameRig, template, home) -> Float[np.ndarray, "n"]:
  """Along the middle line of each brow's vertices, thinner towards the temple."""
  out = np.zeros(len(home))
  for side in ("left_brow", "right_brow"):
    line = template[_in(rig, side) > 0]
    line = line[np.argsort(np.abs(line[:, 0]))]
    along = np.linspace(0, 1, 60)
    order = np.linspace(0, 1, len(line))
    fit = [np.polyfit(order, line[:, k], 2) for k in range(3)]
    curve = np.stack([np.polyval(f, along) for f in fit], axis=1)
    distance, nearest = KDTree(curve).query(home)
    width = 0.0042 * (1 - 0.55 * along[nearest]) * np.clip((1.02 - along[nearest]) / 0.12, 0.25, 1)
    out = np.maximum(out, np.exp(-0.5 * (distance / width) ** 2))
  return out


def _lashes(rig: FlameRig, template, home) -> Float[np.ndarray, "n"]:
  """A dark rim where the lids end."""
  names = _names(rig)
  edges = mesh_edges(np.asarray(rig.faces))
  lid = np.isin(names, ("left_eye_region", "right_eye_region"))
  rim = np.unique(edges[(lid[edges].sum(axis=1) == 1) & (names[edges] == "eye_socket").any(axis=1)])
  rim = rim[lid[rim]]
  distance, _ = KDTree(template[rim]).query(home)
  return np.exp(-0.5 * (distance / 0.0009) ** 2)


def _between_teeth(home) -> Float[np.ndarray, "n"]:
  """Darker between teeth, which stand along an arc."""
  angle = np.arctan2(home[:, 0], home[:, 2] - 0.05)
  return 1 - 0.35 * np.exp(-0.5 * ((np.abs((angle / 0.19) % 1 - 0.5) - 0.5) / 0.07) ** 2)


def _wrinkles(texels: _Texels, seed: int) -> list[Float[np.ndarray, "n 3"]]:
  """Perturbation of the normal by each wrinkle, on the rest head, in its axes."""
  p = texels.points
  wobble = 0.0025 * fractal(p, 0.03, seed + 20, 2)
  up = np.array([0.0, 1.0, 0.0])
  skin = np.isin(texels.regions, ("face", "forehead", "nose", "left_eye_region", "right_eye_region", "left_brow", "right_brow"))
  lines = lambda coordinate, period: np.cos(2 * np.pi * coordinate / period)
  forehead = _bumps(p, [([0, 0.065, 0.1], 0.022), ([0.025, 0.062, 0.095], 0.02), ([-0.025, 0.062, 0.095], 0.02)]).clip(0, 1)
  out = [0.45 * (forehead * lines(p[:, 1] + wobble, 0.0085))[:, None] * up]
  glabella = _bumps(p, [([0, 0.042, 0.105], 0.010)])
  out.append(0.5 * (glabella * lines(p[:, 0] + wobble, 0.009))[:, None] * np.array([1.0, 0, 0]))
  for side in (1.0, -1.0):
    # From the nose's wing to the corner of the mouth and a little below.
    curve = np.array([[0.020, -0.020, 0.1], [0.030, -0.035, 0.093], [0.034, -0.055, 0.086]]) * np.array([side, 1, 1])
    dense = np.concatenate([np.linspace(curve[k], curve[k + 1], 20) for k in range(2)])
    distance, nearest = KDTree(dense).query(p)
    across = p[:, 0] - dense[nearest, 0]
    fold = np.exp(-0.5 * (distance / 0.004) ** 2) * np.sin(np.clip(side * across / 0.004, -np.pi / 2, np.pi / 2))
    out.append(0.7 * fold[:, None] * np.array([-side, 0.4, 0.0]))
  feet = _bumps(p, [([0.058, 0.022, 0.07], 0.010), ([-0.058, 0.022, 0.07], 0.010)])
  ray = np.arctan2(p[:, 1] - 0.022, np.abs(p[:, 0]) - 0.045)
  out.append(0.45 * (feet * lines(ray + 40 * wobble, 0.45))[:, None] * up)
  return [w * skin[:, None] for w in out]
