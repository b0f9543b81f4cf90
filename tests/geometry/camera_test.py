"""Cameras against hand-computed cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.geometry import camera as cameras


def _camera(width=64, height=48):
  pose = cameras.look_at(jnp.array([0.3, 0.2, 2.0]), jnp.array([0.0, 0.1, 0.0]))
  return cameras.from_focal(pose, jnp.array([70.0, 80.0]), jnp.array([30.0, 26.5]), width=width, height=height)


def test_front_view_has_x_right_y_down_z_forward():
  pose = cameras.look_at(jnp.array([0.0, 0.0, 2.0]), jnp.zeros(3))
  camera = cameras.from_focal(pose, 100.0, width=64, height=48)
  points = jnp.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 1.0]])
  pixels, depths = cameras.project(points, camera)
  np.testing.assert_allclose(pixels, [[32, 24], [37, 24], [32, 19], [32, 24]], atol=1e-5)
  np.testing.assert_allclose(depths, [2, 2, 2, 1], atol=1e-6)


def test_pose_is_a_proper_rotation_and_centre_is_the_eye():
  camera = _camera()
  rotation = camera.world_to_camera[:3, :3]
  np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
  np.testing.assert_allclose(jnp.linalg.det(rotation), 1.0, atol=1e-6)
  np.testing.assert_allclose(cameras.centre(camera), [0.3, 0.2, 2.0], atol=1e-6)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_looking_along_up_is_finite(direction):
  pose = cameras.look_at(jnp.array([0.0, direction, 0.0]), jnp.zeros(3))
  np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)


def test_project_matches_the_matrix_product():
  camera, points = _camera(), jax.random.normal(jax.random.key(0), (7, 3)) * 0.2
  homogeneous = np.concatenate([points, np.ones((7, 1))], axis=1)
  expected = np.asarray(camera.intrinsics) @ (np.asarray(camera.world_to_camera) @ homogeneous.T)[:3]
  pixels, depths = cameras.project(points, camera)
  np.testing.assert_allclose(pixels, (expected[:2] / expected[2]).T, rtol=1e-5)
  np.testing.assert_allclose(depths, expected[2], rtol=1e-6)


def test_unproject_inverts_project_in_batches():
  pose = cameras.look_at(jnp.array([[0.3, 0.2, 2.0], [-0.5, 0.0, 1.0]]), jnp.zeros((2, 3)))
  camera = cameras.from_focal(pose, jnp.array([[70.0, 80.0], [60.0, 60.0]]), width=64, height=48)
  points = jax.random.normal(jax.random.key(1), (2, 5, 3)) * 0.2
  np.testing.assert_allclose(cameras.unproject(*cameras.project(points, camera), camera), points, atol=1e-5)
  shared = points[0]
  one = jax.tree.map(lambda leaf: leaf[1], camera)
  np.testing.assert_allclose(cameras.project(shared, camera)[0][1], cameras.project(shared, one)[0], rtol=1e-5)


def test_opengl_round_trip():
  pose = _camera().world_to_camera
  flipped = cameras.flip_axes(pose)
  point = jnp.array([0.1, 0.2, 0.3, 1.0])
  np.testing.assert_allclose(flipped @ point, (pose @ point) * np.array([1, -1, -1, 1]), atol=1e-6)
  np.testing.assert_array_equal(cameras.flip_axes(flipped), pose)


def test_crop_and_rescale_move_pixels():
  camera, points = _camera(), jax.random.normal(jax.random.key(2), (6, 3)) * 0.1
  pixels, _ = cameras.project(points, camera)
  window = cameras.crop(camera, 5, 7.5, width=20, height=30)
  assert (window.width, window.height) == (20, 30)
  np.testing.assert_allclose(cameras.project(points, window)[0], pixels - np.array([5, 7.5]), atol=1e-4)
  small = cameras.rescale(camera, width=32, height=12)
  assert (small.width, small.height) == (32, 12)
  np.testing.assert_allclose(cameras.project(points, small)[0], pixels * np.array([0.5, 0.25]), rtol=1e-5)


def test_gradient_is_finite_on_the_camera_plane_and_jit_agrees():
  camera = _camera()
  points = jnp.stack([cameras.centre(camera), jnp.zeros(3)])

  def total(points, camera):
    return jnp.sum(cameras.project(points, camera)[0])

  gradient = jax.grad(total)(points, camera)
  assert np.isfinite(gradient).all()
  np.testing.assert_allclose(jax.jit(total)(points[1:], camera), total(points[1:], camera), rtol=1e-6)
