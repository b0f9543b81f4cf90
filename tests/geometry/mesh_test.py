"""Meshes against cases worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.geometry import mesh

_TRIANGLE = jnp.asarray([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
_FACE = jnp.asarray([[0, 1, 2]])
_TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def test_face_frame_of_a_known_triangle():
  frames = mesh.face_frames(_TRIANGLE, _FACE)
  np.testing.assert_allclose(frames.rotation[0].T, [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-7)
  np.testing.assert_allclose(frames.scale, [1.5])
  np.testing.assert_allclose(frames.origin, [[2 / 3, 1 / 3, 0]], rtol=1e-6)


def test_frames_are_rotations_and_move_with_the_mesh():
  vertices = jax.random.normal(jax.random.key(0), (2, 9, 3))
  faces = jnp.arange(9).reshape(3, 3)
  frames = mesh.face_frames(vertices, faces)
  identity = jnp.broadcast_to(jnp.eye(3), (2, 3, 3, 3))
  np.testing.assert_allclose(jnp.swapaxes(frames.rotation, -1, -2) @ frames.rotation, identity, atol=1e-6)
  np.testing.assert_allclose(jnp.linalg.det(frames.rotation), 1, atol=1e-6)
  turn = jnp.asarray([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
  turned = mesh.face_frames(2 * vertices @ turn.T, faces)
  np.testing.assert_allclose(turned.rotation, turn @ frames.rotation, atol=1e-6)
  np.testing.assert_allclose(turned.scale, 2 * frames.scale, rtol=1e-5)


def test_a_face_without_area_has_finite_gradients():
  flat = jnp.asarray([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 0, 0]])
  faces = jnp.asarray([[0, 1, 2], [1, 1, 3]])

  def total(vertices):
    frames = mesh.face_frames(vertices, faces)
    return frames.rotation.sum() + frames.scale.sum() + mesh.face_areas(vertices, faces).sum() + mesh.vertex_normals(vertices, faces).sum()

  assert np.isfinite(jax.jit(jax.grad(total))(flat)).all()


def test_normals_and_areas():
  np.testing.assert_allclose(mesh.face_normals(_TRIANGLE, _FACE), [[0, 0, 1]])
  np.testing.assert_allclose(mesh.face_areas(_TRIANGLE, _FACE), [1])
  corners = jnp.asarray([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
  normals = mesh.vertex_normals(corners, jnp.asarray(_TETRAHEDRON))
  np.testing.assert_allclose(normals[0], -np.ones(3) / np.sqrt(3), atol=1e-6)
  batched = mesh.vertex_normals(jnp.stack([corners, 2 * corners]), jnp.asarray(_TETRAHEDRON))
  np.testing.assert_allclose(batched[1], normals, atol=1e-6)


def test_barycentric_points_of_positions_and_attributes():
  weights = jnp.asarray([[0.5, 0.25, 0.25], [0, 0, 1.0]])
  points = mesh.barycentric_points(_TRIANGLE, _FACE, jnp.asarray([0, 0]), weights)
  np.testing.assert_allclose(points, [[0.5, 0.25, 0], [0, 1, 0]])
  batched = mesh.barycentric_points(jnp.stack([_TRIANGLE, _TRIANGLE + 1])[..., :1], _FACE, jnp.asarray([0, 0]), weights)
  np.testing.assert_allclose(batched[1, :, 0], [1.5, 1])


def test_edges_and_their_faces():
  edges, adjacent = mesh.edge_faces(_TETRAHEDRON)
  assert len(edges) == 6 and (adjacent >= 0).all()
  np.testing.assert_array_equal(edges, mesh.mesh_edges(_TETRAHEDRON))
  for edge, (first, second) in zip(edges, adjacent, strict=True):
    assert set(edge) <= set(_TETRAHEDRON[first]) and set(edge) <= set(_TETRAHEDRON[second])
  edges, adjacent = mesh.edge_faces(_TETRAHEDRON[:3])
  assert (adjacent[:, 1] < 0).sum() == 3
  with pytest.raises(ValueError, match="at most two faces per edge, got 3"):
    mesh.edge_faces(np.array([[0, 1, 2], [0, 1, 3], [1, 0, 4]]))


def test_pieces_are_joined_by_shared_vertices():
  faces = np.array([[0, 1, 2], [5, 6, 7], [2, 3, 4], [7, 8, 9]])
  piece = mesh.face_pieces(faces)
  assert piece[0] == piece[2] != piece[1] == piece[3]
  assert len(mesh.face_pieces(np.zeros((0, 3), int))) == 0
