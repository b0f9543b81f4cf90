"""A small FLAME-shaped rig from a seed: an egg with eyes, for tests, notebooks and benches. No likeness to anyone."""

import jax.numpy as jnp
import numpy as np

from silky_jax.types import FlameRig, LandmarkEmbedding

__all__ = ["synthetic_rig"]

_RADII = np.array([0.075, 0.115, 0.09])  # metres, half extents of the egg
_EYE_RADIUS = 0.013
_EYES = np.array([[0.03, 0.02, 0.072], [-0.03, 0.02, 0.072]])
_JOINTS = np.array([[0, -0.11, -0.02], [0, -0.07, -0.02], [0, -0.01, 0.0], *_EYES])
_NAMES = (
  "face",
  "scalp",
  "neck",
  "torso",
  "upper_lip",
  "lower_lip",
  "left_eye_region",
  "right_eye_region",
  "left_eyeball",
  "right_eyeball",
)
_SKIN_HEIGHT = 0.85  # share of the texture that the egg takes; the eyes lie below it


def _sphere(rows: int, columns: int, bottom: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Latitude-longitude sphere with one pole: unit vertices, faces, texture in the unit square, texture faces.

  The seam lies at the back (-z); the last row is the open edge at the polar angle `bottom`.
  """
  polar = np.linspace(0, bottom, rows + 1)[1:]
  around = -np.pi + 2 * np.pi * np.arange(columns) / columns
  ring = np.stack([np.sin(around), np.zeros(columns), np.cos(around)], axis=1)
  vertices = [np.array([[0.0, 1.0, 0.0]])]
  vertices += [np.sin(p) * ring + np.array([0, np.cos(p), 0]) for p in polar]
  faces, corners = [], []
  texture = np.array([[(2 * c + 1) / (2 * columns), 1.0] for c in range(columns)])  # one pole corner per column
  grid = np.array([[c / columns, 1 - (r + 1) / rows] for r in range(rows) for c in range(columns + 1)])

  def vertex(row: int, column: int) -> int:
    return 1 + row * columns + column % columns

  def corner(row: int, column: int) -> int:
    return columns + row * (columns + 1) + column

  for c in range(columns):
    faces.append([0, vertex(0, c), vertex(0, c + 1)])
    corners.append([c, corner(0, c), corner(0, c + 1)])
    for r in range(rows - 1):
      a, b = (r, c), (r, c + 1)
      d, e = (r + 1, c), (r + 1, c + 1)
      faces += [[vertex(*a), vertex(*d), vertex(*e)], [vertex(*a), vertex(*e), vertex(*b)]]
      corners += [[corner(*a), corner(*d), corner(*e)], [corner(*a), corner(*e), corner(*b)]]
  return np.concatenate(vertices), np.array(faces), np.concatenate([texture, grid]), np.array(corners)


def _label(skin: np.ndarray, count: int) -> np.ndarray:
  """Region name per vertex, the egg first and then the two eyes."""
  x, y, z = skin.T
  names = np.full(len(skin), "face", dtype="U20")
  names[(y > 0.06) | (z < -0.02)] = "scalp"
  names[y < -0.075] = "neck"
  names[y < -0.1] = "torso"
  mouth = (z > 0) & (np.abs(x) < 0.03)
  names[mouth & (y > -0.05) & (y <= -0.035)] = "upper_lip"
  names[mouth & (y > -0.067) & (y <= -0.05)] = "lower_lip"
  for side, eye in zip(("left", "right"), _EYES, strict=True):
    names[(z > 0) & (np.linalg.norm(skin[:, :2] - eye[:2], axis=1) < 0.024)] = f"{side}_eye_region"
  return np.concatenate([names, np.repeat(["left_eyeball", "right_eyeball"], count)])


def _bumps(generator: np.random.Generator, vertices: np.ndarray, count: int, width: float, size: float) -> np.ndarray:
  """[v, 3, count] smooth displacements, each a bell around a random vertex in a random direction."""
  centres = vertices[generator.integers(len(vertices), size=count)]
  directions = generator.normal(size=(count, 3))
  directions *= size / np.linalg.norm(directions, axis=1, keepdims=True)
  distance = np.linalg.norm(vertices[:, None] - centres, axis=-1)
  return np.einsum("vk,kc->vck", np.exp(-((distance / width) ** 2) / 2), directions)


def _skinning(skin: np.ndarray, count: int) -> np.ndarray:
  """[v, 5] weights: torso below, jaw at the lower front, head elsewhere; eyes on their joints."""
  head = np.clip((skin[:, 1] + 0.11) / 0.05, 0, 1)
  jaw = np.clip((-0.04 - skin[:, 1]) / 0.02, 0, 1) * np.clip(skin[:, 2] / 0.05, 0, 1) * head
  zero = np.zeros_like(head)
  weights = [np.stack([1 - head, head - jaw, jaw, zero, zero], axis=1)]
  weights += [np.tile(np.eye(5)[joint], (count, 1)) for joint in (3, 4)]
  return np.concatenate(weights)


def _regressor(vertices: np.ndarray, balls: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """[5, v] smallest weights that give the joints and sum to 1; eyes are the means of their balls."""
  system = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1).T
  wanted = np.concatenate([_JOINTS, np.ones((5, 1))], axis=1)
  regressor = wanted @ np.linalg.pinv(system).T
  for joint, ball in zip((3, 4), balls, strict=True):
    regressor[joint] = ball / ball.sum()
  return regressor


def _ibug(centres: np.ndarray) -> LandmarkEmbedding:
  """The 68 iBUG points where the egg has its features: each on the front triangle whose centre is nearest, seen from the front."""

  def ring(x: float, y: float, width: float, height: float, count: int) -> np.ndarray:
    turn = np.pi - 2 * np.pi * np.arange(count) / count  # from the subject's right over the top
    return np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], axis=1)

  def row(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    return np.stack([x, np.broadcast_to(y, x.shape)], axis=1)

  around = np.linspace(-1, 1, 17)
  wanted = np.concatenate(
    [
      row(0.07 * around, 0.01 - 0.08 * np.cos(around * np.pi / 2)),
      *(row(side * 0.03 + np.linspace(-0.015, 0.015, 5), 0.05) for side in (-1, 1)),
      row(np.zeros(4), np.linspace(0.02, -0.01, 4)),
      row(np.linspace(-0.012, 0.012, 5), -0.02),
      *(ring(side * 0.03, 0.02, 0.014, 0.007, 6) for side in (-1, 1)),
      ring(0.0, -0.05, 0.026, 0.013, 12),
      ring(0.0, -0.05, 0.016, 0.006, 8),
    ]
  )
  distance = np.linalg.norm(centres[None, :, :2] - wanted[:, None], axis=-1) + 10.0 * (centres[:, 2] < 0)
  return LandmarkEmbedding(jnp.asarray(np.argmin(distance, axis=1), jnp.int32), jnp.full((68, 3), 1 / 3, jnp.float32))


def _float32(array: np.ndarray) -> jnp.ndarray:
  return jnp.asarray(np.asarray(array, np.float32))


def synthetic_rig(
  seed: int = 0, *, identities: int = 8, expressions: int = 6, landmarks: int = 40, rows: int = 16, columns: int = 24
) -> tuple[FlameRig, LandmarkEmbedding]:
  """A head of a few hundred vertices with everything a FlameRig has.

  Joints, parents, jaw sense (+x opens), eyelids (left at x > 0) and the region vocabulary are those of the real rigs.

  Args:
    seed: of bases and landmarks.
    identities: k.
    expressions: e.
    landmarks: points on the front of the face.
    rows: of the egg from the crown down.
    columns: of the egg around.

  Returns:
    The rig (float32) and its landmark embedding.
  """
  generator = np.random.default_rng(seed)
  unit, faces, texture, texture_faces = _sphere(rows, columns, 0.86 * np.pi)
  skin = unit * _RADII
  ball, ball_faces, ball_texture, ball_texture_faces = _sphere(5, 8, 0.97 * np.pi)
  ball = ball[:, [0, 2, 1]] * [-1, 1, 1]  # the pole looks forward
  blocks, face_blocks, uv_blocks, uv_face_blocks = [skin], [faces], [texture * [1, _SKIN_HEIGHT] + [0, 1 - _SKIN_HEIGHT]], [texture_faces]
  for number, eye in enumerate(_EYES):
    face_blocks.append(ball_faces + sum(map(len, blocks)))
    blocks.append(eye + _EYE_RADIUS * ball)
    uv_face_blocks.append(ball_texture_faces + sum(map(len, uv_blocks)))
    uv_blocks.append(ball_texture * [0.4, (1 - _SKIN_HEIGHT) * 0.9] + [0.05 + 0.5 * number, 0])
  vertices, faces = np.concatenate(blocks), np.concatenate(face_blocks)
  names = _label(skin, len(ball))
  left, right = names == "left_eyeball", names == "right_eyeball"
  expression = _bumps(generator, skin, expressions, 0.03, 6e-3)
  expression = np.concatenate([expression, np.zeros((2 * len(ball), 3, expressions))])
  lids = []
  for eye, side in zip(_EYES, (1, -1), strict=True):
    distance = np.linalg.norm(vertices - eye - [0, 0.012, 0.012], axis=1)
    bell = np.exp(-((distance / 0.012) ** 2) / 2) * (vertices[:, 0] * side > 0) * ~(left | right)
    lids.append(bell[:, None] * [0, -8e-3, 1e-3])
  pose = generator.normal(scale=1e-3, size=(36, len(vertices), 1)) * generator.normal(size=(36, 1, 3))
  frontal = np.flatnonzero((vertices[faces].mean(1)[:, 2] > 0.03) & (faces.max(1) < len(skin)))
  weights = generator.dirichlet(np.ones(3), landmarks)
  rig = FlameRig(
    template=_float32(vertices),
    shape_basis=_float32(_bumps(generator, vertices, identities, 0.06, 4e-3)),
    expression_basis=_float32(expression),
    pose_basis=_float32(np.where((left | right)[None, :, None], 0, pose)),
    joint_regressor=_float32(_regressor(vertices, (left, right))),
    skinning=_float32(_skinning(skin, len(ball))),
    eyelid_basis=_float32(np.stack(lids)),
    faces=jnp.asarray(faces, jnp.int32),
    uv=_float32(np.concatenate(uv_blocks)),
    uv_faces=jnp.asarray(np.concatenate(uv_face_blocks), jnp.int32),
    regions=jnp.asarray([_NAMES.index(name) for name in names], jnp.int32),
    parents=(-1, 0, 1, 1, 1),
    name=f"synthetic_{seed}",
    region_names=_NAMES,
    expression_names=tuple(f"unit_{number}" for number in range(expressions)),
    landmarks=_ibug(vertices[faces[faces.max(1) < len(skin)]].mean(1)),
  )
  return rig, LandmarkEmbedding(jnp.asarray(generator.choice(frontal, landmarks), jnp.int32), _float32(weights))
