"""Region labels of the open head, from MakeHuman's texture masks, targets and bones."""

import cv2
import numpy as np

from experiments.open_head.cut import PARTS, Cut
from experiments.open_head.makehuman import MakeHuman
from silky_jax.flame.regions import REGIONS

__all__ = ["brow_height", "label_vertices"]

_PART_REGION = {
  "helper-l-eye": "left_eyeball",
  "helper-r-eye": "right_eyeball",
  "helper-upper-teeth": "upper_teeth",
  "helper-lower-teeth": "lower_teeth",
  "helper-tongue": "tongue",
}
# Where MakeHuman's texture keeps the inside of the mouth and the eye sockets (u range, v range).
_MOUTH_ISLAND = ((0.75, 0.93), (0.0, 0.14))
_SOCKET_ISLANDS = ((0.0, 0.16), (0.53, 0.65))

# Eyebrow: inner end, arch and tail as (|x| - eye centre's |x|, height over the eye centre) in metres, and half the width there.
_BROW = np.array([[-0.018, 0.0165, 0.0045], [-0.002, 0.0205, 0.0042], [0.012, 0.0225, 0.0035], [0.025, 0.0165, 0.0025]])
_BROW_MARGIN = 2e-3  # added for vertices: they lie 4 mm apart there


def brow_height(across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Height over the eye centre and half width of the brow at |x| - |x of the eye centre|, metres; width 0 beyond its ends."""
  height = np.interp(across, _BROW[:, 0], _BROW[:, 1])
  width = np.interp(across, _BROW[:, 0], _BROW[:, 2], left=0, right=0)
  return height, width


def _in_island(cut: Cut, island) -> np.ndarray:
  """[v] True where every texture corner of the vertex lies in the island."""
  (u0, u1), (v0, v1) = island
  u, v = cut.texture.T
  inside = (u >= u0) & (u <= u1) & (v >= v0) & (v <= v1)
  result = np.ones(len(cut.ids), bool)
  np.logical_and.at(result, cut.faces.ravel(), inside[cut.texture_faces].ravel())
  return result & (cut.parts == 0)


def _masked(source: MakeHuman, cut: Cut, name: str) -> np.ndarray:
  """[v] value in 0..1 of a texture mask at the vertex, the largest over its texture corners."""
  image = cv2.imdecode(np.frombuffer(source.mask(name), np.uint8), cv2.IMREAD_GRAYSCALE) / 255.0
  size = image.shape[0]
  columns = np.clip((cut.texture[:, 0] * size).astype(int), 0, size - 1)
  rows = np.clip(((1 - cut.texture[:, 1]) * size).astype(int), 0, size - 1)
  values = np.zeros(len(cut.ids))
  np.maximum.at(values, cut.faces.ravel(), image[rows, columns][cut.texture_faces].ravel())
  return np.where(cut.parts == 0, values, 0)


def _field(target: np.ndarray, cut: Cut) -> np.ndarray:
  """[v] length of a target's offsets, 1 at its 98th percentile, symmetric."""
  length = np.linalg.norm(target[cut.ids], axis=1)
  length = (length + length[cut.mirror]) / 2
  return length / np.percentile(length[length > 0], 98)


def label_vertices(source: MakeHuman, cut: Cut, template: np.ndarray, joints: np.ndarray, jaw: np.ndarray) -> np.ndarray:
  """Region id per vertex.

  Args:
    source: the MakeHuman files.
    cut: kept vertices.
    template: [v, 3] metres.
    joints: [5, 3] rest joints.
    jaw: [v] jaw skin weight.

  Returns:
    [v] int32 into `REGIONS`; symmetric in x.
  """
  skin = cut.parts == PARTS.index("body")
  targets = source.head_targets()
  x, y, z = (template - joints[3:].mean(0)).T
  half = joints[3, 0]
  labels = np.full(len(cut.ids), "face", dtype="U24")
  ears = _masked(source, cut, "ears") > 0.5
  ear_z = z[ears].mean()
  front = z[skin & (np.abs(x) < 0.01) & (y > 0.03) & (y < 0.06)].max()
  labels[(y > 0.018) & (z > -0.07)] = "forehead"
  labels[(y > 0.064 - 0.72 * (front - z)) & (y > 0.02) | (z < ear_z - 0.008)] = "scalp"
  neck = (_field(targets["measure-neck-circ-incr"], cut) > 0.25) | (_field(targets["neck-scale-depth-incr"], cut) > 0.3)
  below = y < -0.055 - 0.35 * np.clip(z + 0.03, 0, None)
  labels[below & (neck | (z < -0.03))] = "neck"
  labels[below & (z < ear_z + 0.012)] = "neck"
  labels[(y < -0.145 - 0.22 * (z + 0.12)) | ((np.abs(x) > 0.075) & (y < -0.125))] = "torso"
  labels[_field(targets["nose-trans-up"], cut) > 0.55] = "nose"
  across = np.abs(x) - half
  labels[skin & (np.hypot(across / 0.024, (y + 0.001) / 0.0155) < 1) & (z > -0.02)] = "eye_region"
  height, width = brow_height(across)
  labels[skin & (z > -0.03) & (np.abs(y - height) < width + _BROW_MARGIN) & (width > 0)] = "brow"
  labels[ears] = "ear"
  lips = _masked(source, cut, "lips") > 0.4
  inside = _in_island(cut, _MOUTH_ISLAND)
  labels[lips & (jaw < 0.5)] = "upper_lip"
  labels[lips & (jaw >= 0.5)] = "lower_lip"
  labels[inside] = "mouth_interior"
  labels[_in_island(cut, _SOCKET_ISLANDS)] = "eye_socket"
  for part, region in _PART_REGION.items():
    labels[cut.parts == PARTS.index(part)] = region
  labels = np.where(x < -1e-5, labels[cut.mirror], labels)  # the texture masks are not quite symmetric
  for name in ("brow", "eye_region", "ear", "eyeball"):
    ours = np.isin(labels, [name, f"left_{name}", f"right_{name}"])
    labels = np.where(ours, np.where(x > 0, f"left_{name}", f"right_{name}"), labels)
  return np.array([REGIONS.index(label) for label in labels], np.int32)
