"""Harmonics against their definition by Legendre functions, orthonormality, and finite gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from silky_jax.math import harmonics

# P_l^m(c) for m >= 0 with the Condon-Shortley phase, s = sqrt(1 - c^2).
LEGENDRE = {
  (0, 0): lambda c, s: 1 + 0 * c,
  (1, 0): lambda c, s: c,
  (1, 1): lambda c, s: -s,
  (2, 0): lambda c, s: (3 * c**2 - 1) / 2,
  (2, 1): lambda c, s: -3 * c * s,
  (2, 2): lambda c, s: 3 * s**2,
  (3, 0): lambda c, s: (5 * c**3 - 3 * c) / 2,
  (3, 1): lambda c, s: -3 / 2 * (5 * c**2 - 1) * s,
  (3, 2): lambda c, s: 15 * c * s**2,
  (3, 3): lambda c, s: -15 * s**3,
}


def _defined(degree, directions):
  unit = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
  c, p = unit[:, 2], np.arctan2(unit[:, 1], unit[:, 0])
  s, values = np.sqrt(1 - c**2), []
  for l in range(degree + 1):
    for m in range(-l, l + 1):
      a = abs(m)
      scale = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - a) / math.factorial(l + a))
      angular = 1 if m == 0 else math.sqrt(2) * (np.cos(a * p) if m > 0 else np.sin(a * p))
      values.append(scale * LEGENDRE[l, a](c, s) * angular)
  return np.stack(values, axis=-1)


@pytest.mark.parametrize("degree", range(4))
def test_basis_matches_its_definition(degree):
  directions = np.random.default_rng(0).normal(size=(50, 3))
  found = harmonics.basis(degree, jnp.asarray(directions, jnp.float32))
  np.testing.assert_allclose(found, _defined(degree, directions), atol=2e-6)


def test_basis_is_orthonormal():
  # Gauss-Legendre in z and equal steps in angle integrate polynomials of degree 6 on the sphere exactly.
  z, weights = np.polynomial.legendre.leggauss(8)
  angle = np.arange(16) * 2 * np.pi / 16
  directions = np.stack(
    [(np.sqrt(1 - z**2)[:, None] * np.cos(angle)), (np.sqrt(1 - z**2)[:, None] * np.sin(angle)), np.broadcast_to(z[:, None], (8, 16))],
    axis=-1,
  )
  values = np.asarray(harmonics.basis(3, jnp.asarray(directions, jnp.float32))).reshape(-1, 16)
  measure = np.repeat(weights * 2 * np.pi / 16, 16)
  np.testing.assert_allclose(values.T @ (values * measure[:, None]), np.eye(16), atol=1e-5)


def test_signs_of_the_file_format():
  # Published constants of 3D Gaussian splatting: colour varies with -C1 y, +C1 z, -C1 x.
  values = harmonics.basis(1, jnp.eye(3))
  c1 = 0.4886025119029199
  np.testing.assert_allclose(values[:, 1:], [[0, 0, -c1], [-c1, 0, 0], [0, c1, 0]], atol=1e-7)
  assert pytest.approx(0.28209479177387814) == harmonics.CONSTANT


def test_evaluate_sums_the_degrees_in_use():
  rng = np.random.default_rng(1)
  coefficients, directions = rng.normal(size=(2, 6, 16, 3)), rng.normal(size=(2, 6, 3))
  for degree in range(4):
    found = harmonics.evaluate(degree, jnp.asarray(coefficients, jnp.float32), jnp.asarray(directions, jnp.float32))
    count = (degree + 1) ** 2
    expected = np.einsum("nk,nkc->nc", _defined(degree, directions.reshape(-1, 3)), coefficients.reshape(12, 16, 3)[:, :count])
    np.testing.assert_allclose(np.asarray(found).reshape(12, 3), expected, atol=1e-5)


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match="degree"):
    harmonics.basis(4, jnp.ones((1, 3)))
  with pytest.raises(ValueError, match="coefficients"):
    harmonics.evaluate(2, jnp.ones((1, 4, 3)), jnp.ones((1, 3)))


def test_gradients(x64):
  rng = np.random.default_rng(2)
  coefficients, directions = jnp.asarray(rng.normal(size=(3, 16, 3))), jnp.asarray(rng.normal(size=(3, 3)))
  check_grads(
    lambda c, d: harmonics.evaluate(3, jnp.asarray(c), jnp.asarray(d)), (coefficients, directions), order=1, modes="rev", rtol=1e-5
  )
  gradient = jax.grad(lambda d: jnp.sum(harmonics.evaluate(3, coefficients, d)))(jnp.zeros((3, 3)))
  assert np.isfinite(gradient).all()
