"""Joints, skin weights, the jaw split, eyelids and expression units of the open head."""

import numpy as np

from experiments.open_head.cut import PARTS, Cut
from experiments.open_head.makehuman import MakeHuman
from silky_jax.flame.regions import REGIONS

__all__ = [
  "JOINTS",
  "PARENTS",
  "eye_angles",
  "joint_cubes",
  "joint_regressor",
  "rotation_x",
  "skinning",
  "split_jaw",
  "units",
]

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
PARENTS = (-1, 0, 1, 1, 1)
_LEFT_EYE, _RIGHT_EYE, _UPPER, _LOWER, _TONGUE = (PARTS.index(n) for n in PARTS[1:])
# Share of a neck bone's turn that the neck joint takes; the head takes all, the torso none.
_NECK_SHARE = {"neck01": 0.2, "neck02": 0.5, "neck03": 0.8}
_JAW_BONES = ("jaw", "special04", "oris02", "oris01", "oris06.L", "oris06.R", "oris07.L", "oris07.R", "tongue")
# Vertices that a joint is regressed from, and the ridge: each unit of sum(weights^2) costs as much as (0.7 mm)^2 of error.
_NEAR = 1000
_RIDGE = 5e-7
_TORSO = ("spine", "clavicle", "shoulder", "breast", "upperarm", "scapula", "pectoral")


def joint_cubes(source: MakeHuman) -> dict[str, np.ndarray]:
  """Base mesh vertices whose mean is the joint. The neck joint is half way up the neck."""
  return {
    "root": source.joint("neck"),
    "neck": np.concatenate([source.joint("neck"), source.joint("head")]),
    "jaw": source.joint("mouth"),
    "left_eye": source.joint("l-eye"),
    "right_eye": source.joint("r-eye"),
  }


def skinning(source: MakeHuman, cut: Cut) -> np.ndarray:
  """[v, 5] skin weights, rows sum to 1, symmetric."""
  bones = source.bone_weights()
  jaw, torso, neck = np.zeros(len(cut.ids)), np.zeros(len(cut.ids)), np.zeros(len(cut.ids))
  for bone, weight in bones.items():
    here = weight[cut.ids]
    if bone in _JAW_BONES or bone.startswith("tongue"):
      jaw += here
    elif bone in _NECK_SHARE:
      neck += _NECK_SHARE[bone] * here
      torso += (1 - _NECK_SHARE[bone]) * here
    elif bone.startswith(_TORSO):
      torso += here
    else:
      neck += here
  weights = np.stack([torso, neck, jaw, 0 * jaw, 0 * jaw], axis=1)
  weights[np.isin(cut.parts, [_UPPER, _LOWER, _TONGUE, _LEFT_EYE, _RIGHT_EYE])] = 0
  for part, joint in ((_UPPER, 1), (_LOWER, 2), (_TONGUE, 2), (_LEFT_EYE, 3), (_RIGHT_EYE, 4)):
    weights[cut.parts == part, joint] = 1
  weights = (weights + weights[cut.mirror][:, [0, 1, 2, 4, 3]]) / 2
  return weights / weights.sum(1, keepdims=True)


def joint_regressor(heads: np.ndarray, joints: np.ndarray, still: np.ndarray, cut: Cut) -> np.ndarray:
  """Weights over nearby vertices that reproduce the joints of all heads: ridge regression with the sum held at 1, symmetric in x.

  Args:
    heads: [n, v, 3] heads to fit, metres.
    joints: [n, 5, 3] their joints.
    still: [m, v, 3] expression units, which shall not move any joint (FLAME regresses joints from the expressed head).
    cut: parts and mirror.

  Returns:
    [5, v], rows sum to 1.
  """
  regressor = np.zeros((len(JOINTS), heads.shape[1]))
  mean = heads.mean(0)
  for j in range(len(JOINTS) - 1):  # the right eye mirrors the left
    if JOINTS[j] == "left_eye":  # the eyeball turns about its own centre, which leaves MakeHuman's joint by 0.8 mm rms
      regressor[j] = (cut.parts == _LEFT_EYE) / np.sum(cut.parts == _LEFT_EYE)
      continue
    allowed = np.flatnonzero(cut.parts == PARTS.index("body"))
    distance = np.linalg.norm(mean[allowed] - joints[:, j].mean(0), axis=1)
    near = allowed[np.argsort(distance)[:_NEAR]]
    near = np.union1d(near, cut.mirror[near])
    rows = (heads[:, near] - joints[:, j, None]).transpose(0, 2, 1).reshape(-1, len(near))
    kept = still[:, near].transpose(0, 2, 1).reshape(-1, len(near))
    gram = rows.T @ rows / len(heads) + kept.T @ kept + _RIDGE * np.eye(len(near))
    weights = np.linalg.solve(gram, np.ones(len(near)))
    regressor[j, near] = weights / weights.sum()
    regressor[j] = (regressor[j] + regressor[j][cut.mirror]) / 2
  regressor[4] = regressor[3][cut.mirror]
  return regressor


