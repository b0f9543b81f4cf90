"""Rotations: round trips, known matrices, and gradients at angle 0 and pi."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.math import rotation

_ROUND_TRIP = jax.jit(jax.jacobian(lambda v: rotation.axis_angle_from_matrix(rotation.matrix_from_axis_angle(v))))
_LOGARITHM = jax.jit(jax.jacobian(rotation.axis_angle_from_matrix))


def _vectors(seed: int, count: int = 200) -> np.ndarray:
  """Axis-angle vectors, angles spread over [1e-7, pi)."""
  generator = np.random.default_rng(seed)
  axes = generator.normal(size=(count, 3))
  axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
  angles = np.concatenate([np.geomspace(1e-7, 1, count // 2), np.linspace(1, np.pi - 1e-5, count - count // 2)])
  return axes * angles[:, None]


def _taylor(vector: np.ndarray) -> np.ndarray:
  """Matrix exponential of the cross-product matrix by scaling and squaring, in float64."""
  x, y, z = vector / 64
  cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
  term, total = np.eye(3), np.eye(3)
  for k in range(1, 20):
    term = term @ cross / k
    total = total + term
  for _ in range(6):
    total = total @ total
  return total


def test_exponential_against_taylor_series(x64):
  vectors = _vectors(0)
  matrices = rotation.matrix_from_axis_angle(jnp.asarray(vectors))
  np.testing.assert_allclose(matrices, [_taylor(v) for v in vectors], atol=1e-13)
  np.testing.assert_allclose(matrices @ jnp.swapaxes(matrices, -1, -2), np.broadcast_to(np.eye(3), (200, 3, 3)), atol=1e-14)


def test_round_trips(x64):
  vectors = jnp.asarray(_vectors(1))
  matrices = rotation.matrix_from_axis_angle(vectors)
  quaternions = rotation.quaternion_from_axis_angle(vectors)
  np.testing.assert_allclose(rotation.axis_angle_from_matrix(matrices), vectors, atol=1e-9)
  np.testing.assert_allclose(rotation.axis_angle_from_quaternion(-2.5 * quaternions), vectors, atol=1e-13)
  np.testing.assert_allclose(rotation.matrix_from_quaternion(3 * quaternions), matrices, atol=1e-14)
  np.testing.assert_allclose(rotation.quaternion_from_matrix(matrices), quaternions, atol=1e-10)
  np.testing.assert_allclose(rotation.matrix_from_sixd(rotation.sixd_from_matrix(matrices)), matrices, atol=1e-14)


def test_product_and_conjugate(x64):
  left, right = (rotation.quaternion_from_axis_angle(jnp.asarray(_vectors(s))) for s in (2, 3))
  right = right[::-1]
  product = rotation.matrix_from_quaternion(rotation.quaternion_multiply(left, right))
  np.testing.assert_allclose(product, rotation.matrix_from_quaternion(left) @ rotation.matrix_from_quaternion(right), atol=1e-14)
  unit = rotation.quaternion_multiply(left, rotation.quaternion_conjugate(left))
  np.testing.assert_allclose(unit, np.broadcast_to([1, 0, 0, 0], (200, 4)), atol=1e-14)


def test_known_quarter_turn():
  quarter = jnp.asarray([0, 0, jnp.pi / 2])
  expected = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
  np.testing.assert_allclose(rotation.matrix_from_axis_angle(quarter), expected, atol=3e-7)
  np.testing.assert_allclose(rotation.matrix_from_quaternion(jnp.asarray([1.0, 0, 0, 1])), expected, atol=3e-7)


def test_sixd_anchors():
  np.testing.assert_array_equal(rotation.sixd_from_matrix(jnp.eye(3)), [1, 0, 0, 0, 1, 0])
  quarter = rotation.matrix_from_axis_angle(jnp.asarray([0, 0, jnp.pi / 2]))
  np.testing.assert_allclose(rotation.sixd_from_matrix(quarter), [0, -1, 0, 1, 0, 0], atol=3e-7)
  skewed = rotation.matrix_from_sixd(jnp.asarray([2.0, 0, 0, 5, 3, 0]))
  np.testing.assert_allclose(skewed, np.eye(3), atol=1e-7)


@pytest.mark.parametrize("axis", [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [-1.0, 0, 0], [0.6, -0.8, 0], [0.48, 0.6, 0.64]])
def test_logarithm_at_pi(axis):
  axis = jnp.asarray(axis)
  matrix = rotation.matrix_from_axis_angle(jnp.pi * axis)
  vector = rotation.axis_angle_from_matrix(matrix)
  assert abs(abs(float(vector @ axis)) - np.pi) < 1e-3
  gradient = _ROUND_TRIP(jnp.pi * axis)
  assert np.isfinite(gradient).all()
  exact = jnp.eye(3) * 0 + 2 * axis[:, None] * axis[None] - jnp.eye(3)
  assert np.isfinite(_LOGARITHM(exact)).all()


def test_gradients_at_zero():
  zero = jnp.zeros(3)
  generators = jax.jit(jax.jacobian(rotation.matrix_from_axis_angle))(zero)
  np.testing.assert_allclose(generators, np.moveaxis(np.asarray(rotation.skew(jnp.eye(3))), 0, -1), atol=1e-7)
  round_trip = _ROUND_TRIP(zero)
  np.testing.assert_allclose(round_trip, np.eye(3), atol=1e-6)
  assert np.isfinite(jax.jit(jax.hessian(lambda v: rotation.matrix_from_axis_angle(v)[0, 1]))(zero)).all()
  np.testing.assert_allclose(jax.jit(jax.jacobian(rotation.quaternion_from_axis_angle))(zero)[1:], np.eye(3) / 2, atol=1e-7)
  assert np.isfinite(jax.jit(jax.jacobian(rotation.matrix_from_quaternion))(jnp.zeros(4))).all()
  np.testing.assert_array_equal(rotation.matrix_from_quaternion(jnp.zeros(4)), np.eye(3))
  assert np.isfinite(jax.jit(jax.jacobian(rotation.matrix_from_sixd))(jnp.zeros(6))).all()


def _total(vector):
  quaternion = rotation.quaternion_from_matrix(rotation.matrix_from_axis_angle(vector))
  log = rotation.axis_angle_from_quaternion(rotation.quaternion_from_axis_angle(vector))
  return quaternion @ jnp.asarray([1.0, 2, 3, 4]) + log @ jnp.asarray([0.5, -1, 2])


_TOTAL = jax.jit(jax.value_and_grad(_total))


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.099, 0.101, 0.5, 2.0, 3.1])
def test_gradients_against_finite_differences(x64, angle):
  vector = angle * jnp.asarray([0.48, 0.6, 0.64])
  step = 1e-5
  expected = [(_TOTAL(vector + step * e)[0] - _TOTAL(vector - step * e)[0]) / (2 * step) for e in jnp.eye(3)]
  np.testing.assert_allclose(_TOTAL(vector)[1], np.asarray(expected), atol=1e-7)
