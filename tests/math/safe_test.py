"""Finite values and gradients at the bad points, exact values elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.math import safe


@pytest.mark.parametrize(
  ("function", "points"),
  [
    (safe.sqrt, [-1.0, 0.0, 1e-38, 4.0]),
    (safe.acos, [-1.5, -1.0, -0.9999999, 0.0, 0.9999999, 1.0, 1.5]),
    (lambda x: safe.divide(jnp.float32(2), x), [0.0, 0.5]),
    (lambda x: safe.norm(jnp.stack([x, 0 * x, 0 * x])), [0.0, 1e-30, -3.0]),
    (lambda x: safe.normalise(jnp.stack([x, 0 * x, 0 * x]))[0], [0.0, 1e-30, 2.0]),
  ],
)
def test_value_and_gradient_are_finite(function, points):
  for point in points:
    value, gradient = jax.value_and_grad(function)(jnp.float32(point))
    assert np.isfinite(value) and np.isfinite(gradient), point


def test_values(x64):
  x = jnp.linspace(-0.999, 0.999, 41)
  np.testing.assert_allclose(safe.acos(x), np.arccos(x), atol=1e-14)
  np.testing.assert_allclose(safe.acos(jnp.asarray([1.0, -1.0, 2.0])), [0, np.pi, 0])
  np.testing.assert_allclose(safe.acos(jnp.asarray([1 - 5e-7, -1 + 5e-7])), np.arccos([1 - 5e-7, -1 + 5e-7]), atol=1e-9)
  np.testing.assert_allclose(safe.norm(jnp.asarray([[3.0, 4.0], [0.0, 0.0]])), [5, 0])
  np.testing.assert_allclose(safe.norm(jnp.asarray([[3.0, 4.0]]), keepdims=True), [[5]])
  np.testing.assert_allclose(safe.divide(jnp.asarray([1.0, 2.0]), jnp.asarray([0.0, 4.0])), [0, 0.5])
  np.testing.assert_allclose(safe.normalise(jnp.asarray([0.0, 3.0, 4.0])), [0, 0.6, 0.8])


def test_gradient_of_norm_is_the_direction():
  x = jnp.asarray([1.0, -2.0, 2.0])
  np.testing.assert_allclose(jax.grad(safe.norm)(x), x / 3, rtol=1e-6)
  np.testing.assert_array_equal(jax.grad(safe.norm)(jnp.zeros(3)), 0)
