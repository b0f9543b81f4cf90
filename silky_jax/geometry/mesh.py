"""Triangle meshes: frames on faces, normals, areas, adjacency, points by face and barycentric weights."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from silky_jax.math import safe
from silky_jax.math.precision import exact

__all__ = [
  "FaceFrames",
  "barycentric_points",
  "edge_faces",
  "face_areas",
  "face_frames",
  "face_normals",
  "face_pieces",
  "mesh_edges",
  "vertex_normals",
]


class FaceFrames(NamedTuple):
  """A right-handed orthonormal frame and a size on every face."""

  origin: Float[Array, "*b f 3"]  # centroid, metres
  rotation: Float[Array, "*b f 3 3"]  # columns: first edge, normal, -(normal x first edge)
  scale: Float[Array, "*b f"]  # metres


def _corners(vertices, faces):
  triangles = vertices[..., faces, :]
  return triangles[..., 0, :], triangles[..., 1, :], triangles[..., 2, :]


def face_frames(vertices: Float[Array, "*b v 3"], faces: Int[Array, "f 3"]) -> FaceFrames:
  """Frames of GaussianAvatars (Qian et al. 2024, section 3.1; the released code fixes the axes).

  a0 = unit(v1 - v0), a1 = unit(a0 x (v2 - v0)) the normal, a2 = -(a1 x a0); R = [a0 | a1 | a2];
  scale = (|v1 - v0| + |a2 . (v2 - v0)|) / 2, the mean of the first edge's length and the height above it.

  Args:
    vertices: metres.
    faces: vertex ids, counter-clockwise from outside.

  Returns:
    FaceFrames. A face without area has a rotation with zero columns and finite gradients.
  """
  first, second, third = _corners(vertices, faces)
  edge, side = second - first, third - first
  along = safe.normalise(edge)
  normal = safe.normalise(jnp.cross(along, side))
  across = -jnp.cross(normal, along)
  height = jnp.abs(jnp.sum(across * side, axis=-1))
  return FaceFrames(
    origin=(first + second + third) / 3,
    rotation=jnp.stack([along, normal, across], axis=-1),
    scale=(safe.norm(edge) + height) / 2,
  )


def face_normals(vertices: Float[Array, "*b v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "*b f 3"]:
  """Unit normals, by the right-hand rule over the corners; 0 for a face without area.

  Args:
    vertices: metres.
    faces: vertex ids.

  Returns:
    Unit normals per face.
  """
  first, second, third = _corners(vertices, faces)
  return safe.normalise(jnp.cross(second - first, third - first))


def face_areas(vertices: Float[Array, "*b v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "*b f"]:
  """Areas.

  Args:
    vertices: metres.
    faces: vertex ids.

  Returns:
    Square metres per face; gradient 0 for a face without area.
  """
  first, second, third = _corners(vertices, faces)
  return safe.norm(jnp.cross(second - first, third - first)) / 2


def vertex_normals(vertices: Float[Array, "*b v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "*b v 3"]:
  """Unit normals per vertex: the area-weighted mean of the normals around it.

  Args:
    vertices: metres.
    faces: vertex ids.

  Returns:
    Unit normals; 0 for a vertex without faces.
  """
  first, second, third = _corners(vertices, faces)
  weighted = jnp.cross(second - first, third - first)
  total = jnp.zeros_like(vertices)
  for corner in range(3):
    total = total.at[..., faces[:, corner], :].add(weighted)
  return safe.normalise(total)


@exact
def barycentric_points(
  vertices: Float[Array, "*b v c"], faces: Int[Array, "f 3"], face_indices: Int[Array, "n"], barycentric: Float[Array, "n 3"]
) -> Float[Array, "*b n c"]:
  """Points on the surface (or any per-vertex value there): sum_k w_k vertices[faces[i, k]].

  Args:
    vertices: positions in metres, or attributes.
    faces: vertex ids.
    face_indices: face of each point.
    barycentric: weights of its three corners.

  Returns:
    One row per point. Not differentiable in `face_indices`.
  """
  return jnp.einsum("nk,...nkc->...nc", barycentric, vertices[..., faces[face_indices], :])


def mesh_edges(faces: np.ndarray) -> np.ndarray:
  """Undirected edges, each once. Host code.

  Args:
    faces: [f, 3] vertex ids.

  Returns:
    [m, 2] int32, first id < second id, sorted.
  """
  faces = np.asarray(faces)
  return np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0).astype(np.int32)


def edge_faces(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Which faces meet at an edge. Host code.

  Args:
    faces: [f, 3] vertex ids of a mesh whose edges have one or two faces.

  Returns:
    edges: [m, 2] int32 as `mesh_edges`; adjacent: [m, 2] int32 face ids, the second is -1 at a border.

  Raises:
    ValueError: an edge with more than two faces.
  """
  faces = np.asarray(faces)
  sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
  edges, inverse, counts = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
  if counts.max(initial=0) > 2:
    raise ValueError(
      f"faces: expected at most two faces per edge, got {counts.max()} at the edge of vertices {edges[counts.argmax()].tolist()}"
    )
  order = np.argsort(inverse.ravel(), kind="stable")
  starts = np.cumsum(counts) - counts
  adjacent = np.full((len(edges), 2), -1, np.int32)
  adjacent[:, 0] = order[starts] // 3
  shared = counts == 2
  adjacent[shared, 1] = order[starts[shared] + 1] // 3
  return edges.astype(np.int32), adjacent


def face_pieces(faces: np.ndarray) -> np.ndarray:
  """Which connected piece of the mesh a face belongs to: an eyeball, the teeth, the skin. Host code.

  Args:
    faces: [f, 3] vertex ids.

  Returns:
    [f] int32, numbered from 0; two faces have the same number where a path of faces that share vertices joins them.
  """
  faces = np.asarray(faces)
  ends = faces[:, [0, 1, 1, 2]].reshape(-1, 2)
  graph = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(faces.max(initial=-1) + 1,) * 2)
  return connected_components(graph, directed=False)[1][faces[:, 0]].astype(np.int32)
