"""The FLAME function on the open head: rest pose, rigid motion, eyelids, jaw, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices, joints, landmarks
from silky_jax.flame.synthetic import synthetic_rig
from silky_jax.math.rotation import matrix_from_axis_angle


@pytest.fixture(scope="module")
def head():
  rig, dense, _ = open_head.load()
  run = jax.jit(lambda shape, expression, pose, eyelids: flame_vertices(rig, shape, expression, pose, eyelids=eyelids))
  zero = (jnp.zeros(rig.shape_basis.shape[-1]), jnp.zeros(rig.expression_basis.shape[-1]), jnp.zeros((5, 3)), jnp.zeros(2))
  return rig, dense, run, zero


def _random(rig, seed):
  keys = jax.random.split(jax.random.key(seed), 4)
  shape = jax.random.normal(keys[0], rig.shape_basis.shape[-1:])
  expression = 0.3 * jax.random.uniform(keys[1], rig.expression_basis.shape[-1:])
  return shape, expression, 0.2 * jax.random.normal(keys[2], (5, 3)), jax.random.uniform(keys[3], (2,))


def test_rest_pose_is_the_template(head):
  rig, _, run, zero = head
  vertices, transforms = run(*zero)
  np.testing.assert_allclose(vertices, rig.template, atol=1e-7)
  np.testing.assert_allclose(transforms, np.broadcast_to(np.eye(4), (5, 4, 4)), atol=1e-7)


def test_root_rotation_is_rigid(head):
  rig, _, run, _ = head
  shape, expression, pose, eyelids = _random(rig, 0)
  turn = jnp.asarray([0.3, -0.5, 0.2])
  still, _ = run(shape, expression, pose.at[0].set(0), eyelids)
  moved, _ = run(shape, expression, pose.at[0].set(turn), eyelids)
  root = joints(rig, shape, expression)[0]
  np.testing.assert_allclose(moved, (still - root) @ matrix_from_axis_angle(turn).T + root, atol=2e-6)


def test_eyelids_move_their_own_side_only(head):
  _, _, run, zero = head
  rest = np.asarray(run(*zero)[0])
  left = np.asarray(run(*zero[:3], jnp.asarray([1.0, 0.0]))[0])
  moved = np.abs(left - rest).max(1) > 1e-5
  assert moved.sum() > 300
  assert (rest[moved, 0] > 0).all()


def test_eyelids_turn_with_the_head(head):
  rig, _, run, zero = head
  pose = zero[2].at[1].set(jnp.asarray([0.1, 0.6, 0.0]))
  closing = run(zero[0], zero[1], pose, jnp.ones(2))[0] - run(zero[0], zero[1], pose, jnp.zeros(2))[0]
  expected = jnp.sum(rig.eyelid_basis, axis=0) @ matrix_from_axis_angle(pose[1]).T
  np.testing.assert_allclose(closing, expected, atol=1e-6)


def test_jaw_opens_the_mouth_steadily(head):
  rig, dense, run, zero = head
  gaps = []
  for degrees in (0, 3, 6, 9, 12, 15, 18):
    vertices, _ = run(*zero[:2], zero[2].at[2, 0].set(np.radians(degrees)), zero[3])
    points = np.asarray(landmarks(vertices, rig.faces, dense))
    gaps.append(np.linalg.norm(points[13] - points[14]))
  assert (np.diff(gaps) > 2e-3).all(), gaps
  assert gaps[-1] > 0.03
  assert points[14, 1] < points[13, 1]


def test_gradients_are_finite_at_rest(head):
  rig, _, _, zero = head

  def total(shape, expression, pose, eyelids):
    vertices, _ = flame_vertices(rig, shape, expression, pose, eyelids=eyelids)
    return jnp.sum(vertices * jnp.arange(3.0))

  for gradient in jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*zero):
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_vmap_equals_loop(head):
  rig, _, run, _ = head
  items = [_random(rig, seed) for seed in range(3)]
  batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)
  together = jax.vmap(run)(*batch)[0]
  for number, item in enumerate(items):
    np.testing.assert_allclose(together[number], run(*item)[0], atol=1e-6)


def test_short_coefficients_and_offset(head):
  rig, _, _, zero = head
  offset = 1e-3 * jax.random.normal(jax.random.key(1), rig.template.shape)
  vertices, _ = flame_vertices(rig, jnp.ones(3), jnp.zeros(0), zero[2], offset=offset)
  np.testing.assert_allclose(vertices, rig.template + rig.shape_basis[..., :3].sum(-1) + offset, atol=1e-6)


def test_equals_a_plain_numpy_flame(x64):
  """The published equations, joint by joint and vertex by vertex, in float64."""
  rig, _ = synthetic_rig(4)
  rig = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, rig)
  generator = np.random.default_rng(0)
  shape, expression, pose = generator.normal(size=8), generator.normal(size=6), 0.4 * generator.normal(size=(5, 3))
  offset = 1e-3 * generator.normal(size=rig.template.shape)
  rest = np.asarray(rig.template) + np.asarray(rig.shape_basis) @ shape + np.asarray(rig.expression_basis) @ expression + offset
  places = np.asarray(rig.joint_regressor) @ rest
  turns = [np.asarray(matrix_from_axis_angle(jnp.asarray(vector))) for vector in pose]
  feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
  posed = rest + np.einsum("q,qvc->vc", feature, np.asarray(rig.pose_basis))
  world = {}
  for joint, parent in enumerate(rig.parents):
    base = np.zeros(3) if parent < 0 else places[parent]
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = turns[joint], places[joint] - base
    world[joint] = step if parent < 0 else world[parent] @ step
  expected = np.zeros_like(posed)
  for joint in range(5):
    relative = posed - places[joint]
    expected += np.asarray(rig.skinning)[:, joint : joint + 1] * (relative @ world[joint][:3, :3].T + world[joint][:3, 3])
  got, _ = flame_vertices(rig, jnp.asarray(shape), jnp.asarray(expression), jnp.asarray(pose), offset=jnp.asarray(offset))
  np.testing.assert_allclose(got, expected, atol=1e-12)
