"""The UV atlas against a slow independent count, on known layouts and on the open head."""

import numpy as np
import pytest

from silky_jax.flame import open_head
from silky_jax.geometry.uv import rasterize_uv


def _count(uv: np.ndarray, uv_faces: np.ndarray, size: int) -> np.ndarray:
  """Texels whose centre lies in some triangle, face by face in float64, by signs of edge functions."""
  covered = np.zeros((size, size), bool)
  u = (np.arange(size) + 0.5) / size
  v = 1 - (np.arange(size) + 0.5) / size
  for face in uv_faces:
    a, b, c = uv[face].astype(np.float64)
    columns = np.flatnonzero((u >= min(a[0], b[0], c[0])) & (u <= max(a[0], b[0], c[0])))
    rows = np.flatnonzero((v >= min(a[1], b[1], c[1])) & (v <= max(a[1], b[1], c[1])))
    if not len(columns) or not len(rows):
      continue
    x, y = np.meshgrid(u[columns], v[rows])
    sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
    inside = ((sides[0] >= 0) & (sides[1] >= 0) & (sides[2] >= 0)) | ((sides[0] <= 0) & (sides[1] <= 0) & (sides[2] <= 0))
    covered[np.ix_(rows, columns)] |= inside
  return covered


@pytest.mark.parametrize("size", [64, 128, 256])
def test_coverage_of_the_open_head(size):
  rig, _, _ = open_head.load()
  uv, uv_faces = np.asarray(rig.uv), np.asarray(rig.uv_faces)
  atlas = rasterize_uv(uv, uv_faces, size)
  # Texel centres that fall on an edge to the last bit may go either way.
  assert (atlas.covered != _count(uv, uv_faces, size)).sum() <= size // 16
  assert atlas.covered.sum() > 0.9 * size * size


def test_texels_sample_their_own_centre():
  rig, _, _ = open_head.load()
  uv, uv_faces = np.asarray(rig.uv, np.float64), np.asarray(rig.uv_faces)
  atlas = rasterize_uv(uv, uv_faces, 128)
  rows, columns = np.nonzero(atlas.covered)
  points = np.einsum("tk,tkc->tc", atlas.barycentric[rows, columns], uv[uv_faces[atlas.face_ids[rows, columns]]])
  np.testing.assert_allclose(points, np.stack([(columns + 0.5) / 128, 1 - (rows + 0.5) / 128], axis=1), atol=1e-6)
  np.testing.assert_allclose(atlas.barycentric[rows, columns].sum(1), 1, atol=1e-6)
  assert (atlas.barycentric >= 0).all()


def test_a_known_layout():
  uv = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]])
  atlas = rasterize_uv(uv, np.array([[0, 1, 2], [1, 3, 2]]), 4)
  expected = np.full((4, 4), -1)
  expected[2, 0], expected[2, 1], expected[3, 0], expected[3, 1] = 0, 1, 0, 0  # the two on the diagonal go to the lower id
  np.testing.assert_array_equal(atlas.face_ids, expected)


def test_no_texel_lies_in_two_faces():
  rig, _, _ = open_head.load()
  corners = np.asarray(rig.uv, np.float64)[np.asarray(rig.uv_faces)]
  a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  signed = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
  covered = rasterize_uv(np.asarray(rig.uv), np.asarray(rig.uv_faces), 1024).covered.mean()
  # Overlap would make the triangles' areas sum to more than they cover.
  assert abs(np.abs(signed).sum() / 2 - covered) < 2e-4


def test_wrong_arguments_are_named():
  with pytest.raises(ValueError, match="size: expected a positive number of texels, got 0"):
    rasterize_uv(np.zeros((3, 2)), np.zeros((1, 3), int), 0)
  with pytest.raises(ValueError, match=r"got \(3, 3\) and \(1, 3\)"):
    rasterize_uv(np.zeros((3, 3)), np.zeros((1, 3), int), 8)
