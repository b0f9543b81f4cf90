"""The open head's texture layout: skin as one square-filling sheet with chosen texel spacing, small islands for eyes, teeth and tongue.

The skin is a disc (mouth bag and eye sockets hang on it inside). It is slit along the back of the head, mapped onto a rectangle by
Tutte's embedding (which cannot fold), and relaxed under the symmetric Dirichlet energy of triangles whose wanted size is the surface
divided by the wanted texel spacing; the energy is infinite at a fold, so none can appear. Boundary vertices slide along their side.
"""

import heapq

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from experiments.open_head.cut import PARTS, Cut
from silky_jax.flame.regions import REGIONS
from silky_jax.geometry.mesh import edge_faces, mesh_edges

__all__ = ["layout"]

# Wanted distance of texels on the surface at 128 x 128, mm.
_SPACING = {
  "face": 2.6,
  "forehead": 2.9,
  "nose": 2.1,
  "left_brow": 2.3,
  "right_brow": 2.3,
  "left_eye_region": 1.7,
  "right_eye_region": 1.7,
  "eye_socket": 14.0,
  "upper_lip": 1.7,
  "lower_lip": 1.7,
  "mouth_interior": 7.0,
  "left_ear": 3.0,
  "right_ear": 3.0,
  "scalp": 5.2,
  "neck": 6.0,
  "torso": 30.0,
}
_STRIP = 14 / 128  # height kept below the skin for the small islands
_GAP = 0.5 / 128  # free border of every small island
# Boxes of the small islands in texels of 128: left edge, width; height is the strip's.
_BOXES = {
  "helper-l-eye": (0, 14),
  "helper-r-eye": (14, 14),
  "helper-upper-teeth": (35, 31),
  "helper-lower-teeth": (66, 31),
  "helper-tongue": (97, 31),
}
_BACKS = {"helper-l-eye": (28, 0), "helper-r-eye": (28, 7)}  # back halves of the eyeballs: 7 x 7 texels
_SIDE_SHARE = 0.62  # of the slit that runs up the sides of the rectangle; the rest lies along its top


def _slit(template: np.ndarray, faces: np.ndarray, mirror: np.ndarray, boundary: np.ndarray) -> list[int]:
  """Vertices of the middle line from the cut edge at the back up to the crown, along mesh edges."""
  middle = mirror == np.arange(len(mirror))
  edges = mesh_edges(faces)
  edges = edges[middle[edges].all(1)]
  neighbours: dict[int, list[int]] = {}
  for a, b in edges:
    neighbours.setdefault(int(a), []).append(int(b))
    neighbours.setdefault(int(b), []).append(int(a))
  start = min((int(v) for v in boundary if middle[v]), key=lambda v: template[v, 2])
  crown = max((v for v in neighbours), key=lambda v: template[v, 1])
  best, queue, previous = {start: 0.0}, [(0.0, start)], {}
  while queue:
    cost, vertex = heapq.heappop(queue)
    for other in neighbours[vertex]:
      # The way over the front is longer and passes the face: keep to the back.
      step = cost + np.linalg.norm(template[vertex] - template[other]) * (1 + 100 * (template[other, 2] > template[crown, 2] + 0.02))
      if step < best.get(other, np.inf):
        best[other], previous[other] = step, vertex
        heapq.heappush(queue, (step, other))
  path = [crown]
  while path[-1] != start:
    path.append(previous[path[-1]])
  return path[::-1]


