"""The mesh z-buffer against a slow independent one, and on cases worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.flame.synthetic import synthetic_rig
from silky_jax.geometry import camera as cameras
from silky_jax.render.mesh import interpolate, rasterize_mesh, vertex_visibility

_draw = jax.jit(rasterize_mesh)
_FRONT = jnp.eye(4)  # the camera stands in the origin and looks along +z


def _camera(size: int = 16, focal: float = 16.0):
  return cameras.from_focal(_FRONT, focal, width=size, height=size)


def _slow(vertices, faces, camera):
  """Ray against triangle by ray and face in float64: nearest face and depth per pixel."""
  pose, k = np.asarray(camera.world_to_camera, np.float64), np.asarray(camera.intrinsics, np.float64)
  local = np.asarray(vertices, np.float64) @ pose[:3, :3].T + pose[:3, 3]
  columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
  rays = np.stack([(columns - k[0, 2]) / k[0, 0], (rows - k[1, 2]) / k[1, 1], np.ones_like(rows)], axis=-1)
  best, nearest, second = np.full(rows.shape, -1), np.full(rows.shape, np.inf), np.full(rows.shape, np.inf)
  for number, face in enumerate(np.asarray(faces)):
    a, b, c = local[face]
    matrix = np.stack([a, b, c], axis=1)
    if abs(np.linalg.det(matrix)) < 1e-15 or min(a[2], b[2], c[2]) <= 1e-2:
      continue
    weights = rays @ np.linalg.inv(matrix).T  # ray * depth = weighted corners
    total = weights.sum(-1)
    depth = np.where((weights >= 0).all(-1) & (total > 0), 1 / np.where(total == 0, 1, total), np.inf)
    closer = depth < nearest
    second = np.where(closer, nearest, np.minimum(second, depth))
    best, nearest = np.where(closer, number, best), np.where(closer, depth, nearest)
  return best, nearest, second


def test_equals_ray_casting_on_a_head():
  rig, _ = synthetic_rig(0)
  pose = cameras.look_at(jnp.asarray([0.2, 0.1, 0.5]), jnp.zeros(3))
  camera = cameras.from_focal(pose, 150.0, width=96, height=64)
  ids, weights, depth = _draw(rig.template, rig.faces, camera)
  best, nearest, second = _slow(rig.template, rig.faces, camera)
  clear = (second > nearest * 1.0001) & (best >= 0)  # pixel centres on shared edges may go to either face
  assert (np.asarray(ids)[clear] == best[clear]).mean() > 0.999
  assert (((np.asarray(ids) >= 0) != (best >= 0)).sum()) <= 2
  both = (np.asarray(ids) >= 0) & (best >= 0)
  np.testing.assert_allclose(np.asarray(depth)[both], nearest[both], rtol=1e-4)
  np.testing.assert_allclose(np.asarray(weights)[both].sum(-1), 1, atol=1e-5)


def test_interpolation_is_perspective_correct():
  vertices = jnp.asarray([[-1.0, -1, 2], [3, -1, 6], [-1, 3, 2]])
  faces = jnp.asarray([[0, 1, 2]])
  ids, weights, depth = _draw(vertices, faces, _camera())
  points = interpolate(vertices, faces, ids, weights)
  hit = np.asarray(ids) >= 0
  assert hit.sum() > 20
  pixels, depths = cameras.project(points.reshape(-1, 3), _camera())
  columns, rows = np.meshgrid(np.arange(16) + 0.5, np.arange(16) + 0.5)
  np.testing.assert_allclose(np.asarray(pixels).reshape(16, 16, 2)[hit], np.stack([columns, rows], -1)[hit], atol=1e-3)
  np.testing.assert_allclose(np.asarray(depths).reshape(16, 16)[hit], np.asarray(depth)[hit], rtol=1e-5)
  assert (np.asarray(points)[~hit] == 0).all() and (np.asarray(depth)[~hit] == 0).all()


def test_nearer_face_wins_whatever_the_order():
  near = jnp.asarray([[-5.0, -5, 1], [5, -5, 1], [0, 5, 1]])
  vertices = jnp.concatenate([near + jnp.asarray([0, 0, 1.0]), near])
  for faces, winner in (([[0, 1, 2], [3, 4, 5]], 1), ([[3, 4, 5], [0, 1, 2]], 0), ([[0, 2, 1], [5, 4, 3]], 1)):
    ids, _, depth = _draw(vertices, jnp.asarray(faces), _camera())
    assert int(ids[8, 8]) == winner and abs(float(depth[8, 8]) - 1) < 1e-6


def test_equal_depth_goes_to_the_lowest_id():
  vertices = jnp.asarray([[-5.0, -5, 1], [5, -5, 1], [0, 5, 1]])
  ids, _, _ = _draw(vertices, jnp.asarray([[2, 1, 0], [0, 1, 2], [1, 2, 0]]), _camera())
  assert set(np.unique(ids)) == {-1, 0} or set(np.unique(ids)) == {0}


def test_a_face_larger_than_the_picture_covers_it():
  vertices = jnp.asarray([[-500.0, -500, 1], [500, -500, 1], [0, 900, 1]])
  ids, _, _ = _draw(vertices, jnp.asarray([[0, 1, 2]]), _camera(130))
  assert (np.asarray(ids) == 0).all()


def test_faces_behind_or_at_the_camera_are_left_out():
  vertices = jnp.asarray([[-1.0, -1, -1], [1, -1, -1], [0, 1, -1], [0, 1, 1]])
  ids, weights, depth = _draw(vertices, jnp.asarray([[0, 1, 2], [0, 1, 3]]), _camera())
  assert (np.asarray(ids) == -1).all() and np.isfinite(weights).all() and np.isfinite(depth).all()


def test_vmap_equals_loop():
  rig, _ = synthetic_rig(0)
  eyes = jnp.asarray([[0.0, 0, 0.6], [0.5, 0, 0.3]])
  camera = cameras.from_focal(cameras.look_at(eyes, jnp.zeros((2, 3))), 60.0, width=32, height=32)
  together = jax.jit(jax.vmap(rasterize_mesh, in_axes=(None, None, 0)))(rig.template, rig.faces, camera)[0]
  for number in range(2):
    one = jax.tree.map(lambda leaf, n=number: leaf[n], camera)
    np.testing.assert_array_equal(together[number], _draw(rig.template, rig.faces, one)[0])


def test_gradient_of_depth_equals_finite_differences():
  vertices = jnp.asarray([[-1.0, -1, 2], [1.5, -1, 3], [-1, 1.5, 2.5]])
  faces = jnp.asarray([[0, 1, 2]])

  def middle(moved):
    return _draw(moved, faces, _camera())[2][7, 7]

  gradient = np.asarray(jax.jit(jax.grad(middle))(vertices))
  for vertex, axis in ((0, 2), (1, 0), (2, 1)):
    step = jnp.zeros((3, 3)).at[vertex, axis].set(1e-2)
    difference = (middle(vertices + step) - middle(vertices - step)) / 2e-2
    np.testing.assert_allclose(gradient[vertex, axis], difference, rtol=2e-2, atol=1e-4)


def test_visibility():
  wall = [[-5.0, -5, 1], [5, -5, 1], [0, 5, 1]]
  points = [[0, 0, 0.5], [0, 0, 1.0], [0, 0, 2.0], [9, 0, 0.5], [0, 0, -1]]
  seen = jax.jit(vertex_visibility)(jnp.asarray(wall + points), jnp.asarray([[0, 1, 2]]), _camera(64, 32.0))
  np.testing.assert_array_equal(seen[3:], [True, True, False, False, False])
