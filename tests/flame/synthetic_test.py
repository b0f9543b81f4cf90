"""The synthetic rig has the interface and the manners of a real one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame.model import flame_vertices, joints, landmarks
from silky_jax.flame.regions import REGIONS, vertex_mask
from silky_jax.flame.synthetic import synthetic_rig
from silky_jax.geometry.mesh import edge_faces, face_normals
from silky_jax.geometry.uv import rasterize_uv
from silky_jax.math.rotation import matrix_from_axis_angle


@pytest.fixture(scope="module")
def head():
  return synthetic_rig(3)


def test_rest_pose_and_sizes(head):
  rig, embedding = head
  assert 300 < len(rig.template) < 800
  vertices, _ = flame_vertices(rig, jnp.zeros(8), jnp.zeros(6), jnp.zeros((5, 3)))
  np.testing.assert_allclose(vertices, rig.template, atol=1e-6)
  np.testing.assert_allclose(rig.skinning.sum(1), 1, atol=1e-6)
  np.testing.assert_allclose(rig.joint_regressor.sum(1), 1, atol=1e-5)
  assert set(rig.region_names) <= set(REGIONS)
  assert landmarks(vertices, rig.faces, embedding).shape == (40, 3)


def test_normals_point_outwards(head):
  rig, _ = head
  centre = np.asarray(rig.template)[np.asarray(rig.faces)].mean(1)
  normals = np.asarray(face_normals(rig.template, rig.faces))
  skin = np.asarray(rig.faces).max(1) <= 16 * 24
  assert ((centre * normals).sum(1)[skin] > 0).all()
  left = np.asarray(vertex_mask(rig, {"left_eyeball"}))[np.asarray(rig.faces)].all(1)
  assert (((centre - [0.03, 0.02, 0.072]) * normals).sum(1)[left] > 0).all()
  edge_faces(np.asarray(rig.faces))


def test_jaw_opens_and_eyelids_keep_their_side(head):
  rig, _ = head
  zero = (jnp.zeros(8), jnp.zeros(6))
  lower = np.asarray(vertex_mask(rig, {"lower_lip"}))
  opened, _ = flame_vertices(rig, *zero, jnp.zeros((5, 3)).at[2, 0].set(0.3))
  assert (np.asarray(opened - rig.template)[lower, 1] < -5e-3).all()
  closed, _ = flame_vertices(rig, *zero, jnp.zeros((5, 3)), eyelids=jnp.asarray([1.0, 0.0]))
  moved = np.abs(closed - rig.template).max(1) > 1e-4
  assert moved.any() and (np.asarray(rig.template)[moved, 0] > 0).all()


def test_rigid_motion_commutes(head):
  rig, _ = head
  shape, expression = jax.random.normal(jax.random.key(0), (8,)), jax.random.normal(jax.random.key(1), (6,))
  pose, turn = 0.2 * jax.random.normal(jax.random.key(2), (5, 3)), jnp.asarray([0.1, 0.8, -0.3])
  still, _ = flame_vertices(rig, shape, expression, pose.at[0].set(0), eyelids=jnp.ones(2))
  moved, transforms = flame_vertices(rig, shape, expression, pose.at[0].set(turn), eyelids=jnp.ones(2))
  root = joints(rig, shape, expression)[0]
  np.testing.assert_allclose(moved, (still - root) @ matrix_from_axis_angle(turn).T + root, atol=1e-6)
  np.testing.assert_allclose(transforms[0, :3, :3] @ root + transforms[0, :3, 3], root, atol=1e-6)


def test_texture_covers_without_overlap(head):
  rig, _ = head
  atlas = rasterize_uv(np.asarray(rig.uv), np.asarray(rig.uv_faces), 64)
  assert atlas.covered.mean() > 0.8
  corners = np.asarray(rig.uv)[np.asarray(rig.uv_faces)]
  a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
  assert abs(area - atlas.covered.mean()) < 0.02


def test_seeds_differ_and_repeat():
  first, again, other = synthetic_rig(1)[0], synthetic_rig(1)[0], synthetic_rig(2)[0]
  np.testing.assert_array_equal(first.shape_basis, again.shape_basis)
  assert np.abs(first.shape_basis - other.shape_basis).max() > 1e-4
