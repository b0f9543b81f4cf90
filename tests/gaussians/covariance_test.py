"""Covariances against NumPy, their inverse, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from silky_jax.gaussians.covariance import axes_from_covariance, covariance_from_axes, pack, unpack


def _axes(seed=0, shape=(2, 5)):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(*shape, 4)).astype(np.float32) * 3, rng.uniform(0.002, 0.01, size=(*shape, 3)).astype(np.float32)


def _rotation(quaternion):
  """By conjugation, q v q*: shares nothing with the library's matrix formula."""
  w, x, y, z = quaternion / np.linalg.norm(quaternion)

  def product(a, b):
    return np.array([a[0] * b[0] - a[1:] @ b[1:], *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))])

  turn, back = np.array([w, x, y, z]), np.array([w, -x, -y, -z])
  return np.stack([product(product(turn, np.array([0, *axis])), back)[1:] for axis in np.eye(3)], axis=1)


def test_matches_numpy_for_unnormalised_quaternions():
  quaternions, deviations = _axes()
  found = np.asarray(covariance_from_axes(jnp.asarray(quaternions), jnp.asarray(deviations)))
  for index in np.ndindex(2, 5):
    turn = _rotation(quaternions[index].astype(np.float64))
    np.testing.assert_allclose(found[index], turn @ np.diag(deviations[index].astype(np.float64) ** 2) @ turn.T, rtol=1e-4, atol=1e-11)
  np.testing.assert_array_equal(found, np.swapaxes(found, -1, -2))


def test_axes_invert_up_to_order_and_sign():
  covariances = covariance_from_axes(*map(jnp.asarray, _axes(1)))
  quaternions, deviations = axes_from_covariance(covariances)
  np.testing.assert_allclose(covariance_from_axes(quaternions, deviations), covariances, rtol=1e-3, atol=1e-10)
  np.testing.assert_allclose(jnp.linalg.norm(quaternions, axis=-1), 1, atol=1e-5)
  flat_quaternion, flat_deviations = axes_from_covariance(jnp.diag(jnp.array([1e-6, 0.0, 4e-6])))
  np.testing.assert_allclose(covariance_from_axes(flat_quaternion[None], flat_deviations[None])[0], np.diag([1e-6, 0, 4e-6]), atol=1e-12)


def test_pack_round_trip_and_order():
  covariances = covariance_from_axes(*map(jnp.asarray, _axes(2)))
  np.testing.assert_array_equal(unpack(pack(covariances)), covariances)
  np.testing.assert_array_equal(pack(jnp.arange(9.0).reshape(3, 3)), [0, 1, 2, 4, 5, 8])


def test_gradient_equals_finite_differences(x64):
  quaternions, deviations = (np.asarray(a, np.float64) for a in _axes(3, (4,)))
  weights = np.random.default_rng(4).normal(size=(4, 3, 3))

  def loss(quaternions, deviations):
    return jnp.sum(covariance_from_axes(jnp.asarray(quaternions), jnp.asarray(deviations) * 100) * weights)

  check_grads(loss, (quaternions, deviations), order=1, modes="rev", rtol=1e-5)


def test_zero_quaternion_is_finite():
  value, gradient = jax.value_and_grad(lambda q: jnp.sum(covariance_from_axes(q, jnp.ones((1, 3)))))(jnp.zeros((1, 4)))
  assert np.isfinite(value) and np.isfinite(gradient).all()