def _open(faces: np.ndarray, path: list[int], template: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Double the slit's vertices (all but the crown): faces on the side x < 0 get the copies. Returns faces and the origin of each vertex."""
  copies = {vertex: count + number for number, vertex in enumerate(path[:-1])}
  right = template[faces].mean(1)[:, 0] < 0
  opened = faces.copy()
  for vertex, copy in copies.items():
    opened[right] = np.where(opened[right] == vertex, copy, opened[right])
  return opened, np.concatenate([np.arange(count), np.array(path[:-1])])


def _loop(faces: np.ndarray, first: int, second: int) -> list[int]:
  """The boundary loop from `first` towards `second`."""
  edges, adjacent = edge_faces(faces)
  neighbours: dict[int, list[int]] = {}
  for a, b in edges[adjacent[:, 1] < 0]:
    neighbours.setdefault(int(a), []).append(int(b))
    neighbours.setdefault(int(b), []).append(int(a))
  loop = [first, second]
  while True:
    following = [v for v in neighbours[loop[-1]] if v != loop[-2]]
    if following[0] == first:
      return loop
    loop.append(following[0])


def _place_boundary(loop: list[int], lengths: np.ndarray, crown: int, corner: int, height: float) -> tuple[np.ndarray, np.ndarray]:
  """Positions [b, 2] and which coordinates are fixed [b, 2] along the rectangle, from the lower right corner counter-clockwise.

  The loop runs: slit on the left of the head up to the crown, down the other side, then along the torso edge back.
  """
  total = np.concatenate([[0], np.cumsum(lengths)])
  at_crown, at_corner = total[loop.index(crown)], total[loop.index(corner)]
  stops = [0, _SIDE_SHARE * at_crown, at_crown, at_corner - _SIDE_SHARE * (at_corner - at_crown), at_corner, total[-1]]
  xs, ys = [1, 1, 0.5, 0, 0, 1], [0, height, height, height, 0, 0]
  for k in (1, 3, 4):  # a vertex sits in every corner
    nearest = int(np.abs(total[:-1] - stops[k]).argmin())
    stops[k] = total[nearest]
  position = np.stack([np.interp(total[:-1], stops, xs), np.interp(total[:-1], stops, ys)], axis=1)
  sides = np.stack([(position[:, 0] == 0) | (position[:, 0] == 1), (position[:, 1] == 0) | (position[:, 1] == height)], axis=1)
  return position, sides


def _laplacian(edges: np.ndarray, count: int) -> sparse.csc_matrix:
  ones = np.ones(len(edges))
  adjacency = sparse.coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
  adjacency = adjacency + adjacency.T
  return sparse.csc_matrix(sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency)


def _tutte(laplacian, fixed: np.ndarray, position: np.ndarray) -> np.ndarray:
  """Every free vertex in the mean of its neighbours."""
  free = ~fixed
  result = position.copy()
  solver = splu(sparse.csc_matrix(laplacian[free][:, free]))
  result[free] = solver.solve(-(laplacian[free][:, fixed] @ position[fixed]))
  return result


@jax.jit
def _energy(position, faces, rest_inverse, area):
  """Sum of area (|J|^2 + |J^-1|^2); infinite where a triangle is turned over."""
  corners = position[faces]
  edges = jnp.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=-1)
  jacobian = edges @ rest_inverse
  determinant = jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]
  good = determinant > 0
  square = jnp.sum(jacobian**2, axis=(1, 2))
  terms = square * (1 + 1 / jnp.where(good, determinant, 1) ** 2)
  return jnp.where(jnp.all(good), jnp.sum(area * terms), jnp.inf)


_value_and_gradient = jax.jit(jax.value_and_grad(_energy))


def _relax(position, faces, rest_inverse, area, fixed, laplacian, iterations: int) -> np.ndarray:
  """Limited-memory BFGS with the Laplacian as first Hessian and a backtracking search that never folds a triangle."""
  solvers = [splu(sparse.csc_matrix(laplacian[~fixed[:, k]][:, ~fixed[:, k]])) for k in (0, 1)]

  def precondition(vector):
    result = np.zeros_like(vector)
    for k in (0, 1):
      result[~fixed[:, k], k] = solvers[k].solve(vector[~fixed[:, k], k])
    return result

  def evaluate(point):
    value, gradient = _value_and_gradient(jnp.asarray(point), faces, rest_inverse, area)
    return float(value), np.where(fixed, 0, np.asarray(gradient))

  value, gradient = evaluate(position)
  history: list[tuple[np.ndarray, np.ndarray]] = []
  for _ in range(iterations):
    direction, alphas = gradient.copy(), []
    for step, change in reversed(history):
      alpha = (step * direction).sum() / (step * change).sum()
      alphas.append(alpha)
      direction -= alpha * change
    direction = precondition(direction)
    if history:
      step, change = history[-1]
      direction *= (step * change).sum() / (change * precondition(change)).sum()
    for (step, change), alpha in zip(history, reversed(alphas), strict=True):
      direction += (alpha - (change * direction).sum() / (step * change).sum()) * step
    slope = (gradient * direction).sum()
    size = 1.0
    while size > 1e-14:
      trial = position - size * direction
      trial_value = float(_energy(jnp.asarray(trial), faces, rest_inverse, area))
      if trial_value < value - 1e-4 * size * slope:
        break
      size *= 0.5
    else:
      if not history:
        break
      history = []
      continue
    trial_value, trial_gradient = evaluate(trial)
    step, change = trial - position, trial_gradient - gradient
    if (step * change).sum() > 0:
      history = [*history, (step, change)][-8:]
    done = value - trial_value < 1e-7 * value
    position, value, gradient = trial, trial_value, trial_gradient
    if done:
      break
  return position


def _rest_triangles(template: np.ndarray, faces: np.ndarray, spacing: np.ndarray) -> np.ndarray:
  """[f, 2, 2] edge vectors (columns) of each triangle laid flat, in wanted texels."""
  a, b = template[faces[:, 1]] - template[faces[:, 0]], template[faces[:, 2]] - template[faces[:, 0]]
  length = np.maximum(np.linalg.norm(a, axis=1), 1e-7)
  along = (a * b).sum(1) / length
  height = np.maximum(np.linalg.norm(np.cross(a, b), axis=1) / length, 1e-7)
  flat = np.zeros((len(faces), 2, 2))
  flat[:, 0, 0], flat[:, 0, 1], flat[:, 1, 1] = length, along, height
  # Slivers would freeze the sheet: no triangle is wanted thinner than 1 : 8.
  flat[:, 1, 1] = np.maximum(flat[:, 1, 1], np.maximum(length, np.abs(along)) / 8)
  return flat * 1e3 / spacing[:, None, None]


