"""The 478 MediaPipe points and the 68 iBUG points on the open head.

Shaded pictures of painted heads from several sides go through the landmark model; each point is lifted back to the surface through the
z-buffer; lifts are averaged over people and views with the squared cosine of incidence, robustly; left and right are made to agree. Lid
and lip contours are snapped to the rims that the pictures show: skin against eyeball, lip against the inside of the open mouth. Irises
are placed on the eyeballs.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from experiments.open_head.shade import IRIS_RADIUS, Paint, orbit, palette, shade
from silky_jax.flame.regions import REGIONS
from silky_jax.geometry.camera import project
from silky_jax.geometry.mesh import vertex_normals
from silky_jax.render.mesh import rasterize_mesh
from silky_jax.types import Camera

__all__ = ["IBUG_FROM_MEDIAPIPE", "LIDS", "LIPS", "closest_points", "embed_ibug", "embed_mediapipe"]

VIEWS = [(yaw, pitch) for pitch in (-12, 0, 12) for yaw in (-30, -15, 0, 15, 30)]
_SIZE = 640
_MIDDLE = 0.02  # metres from the middle line within which every view counts

# Contours of MediaPipe's mesh, from the subject's right corner to the left one, both corners included.
LIPS = {
  "upper_inner": (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
  "lower_inner": (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
  "upper_outer": (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
  "lower_outer": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
}
LIDS = {
  "right_upper": (33, 246, 161, 160, 159, 158, 157, 173, 133),
  "right_lower": (33, 7, 163, 144, 145, 153, 154, 155, 133),
  "left_upper": (362, 398, 384, 385, 386, 387, 388, 466, 263),
  "left_lower": (362, 382, 381, 380, 374, 373, 390, 249, 263),
}
# iBUG 0-67: contour, brows, nose, eyes, lips; the MediaPipe point that lies at the same place of the face.
IBUG_FROM_MEDIAPIPE = (
  *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
  *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
  *(168, 197, 5, 4, 75, 97, 2, 326, 305),
  *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
  *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
  *(78, 82, 13, 312, 308, 317, 14, 87),
)
_IRISES = {"right": (468, 469, 470, 471, 472), "left": (473, 474, 475, 476, 477)}
_HIDDEN = {
  "left_ear",
  "right_ear",
  "eye_socket",
  "mouth_interior",
  "upper_teeth",
  "lower_teeth",
  "tongue",
  "left_eyeball",
  "right_eyeball",
  "torso",
}


def _detect(image: np.ndarray, detector) -> np.ndarray | None:
  """[478, 2] px, or None."""
  found = detector.process(np.ascontiguousarray(image))
  if not found.multi_face_landmarks:
    return None
  return np.array([(p.x, p.y) for p in found.multi_face_landmarks[0].landmark]) * [image.shape[1], image.shape[0]]


def _lift(pixels, vertices, faces, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Face id (-1 off the head), barycentric weights and cosine of incidence per pixel position."""
  ids, barycentric, _ = (np.asarray(part) for part in rasterize_mesh(vertices, faces, camera))
  columns, rows = (np.clip(np.floor(pixels[:, k]).astype(int), 0, camera.width - 1) for k in (0, 1))
  face, weights = ids[rows, columns], barycentric[rows, columns]
  normals = np.asarray(vertex_normals(vertices, faces))
  triangle = np.asarray(faces)[np.maximum(face, 0)]
  point = np.einsum("lk,lkc->lc", weights, np.asarray(vertices)[triangle])
  normal = np.einsum("lk,lkc->lc", weights, normals[triangle])
  rotation, translation = np.asarray(camera.world_to_camera[:3, :3]), np.asarray(camera.world_to_camera[:3, 3])
  view = -rotation.T @ translation - point
  cosine = (normal * view).sum(1) / np.maximum(np.linalg.norm(normal, axis=1) * np.linalg.norm(view, axis=1), 1e-9)
  return face, weights, np.where(face >= 0, np.maximum(cosine, 0), 0)


