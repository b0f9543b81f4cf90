"""Distances between Gaussians: numeric anchors, Monte Carlo, SciPy, gradients where Gaussians are equal or extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from silky_jax.math import gaussian

bhattacharyya, hellinger2, wasserstein2 = (jax.jit(f) for f in (gaussian.bhattacharyya, gaussian.hellinger2, gaussian.wasserstein2))


def _random(count, seed=0):
  rng = np.random.default_rng(seed)
  axes = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
  values = np.exp(rng.normal(size=(count, 3)))
  return jnp.asarray(rng.normal(size=(count, 3))), jnp.asarray(np.einsum("nij,nj,nkj->nik", axes, values, axes))


def test_anchor_5_hellinger_of_shifted_gaussians(x64):
  shifts = np.asarray([1.0, 2, 3, 4, 6])
  means = jnp.asarray(np.outer(shifts * 3, [0.6, 0, 0.8]))
  same = jnp.broadcast_to(9 * jnp.eye(3), (5, 3, 3))
  found = hellinger2(means, same, jnp.zeros((5, 3)), same)
  np.testing.assert_allclose(found, [0.11750, 0.39347, 0.67535, 0.86466, 0.98889], atol=5e-6)
  np.testing.assert_allclose(bhattacharyya(means, same, jnp.zeros((5, 3)), same), shifts**2 / 8, rtol=1e-12)


def test_hellinger_by_drawing_points(x64):
  """The overlap is the mean of sqrt(q / p) over points of p."""
  (a, b), (p, q) = _random(2, seed=1)
  points = np.random.default_rng(2).multivariate_normal(a, p, size=400_000)

  def log_density(mean, covariance):
    solved = np.linalg.solve(covariance, (points - mean).T).T
    return -0.5 * np.sum((points - mean) * solved, axis=1) - 0.5 * np.linalg.slogdet(covariance)[1]

  overlap = np.mean(np.exp(0.5 * (log_density(np.asarray(b), np.asarray(q)) - log_density(np.asarray(a), np.asarray(p)))))
  np.testing.assert_allclose(hellinger2(a, p, b, q), 1 - overlap, atol=4e-3)


def test_a_common_affine_map_changes_nothing(x64):
  (a, p), (b, q) = _random(5, seed=3), _random(5, seed=4)
  turn, shift = np.random.default_rng(5).normal(size=(3, 3)), np.asarray([3.0, -1, 2])
  move = lambda m, c: (m @ turn.T + shift, turn @ c @ turn.T)
  np.testing.assert_allclose(hellinger2(*move(a, p), *move(b, q)), hellinger2(a, p, b, q), rtol=1e-9)


def test_wasserstein_as_in_scipy_and_between_diagonals(x64):
  (a, p), (b, q) = _random(5, seed=6), _random(5, seed=7)
  wanted = []
  for k in range(5):
    half = scipy.linalg.sqrtm(np.asarray(p[k]))
    cross = scipy.linalg.sqrtm(half @ q[k] @ half).real
    wanted.append(np.sum((a[k] - b[k]) ** 2) + np.trace(p[k]) + np.trace(q[k]) - 2 * np.trace(cross))
  np.testing.assert_allclose(wasserstein2(a, p, b, q), wanted, rtol=1e-8)
  diagonal = lambda *values: jnp.diag(jnp.asarray(values))[None]
  found = wasserstein2(jnp.zeros((1, 3)), diagonal(1.0, 4.0, 9.0), jnp.zeros((1, 3)), diagonal(4.0, 4.0, 1.0))
  np.testing.assert_allclose(found, (1 - 2) ** 2 + (3 - 1) ** 2, rtol=1e-10)


@pytest.mark.parametrize("function", [gaussian.bhattacharyya, gaussian.hellinger2, gaussian.wasserstein2], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_gaussians_have_no_distance_and_no_gradient(x64, function, dtype):
  mean, covariance = _random(4, seed=8)
  covariance = covariance.at[0].set(9 * jnp.eye(3)).astype(dtype)
  mean = mean.astype(dtype)
  loss = jax.jit(lambda *given: jnp.sum(function(*given)))
  value, gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(mean, covariance, mean, covariance)
  tolerance = 3e-6 if dtype == "float32" else 1e-13
  assert abs(value) < 10 * tolerance
  for part in gradient:
    np.testing.assert_allclose(part, 0, atol=10 * tolerance)


@pytest.mark.parametrize("function", [gaussian.bhattacharyya, gaussian.hellinger2, gaussian.wasserstein2], ids=lambda f: f.__name__)
def test_gradients_are_those_of_differences(x64, function):
  (a, p), (b, q) = _random(3, seed=9), _random(3, seed=10)
  p = p.at[0].set(2 * jnp.eye(3))
  q = q.at[0].set(2 * jnp.eye(3))  # equal eigenvalues, and the same as the other's
  factor = lambda c: jnp.linalg.cholesky(c)
  square = lambda m: jnp.asarray(m) @ jnp.asarray(m).swapaxes(1, 2)
  of_factors = lambda a, l, b, r: function(jnp.asarray(a), square(l), jnp.asarray(b), square(r))
  check_grads(of_factors, (a, factor(p), b, factor(q)), order=1, modes=("fwd", "rev"), rtol=1e-5, atol=1e-5)


def test_needles_in_single_precision():
  """0.05 x 20 x 3 mm, blurred by 0.5 mm as the loss does it: value and gradient of float64 to a thousandth."""
  needle = np.diag(np.asarray([0.05, 20, 3.0]) ** 2 + 0.25)
  turned = np.linalg.qr(np.random.default_rng(11).normal(size=(3, 3)))[0]
  given = (np.zeros(3), needle, np.asarray([0.3, 1.0, -0.4]), turned @ needle @ turned.T)
  slopes = jax.jit(jax.value_and_grad(lambda *g: gaussian.hellinger2(*g), (0, 1, 2, 3)))
  value, gradient = slopes(*(jnp.asarray(g, jnp.float32) for g in given))
  before = jax.config.jax_enable_x64
  jax.config.update("jax_enable_x64", True)
  try:
    exact, wanted = slopes(*(jnp.asarray(g, jnp.float64) for g in given))
  finally:
    jax.config.update("jax_enable_x64", before)
  np.testing.assert_allclose(value, exact, rtol=1e-4)
  for a, b in zip(gradient, wanted, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max())
