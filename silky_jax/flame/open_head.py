"""The bundled licence-clean head (MakeHuman, CC0) as a FlameRig with landmark embeddings. docs/open_head.md describes it."""

import functools
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from silky_jax.types import FlameRig, LandmarkEmbedding

__all__ = ["ARKIT_NAMES", "JAW_ROWS", "RigControls", "arkit_to_rig", "eye_look", "jaw_open_angle", "load", "mirror"]

# The 52 units in the order of an ARKit weight array: alphabetical, which is also MediaPipe's order (without its leading `_neutral`).
ARKIT_NAMES = (
  *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
  *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight"),
  *("eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
  *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
  *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"),
  *("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight"),
  *("mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight"),
  *("mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper"),
  *("mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
  *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
# Entries of the jaw's row-major R - I that a turn about +x fills: R[1, 2] = -sin t and R[2, 1] = +sin t.
JAW_ROWS = (5, 7)
_JAW = 2  # joint


class RigControls(NamedTuple):
  """What drives the rig for one set of ARKit weights."""

  expression: Float[Array, "e"]
  jaw_pose: Float[Array, "3"]  # axis-angle, radians
  eyelids: Float[Array, "2"]  # left, right
  left_eye_pose: Float[Array, "3"]
  right_eye_pose: Float[Array, "3"]

  def pose(self) -> Float[Array, "5 3"]:
    """All five joints, root and neck at rest."""
    rest = jnp.zeros((2, 3), self.jaw_pose.dtype)
    return jnp.concatenate([rest, jnp.stack([self.jaw_pose, self.left_eye_pose, self.right_eye_pose])])


@functools.cache
def _data() -> dict[str, np.ndarray]:
  with resources.files("silky_jax.flame").joinpath("data/open_head.npz").open("rb") as file:
    return dict(np.load(file, allow_pickle=False))


@functools.cache
def load() -> tuple[FlameRig, LandmarkEmbedding, LandmarkEmbedding]:
  """The open head, read once per process.

  Returns:
    rig: float32; identity in standard deviations of the population of docs/open_head.md, expression columns named after ARKit units.
    dense: the 478 MediaPipe points (468-472 right iris, 473-477 left iris).
    ibug: the 68 iBUG points.

  Raises:
    FileNotFoundError: the package was installed without its data file.
  """
  data = _data()
  corrective = np.zeros((9, *data["template"].shape), np.float32)
  corrective[JAW_ROWS[1]] = data["jaw_corrective_mm"].astype(np.float32) / 1e3
  corrective[JAW_ROWS[0]] = -corrective[JAW_ROWS[1]]
  pose_basis = np.zeros((9 * (len(data["parents"]) - 1), *data["template"].shape), np.float32)
  pose_basis[9 * (_JAW - 1) : 9 * _JAW] = corrective
  dense, ibug = (
    LandmarkEmbedding(jnp.asarray(data[f"{name}_faces"], jnp.int32), jnp.asarray(data[f"{name}_barycentric"]))
    for name in ("mediapipe", "ibug")
  )
  rig = FlameRig(
    template=jnp.asarray(data["template"]),
    shape_basis=_metres(data["shape_basis_mm"]),
    expression_basis=_metres(data["expression_basis_mm"]),
    pose_basis=jnp.asarray(pose_basis),
    joint_regressor=jnp.asarray(data["joint_regressor"]),
    skinning=jnp.asarray(data["skinning"]),
    eyelid_basis=_metres(data["eyelid_basis_mm"]),
    faces=jnp.asarray(data["faces"], jnp.int32),
    uv=jnp.asarray(data["uv"]),
    uv_faces=jnp.asarray(data["uv_faces"], jnp.int32),
    regions=jnp.asarray(data["regions"], jnp.int32),
    parents=tuple(int(parent) for parent in data["parents"]),
    name="open_head",
    region_names=tuple(str(name) for name in data["region_names"]),
    expression_names=tuple(str(name) for name in data["expression_names"]),
    landmarks=ibug,
  )
  return rig, dense, ibug


def _metres(millimetres: np.ndarray) -> Array:
  return jnp.asarray(millimetres.astype(np.float32) / 1e3)


def jaw_open_angle() -> float:
  """Radians of jaw rotation about +x that equal the unit `jawOpen` at weight 1."""
  return float(_data()["jaw_open_angle"])


def eye_look() -> dict[str, np.ndarray]:
  """Axis-angle in radians that one unit of each `eyeLook*` weight turns its eye by, by name."""
  data = _data()
  return {str(name): angles for name, angles in zip(data["eye_look_names"], data["eye_look_angles"], strict=True)}


def mirror() -> np.ndarray:
  """[v] int32, the vertex at (-x, y, z)."""
  return _data()["mirror"]


def arkit_to_rig(weights: Mapping[str, float] | Float[Array, "u"]) -> RigControls:
  """ARKit weights as controls of the open head.

  `jawOpen` w becomes a jaw turn of w times `jaw_open_angle()`; `eyeBlink*` the eyelids; `eyeLook*` a turn of that eye plus the column
  that moves the lids along; every other unit the column of its name. On the mean head one unit at weight 1 gives the unit's own vertices
  (eyeballs turn about their centres where the units also shift them by about 1 mm); between 0 and 1 the jaw and the eyes run on arcs.

  Args:
    weights: by name (missing names are 0), or [52] in the order of `ARKIT_NAMES`. Usual range 0..1, not clipped.

  Returns:
    RigControls. Linear in the weights, so differentiable in an array; a mapping gives constants.

  Raises:
    ValueError: an unknown name, or an array that is not [52].
  """
  if isinstance(weights, Mapping):
    unknown = sorted(set(weights) - set(ARKIT_NAMES))
    if unknown:
      raise ValueError(f"weights: expected ARKit units {ARKIT_NAMES}, got {unknown}")
    values = jnp.asarray([weights.get(name, 0.0) for name in ARKIT_NAMES], jnp.float32)
  else:
    values = jnp.asarray(weights)
    if values.shape != (len(ARKIT_NAMES),):
      raise ValueError(f"weights: expected [{len(ARKIT_NAMES)}], got {values.shape}")
  data = _data()
  column = {name: values[number] for number, name in enumerate(ARKIT_NAMES)}
  expression = jnp.stack([column[str(name)] for name in data["expression_names"]])
  turns = {side: jnp.zeros(3, values.dtype) for side in ("Left", "Right")}
  for name, angles in eye_look().items():
    side = "Left" if name.endswith("Left") else "Right"
    turns[side] = turns[side] + column[name] * angles
  jaw = column["jawOpen"] * jnp.asarray([jaw_open_angle(), 0, 0], values.dtype)
  eyelids = jnp.stack([column["eyeBlinkLeft"], column["eyeBlinkRight"]])
  return RigControls(expression, jaw, eyelids, turns["Left"], turns["Right"])