def _robust_mean(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Weighted geometric median over the first axis, [n, l, 3] -> [l, 3]."""
  mean = np.einsum("nl,nlc->lc", weights, points) / np.maximum(weights.sum(0), 1e-9)[:, None]
  for _ in range(30):
    near = weights / np.maximum(np.linalg.norm(points - mean, axis=-1), 5e-4)
    mean = np.einsum("nl,nlc->lc", near, points) / np.maximum(near.sum(0), 1e-9)[:, None]
  return mean


def closest_points(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Closest surface point on allowed faces: face ids [l] and barycentric weights [l, 3]."""
  chosen = np.flatnonzero(allowed)
  corners = vertices[faces[chosen]]
  best_face, best_weights = np.zeros(len(points), int), np.zeros((len(points), 3))
  for number, point in enumerate(points):
    weights = _closest_weights(point, corners)
    distance = np.linalg.norm(np.einsum("fk,fkc->fc", weights, corners) - point, axis=1)
    best = int(distance.argmin())
    best_face[number], best_weights[number] = chosen[best], weights[best]
  return best_face, best_weights


def _closest_weights(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
  """[f, 3] barycentric weights of the point of each triangle nearest to one point."""
  a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
  ab, ac, ap = b - a, c - a, point - a
  d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
  d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
  scale = np.maximum(d00 * d11 - d01 * d01, 1e-30)
  v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
  inside = np.stack([1 - v - w, v, w], axis=1)
  candidates = [np.where((inside >= 0).all(1, keepdims=True), inside, np.nan)]
  for i, j in ((0, 1), (1, 2), (2, 0)):
    edge = corners[:, j] - corners[:, i]
    along = np.clip(((point - corners[:, i]) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-30), 0, 1)
    weights = np.zeros_like(inside)
    weights[:, i], weights[:, j] = 1 - along, along
    candidates.append(weights)
  stacked = np.stack(candidates)
  distance = np.linalg.norm(np.einsum("nfk,fkc->nfc", stacked, corners) - point, axis=-1)
  return stacked[np.nanargmin(distance, axis=0), np.arange(len(corners))]


class _Rim:
  """Pixels of a skin region that touch what lies behind an opening, seen from the front."""

  def __init__(self, vertices, faces, regions, edge: set[str], behind: set[str], camera: Camera):
    ids, barycentric, _ = (np.asarray(part) for part in rasterize_mesh(jnp.asarray(vertices), faces, camera))
    names = np.array(REGIONS)[regions]
    on_edge, is_behind = (np.isin(names, list(group))[np.asarray(faces)] for group in (edge, behind))
    skin = (ids >= 0) & (on_edge.sum(1) >= 2)[np.maximum(ids, 0)]
    hole = (ids >= 0) & (is_behind.sum(1) >= 2)[np.maximum(ids, 0)]
    touching = np.zeros_like(hole)
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
      touching |= np.roll(hole, shift, axis)
    rows, columns = np.nonzero(skin & touching)
    self.pixels = np.stack([columns + 0.5, rows + 0.5], axis=1)
    self.faces, self.weights = ids[rows, columns], barycentric[rows, columns]
    left, right = self.pixels[self.pixels[:, 0].argmin()], self.pixels[self.pixels[:, 0].argmax()]
    line = left[1] + (self.pixels[:, 0] - left[0]) / (right[0] - left[0]) * (right[1] - left[1])
    self.upper = self.pixels[:, 1] < line

  def snap(self, pixel: np.ndarray, where: str) -> tuple[int, np.ndarray, float]:
    """Face, weights and distance in px of the nearest rim pixel of the upper or lower side, or of either (`corner`)."""
    distance = np.linalg.norm(self.pixels - pixel, axis=1)
    if where != "corner":
      distance = np.where(self.upper == (where == "upper"), distance, np.inf)
    best = int(distance.argmin())
    return int(self.faces[best]), self.weights[best], float(distance[best])


def _mirror_faces(faces: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Face at the mirrored place, and for its corners the corner of the given face that they mirror: [f], [f, 3]."""
  lookup = {tuple(sorted(face)): number for number, face in enumerate(faces.tolist())}
  mirrored = mirror[faces]
  partner = np.array([lookup[tuple(sorted(face))] for face in mirrored.tolist()])
  order = np.argmax(faces[partner][:, :, None] == mirrored[:, None, :], axis=2)
  return partner, order


def _pairs(points: np.ndarray) -> np.ndarray:
  """[l] the landmark on the other side: the matching that best reflects the cloud onto itself."""
  distance = np.linalg.norm(points[:, None] - points[None] * [-1, 1, 1], axis=-1)
  pair = linear_sum_assignment(distance**2)[1]
  if (pair[pair] != np.arange(len(pair))).any():
    raise RuntimeError("landmarks: the left-right matching is no involution")
  return pair


def _lifted_points(heads, eyes, template, faces, regions, detector) -> tuple[np.ndarray, np.ndarray]:
  """Landmarks of every head and view, carried to the template by face and weights: points [n, 478, 3], weights [n, 478]."""
  names = np.array(REGIONS)[regions]
  ball = np.isin(names, ["left_eyeball", "right_eyeball"]).astype(float)
  colours, device_faces = palette(regions, REGIONS), jnp.asarray(faces, jnp.int32)
  points, weights, yaws = [], [], []
  for head, head_eyes in zip(heads, eyes, strict=True):
    vertices = jnp.asarray(head, jnp.float32)
    for yaw, pitch in VIEWS:
      camera = orbit(yaw, pitch, size=_SIZE, distance=0.9, span=0.33)
      pixels = _detect(shade(vertices, faces, colours, camera, paint=Paint(head, ball, head_eyes)), detector)
      if pixels is not None:
        face, barycentric, cosine = _lift(pixels, vertices, device_faces, camera)
        points.append(np.einsum("lk,lkc->lc", barycentric, template[faces[np.maximum(face, 0)]]))
        weights.append(np.where(cosine > 0.2, cosine**2, 0))
        yaws.append(yaw)
  points, weights = np.stack(points), np.stack(weights)
  # On the far side of a turned head the outline slides over the cheek: points off the middle are read from the front and their own side.
  side = np.median(points[..., 0], axis=0)
  far = (np.array(yaws)[:, None] * np.sign(side) < 0) & (np.abs(side) > _MIDDLE)
  return points, np.where(far, 0, weights)


def embed_mediapipe(
  pose: Callable, heads: np.ndarray, eyes: np.ndarray, faces: np.ndarray, regions: np.ndarray, mirror: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
  """Embedding of the 478 points.

  Args:
    pose: jaw angle in radians -> posed vertices [v, 3] of the template.
    heads: [n, v, 3] metres, the template first, then other people: their mean wipes out what the model makes of one face.
    eyes: [n, 2, 3] eyeball centres of each, left first.
    faces: [f, 3].
    regions: [v] into REGIONS.
    mirror: [v].

  Returns:
    face ids [478], weights [478, 3], report: dict of figures in mm.
  """
  import mediapipe

  detector = mediapipe.solutions.face_mesh.FaceMesh(
    static_image_mode=True, refine_landmarks=True, max_num_faces=1, min_detection_confidence=0.3
  )
  template, names = heads[0], np.array(REGIONS)[regions]
  points, weights = _lifted_points(heads, eyes, template, faces, regions, detector)
  mean = _robust_mean(points, weights)
  spread = np.sqrt((weights[..., None] * (points - mean) ** 2).sum((0, 2)) / np.maximum(weights.sum(0), 1e-9))
  pair = _pairs(mean)
  symmetric = (mean + mean[pair] * [-1, 1, 1]) / 2
  allowed = ~np.isin(names, list(_HIDDEN))[faces].any(1)
  face, barycentric = closest_points(symmetric, template, faces, allowed)
  moved = np.linalg.norm(np.einsum("lk,lkc->lc", barycentric, template[faces[face]]) - symmetric, axis=1)
  report = {
    "pictures": len(heads) * len(VIEWS),
    "found": len(points),
    "spread_mm_median": float(np.median(spread) * 1e3),
    "asymmetry_mm_median": float(np.median(np.linalg.norm(mean - mean[pair] * [-1, 1, 1], axis=1)) / 2 * 1e3),
    "moved_to_surface_mm_median": float(np.median(moved[:468]) * 1e3),
  }
  device_faces = jnp.asarray(faces, jnp.int32)
  report |= _snap_lids(face, barycentric, symmetric, jnp.asarray(template, jnp.float32), device_faces, regions, eyes[0])
  paint = Paint(template, np.isin(names, ["left_eyeball", "right_eyeball"]).astype(float), eyes[0])
  report |= _snap_lips(face, barycentric, pose, device_faces, regions, palette(regions, REGIONS), paint, detector)
  _place_irises(face, barycentric, points, weights, template, faces, names, eyes[0])
  _symmetrise(face, barycentric, pair, template, faces, mirror)
  return face.astype(np.int32), barycentric.astype(np.float32), report


def _snap_lids(face, barycentric, symmetric, vertices, faces, regions, eyes) -> dict[str, float]:
  distances = []
  for side, eye in (("left", eyes[0]), ("right", eyes[1])):
    camera = orbit(0, 0, size=1024, distance=0.6, span=0.06, centre=eye)
    rim = _Rim(vertices, faces, regions, {f"{side}_eye_region", "eye_socket"}, {f"{side}_eyeball"}, camera)
    pixels = np.asarray(project(jnp.asarray(symmetric, jnp.float32), camera)[0])
    for where in ("upper", "lower"):
      contour = LIDS[f"{side}_{where}"]
      for index in contour[1:-1]:  # the corners lie beyond the last visible bit of the eyeball and stay where they were lifted
        face[index], barycentric[index], distance = rim.snap(pixels[index], where)
        distances.append(distance * 60 / 1024)
  return {"lids_snapped_mm_mean": float(np.mean(distances)), "lids_snapped_mm_max": float(np.max(distances))}


def _snap_lips(face, barycentric, pose, faces, regions, colours, paint, detector) -> dict[str, float]:
  """Lips are read off a half-open mouth, where the two inner contours lie apart."""
  vertices = jnp.asarray(pose(0.12), jnp.float32)
  wide = orbit(0, 0, size=_SIZE, distance=0.9, span=0.33)
  pixels = _detect(shade(vertices, np.asarray(faces), colours, wide, paint=paint), detector)
  mouth = np.asarray(vertices)[np.isin(np.array(REGIONS)[regions], ["upper_lip", "lower_lip"])].mean(0)
  camera = orbit(0, 0, size=1024, distance=0.8, span=0.10, centre=mouth)
  lifted, weights, _ = _lift(pixels, vertices, faces, wide)
  seen = np.einsum("lk,lkc->lc", weights, np.asarray(vertices)[np.asarray(faces)[np.maximum(lifted, 0)]])
  close = np.asarray(project(jnp.asarray(seen, jnp.float32), camera)[0])
  rim = _Rim(vertices, faces, regions, {"upper_lip", "lower_lip"}, {"mouth_interior", "upper_teeth", "lower_teeth", "tongue"}, camera)
  distances = []
  for where in ("upper", "lower"):
    for place, index in enumerate(LIPS[f"{where}_inner"]):
      corner = place in (0, len(LIPS["upper_inner"]) - 1)
      face[index], barycentric[index], distance = rim.snap(close[index], "corner" if corner else where)
      distances.append(distance * 100 / 1024)
  names = np.array(REGIONS)[regions][np.asarray(faces)]
  for where in ("upper", "lower"):
    indices = LIPS[f"{where}_outer"][1:-1]
    allowed = (names == f"{where}_lip").any(1) & np.isin(names, [f"{where}_lip", "face", "nose"]).all(1)
    face[list(indices)], barycentric[list(indices)] = closest_points(seen[list(indices)], np.asarray(vertices), np.asarray(faces), allowed)
  return {"inner_lips_snapped_mm_mean": float(np.mean(distances)), "inner_lips_snapped_mm_max": float(np.max(distances))}


def _place_irises(face, barycentric, points, weights, template, faces, names, eyes) -> None:
  """Centre and four rim points of each iris, in the order in which the pictures show the four."""
  mean = _robust_mean(points, weights)
  for side, eye in (("left", eyes[0]), ("right", eyes[1])):
    indices = list(_IRISES[side])
    local = mean[indices] - mean[indices[0]]
    quarter = np.round(np.arctan2(local[:, 1], local[:, 0]) / (np.pi / 2)) * (np.pi / 2)
    radius = np.where(np.arange(5) == 0, 0, IRIS_RADIUS)
    wanted = np.stack([eye[0] + radius * np.cos(quarter), eye[1] + radius * np.sin(quarter), np.full(5, eye[2] + 0.0125)], axis=1)
    ball = (names == f"{side}_eyeball")[faces].all(1)
    face[indices], barycentric[indices] = closest_points(wanted, template, faces, ball)


def _symmetrise(face, barycentric, pair, template, faces, mirror) -> None:
  """Right points take the mirror image of the left ones; points on the middle line are moved onto it."""
  partner, order = _mirror_faces(faces, mirror)
  for index, other in enumerate(pair):
    if other == index:
      point = np.einsum("k,kc->c", barycentric[index], template[faces[face[index]]]) * [0, 1, 1]
      near = np.zeros(len(faces), bool)
      around = np.isin(faces, faces[face[index]]).any(1)
      near[around] = True
      face[index : index + 1], barycentric[index : index + 1] = closest_points(point[None], template, faces, near)
    elif index < other:
      left, right = (index, other) if (barycentric[index] @ template[faces[face[index]]])[0] > 0 else (other, index)
      face[right] = partner[face[left]]
      barycentric[right] = barycentric[left][order[face[left]]]


def embed_ibug(face: np.ndarray, barycentric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The 68 points as a choice among the 478."""
  chosen = list(IBUG_FROM_MEDIAPIPE)
  return face[chosen], barycentric[chosen]