def rotation_x(angle: float) -> np.ndarray:
  """Rotation about +x by an angle in radians."""
  cosine, sine = np.cos(angle), np.sin(angle)
  return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def _other_side(name: str) -> str:
  for a, b in (("Left", "Right"), ("Right", "Left")):
    if name.endswith(a):
      return name.removesuffix(a) + b
  return name


def units(source: MakeHuman, cut: Cut, template: np.ndarray, regions: np.ndarray) -> dict[str, np.ndarray]:
  """The 52 face units over the kept vertices, metres, cleaned.

  Left and right units are made mirror images of each other; teeth move rigidly (by their mean, and not at all under 0.2 mm); brow and
  eye units leave the inside of the mouth alone (up to 8 mm of stray motion there); a blink fades out over the 6 mm before the middle line.

  Args:
    source: the MakeHuman files.
    cut: parts and mirror.
    template: [v, 3] metres.
    regions: [v] into REGIONS.

  Returns:
    Offsets [v, 3] by name.
  """
  raw = {name: offsets[cut.ids] / 10 for name, offsets in source.face_units().items()}
  mouth = regions == REGIONS.index("mouth_interior")
  found = {}
  for name, offsets in raw.items():
    kept = (offsets + raw[_other_side(name)][cut.mirror] * [-1, 1, 1]) / 2
    if name != "jawOpen":
      for part in (_UPPER, _LOWER):
        mean = kept[cut.parts == part].mean(0)
        kept[cut.parts == part] = mean if np.abs(mean).max() > 2e-4 else 0
    if name.startswith(("brow", "eye")):
      kept[mouth] = 0
    if name.startswith("eyeBlink"):
      own = template[:, 0] if name.endswith("Left") else -template[:, 0]
      fade = np.clip(own / 6e-3, 0, 1)
      kept *= (fade * fade * (3 - 2 * fade))[:, None]
    found[name] = kept
  return found


def split_jaw(unit: np.ndarray, template: np.ndarray, joint: np.ndarray, weights: np.ndarray, cut: Cut) -> tuple[float, np.ndarray]:
  """`jawOpen` as a turn of the jaw joint about +x and a corrective linear in the entries of R - I.

  The angle t is the least-squares rotation of the lower teeth about the joint. With skin weight w the skin moves by
  w (R - I)(x - joint); what is left of the unit, taken back through the blended matrix (1 - w) I + w R, is the corrective at t, and
  is spread over the two entries that hold sin t with opposite signs.

  Args:
    unit: [v, 3] offsets of jawOpen, metres.
    template: [v, 3].
    joint: [3] the jaw joint.
    weights: [v] jaw skin weights.
    cut: parts.

  Returns:
    angle: radians; basis: [9, v, 3] of the jaw's (R - I), row-major.
  """
  teeth = cut.parts == _LOWER
  before = (template[teeth] - joint)[:, 1:]
  after = before + unit[teeth][:, 1:]
  angle = float(np.arctan2((before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum(), (before * after).sum()))
  turn = rotation_x(angle) - np.eye(3)
  blended = np.eye(3) + weights[:, None, None] * turn
  left = unit - weights[:, None] * ((template - joint) @ turn.T)
  corrective = np.linalg.solve(blended, left[..., None])[..., 0]
  corrective[np.isin(cut.parts, [_UPPER, _LOWER, _TONGUE, _LEFT_EYE, _RIGHT_EYE])] = 0
  basis = np.zeros((9, *template.shape))
  basis[5] = -corrective / (2 * np.sin(angle))  # R[1, 2] = -sin t
  basis[7] = corrective / (2 * np.sin(angle))  # R[2, 1] = +sin t
  return angle, basis


def eye_angles(found: dict[str, np.ndarray], template: np.ndarray, joints: np.ndarray, cut: Cut) -> dict[str, np.ndarray]:
  """Axis-angle turn of the eye joint in each `eyeLook*` unit: least squares over the eyeball about its joint."""
  angles = {}
  for name, unit in found.items():
    if not name.startswith("eyeLook"):
      continue
    part, joint = (_LEFT_EYE, joints[3]) if name.endswith("Left") else (_RIGHT_EYE, joints[4])
    ball = cut.parts == part
    before = template[ball] - joint
    left, _, right = np.linalg.svd((before + unit[ball]).T @ before)
    matrix = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    vector = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / 2
    axis = 0 if name[7:-4].startswith(("Up", "Down")) or "Up" in name or "Down" in name else 1
    angles[name] = np.where(np.arange(3) == axis, np.arcsin(vector), 0)
  return angles