def _sheet(
  template: np.ndarray, faces: np.ndarray, regions: np.ndarray, mirror: np.ndarray, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
  """Texture coordinates of the skin in [0, 1] x [0, 1 - strip] and its texture faces."""
  edges, adjacent = edge_faces(faces)
  path = _slit(template, faces, mirror, np.unique(edges[adjacent[:, 1] < 0]))
  opened, origin = _open(faces, path, template, len(template))
  used, compact = np.unique(opened, return_inverse=True)
  opened, origin = compact.reshape(-1, 3), origin[used]
  place = {int(vertex): number for number, vertex in enumerate(used)}
  loop = _loop(opened, place[path[0]], place[path[1]])
  corner = place[len(template)]  # the copy of the slit's lower end
  spacing = np.exp(_smoothed(np.log([_SPACING.get(REGIONS[r], 4.0) for r in regions]), faces)[faces].mean(1))
  ends = np.append(loop[1:], loop[0])
  lengths = np.linalg.norm(template[origin[loop]] - template[origin[ends]], axis=1)
  height = 1 - _STRIP
  position = np.zeros((len(used), 2))
  fixed = np.zeros((len(used), 2), bool)
  position[loop], fixed[loop] = _place_boundary(loop, lengths, place[path[-1]], corner, height)
  laplacian = _laplacian(mesh_edges(opened), len(used))
  position = _tutte(laplacian, np.isin(np.arange(len(used)), loop), position)
  flat = _rest_triangles(template, faces, spacing)
  area = np.linalg.det(flat) / 2
  flat *= np.sqrt(height / area.sum())
  area = area / area.sum()
  if np.cross(*(position[opened[:, k]] - position[opened[:, 0]] for k in (1, 2))).sum() < 0:
    raise RuntimeError("atlas: the boundary runs the wrong way round")
  with jax.enable_x64(True):
    arrays = (jnp.asarray(opened), jnp.asarray(np.linalg.inv(flat)), jnp.asarray(area))
    position = _relax(position, *arrays, fixed, laplacian, iterations)
  return position + np.array([0, _STRIP]), opened


def _smoothed(values: np.ndarray, faces: np.ndarray, rounds: int = 3) -> np.ndarray:
  """Mean with the neighbours, a few times."""
  edges = mesh_edges(faces)
  for _ in range(rounds):
    total, count = values.copy(), np.ones(len(values))
    for a, b in (edges.T, edges[:, ::-1].T):
      np.add.at(total, a, values[b])
      np.add.at(count, a, 1)
    values = total / count
  return values


def _fit(corners: np.ndarray, left: float, bottom: float, width: float, height: float) -> np.ndarray:
  """Stretch points to fill a box less its border; a box that is wider than the points are turns them if that suits better."""
  low, high = corners.min(0), corners.max(0)
  if (high - low)[0] < (high - low)[1] and width > height:
    corners = np.stack([corners[:, 1], -corners[:, 0]], axis=1)
    low, high = corners.min(0), corners.max(0)
  inner = np.array([width, height]) - 2 * _GAP
  return (corners - low) / (high - low) * inner + [left + _GAP, bottom + _GAP]


def layout(template: np.ndarray, cut: Cut, regions: np.ndarray, *, iterations: int = 400) -> tuple[np.ndarray, np.ndarray]:
  """Texture coordinates and texture faces of the whole head.

  Args:
    template: [v, 3] metres.
    cut: parts, faces, MakeHuman's own layout (kept for the small islands, stretched into their boxes).
    regions: [v] into REGIONS.
    iterations: of the relaxation.

  Returns:
    uv [u, 2] in 0..1, v up; uv_faces [f, 3]. No two faces overlap.
  """
  uv_faces = np.zeros_like(cut.faces)
  skin = cut.face_parts == 0
  sheet, opened = _sheet(template, cut.faces[skin], regions, cut.mirror, iterations)
  blocks, count = [sheet], len(sheet)
  uv_faces[skin] = opened
  for number, name in enumerate(PARTS[1:], start=1):
    chosen = np.flatnonzero(cut.face_parts == number)
    left, width = _BOXES[name]
    groups = [(chosen, (left / 128, 0, width / 128, _STRIP))]
    if name in _BACKS:
      centre = template[cut.parts == number, 2].mean()
      front = template[cut.faces[chosen]].mean(1)[:, 2] > centre
      x, y = _BACKS[name]
      groups = [(chosen[front], groups[0][1]), (chosen[~front], (x / 128, y / 128, 7 / 128, 7 / 128))]
    for members, box in groups:
      ids, inverse = np.unique(cut.texture_faces[members], return_inverse=True)
      blocks.append(_fit(cut.texture[ids], *box))
      uv_faces[members] = inverse.reshape(-1, 3) + count
      count += len(ids)
  return np.concatenate(blocks), uv_faces
