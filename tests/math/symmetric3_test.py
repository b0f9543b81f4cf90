"""Functions of symmetric matrices against SciPy and finite differences, above all where eigenvalues are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from silky_jax.math import symmetric3

FUNCTIONS = {
  "logarithm": (symmetric3.logarithm, scipy.linalg.logm),
  "exponential": (symmetric3.exponential, scipy.linalg.expm),
  "root": (symmetric3.root, scipy.linalg.sqrtm),
  "inverse_root": (symmetric3.inverse_root, lambda m: np.linalg.inv(scipy.linalg.sqrtm(m))),
}


def _turned(values, seed=0):
  rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
  return rotation @ np.diag(values) @ rotation.T


# Isotropic, two equal, nearly equal on either side of where series take over, generic, a needle, a plate.
MATRICES = {
  "isotropic": 2 * np.eye(3),
  "two equal": _turned([1.5, 1.5, 0.4]),
  "nearly equal": _turned([1, 1 + 1e-7, 1 + 1e-4]),
  "at the seam": _turned([1.0, 1.0201, 1.21]),
  "generic": _turned([0.3, 1.1, 2.7]),
  "diagonal": np.diag([0.5, 2.0, 1.0]),
  "needle": _turned([0.0025, 0.0025, 4.0]),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_as_in_scipy(x64, name, matrix):
  function, other = FUNCTIONS[name]
  wanted = np.real(other(MATRICES[matrix]))
  np.testing.assert_allclose(function(jnp.asarray(MATRICES[matrix])), wanted, atol=1e-12 * max(1, np.abs(wanted).max()))
  single = function(jnp.asarray(MATRICES[matrix], jnp.float32))
  np.testing.assert_allclose(single, wanted, atol=3e-5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_finite_differences(x64, name, matrix):
  function, other = FUNCTIONS[name]
  at, way = MATRICES[matrix], symmetric3.symmetric(np.random.default_rng(1).normal(size=(3, 3)))
  step = 1e-6 * np.linalg.eigvalsh(at)[0]
  wanted = np.real(other(at + step * way) - other(at - step * way)) / (2 * step)
  _, slope = jax.jvp(function, (jnp.asarray(at),), (jnp.asarray(way),))
  np.testing.assert_allclose(slope, wanted, atol=2e-7 * np.abs(wanted).max())
  # Reverse mode is the same linear map.
  weight = np.random.default_rng(2).normal(size=(3, 3))
  gradient = jax.grad(lambda m: jnp.sum(function(m) * weight))(jnp.asarray(at))
  np.testing.assert_allclose(jnp.sum(gradient * way), np.sum(wanted * weight), rtol=1e-5, atol=1e-7 * np.abs(wanted).max())
  # float32, with the error that its rounding explains.
  _, single = jax.jvp(function, (jnp.asarray(at, jnp.float32),), (jnp.asarray(way, jnp.float32),))
  np.testing.assert_allclose(single, slope, atol=2e-4 * np.abs(slope).max())


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", ["logarithm", "exponential"])
def test_derivatives_of_derivatives(x64, name, matrix):
  function = getattr(symmetric3, f"{name}_derivative")
  at, way, turn = (jnp.asarray(m) for m in (MATRICES[matrix], *(_turned([1, -2, 0.5], seed) for seed in (3, 4))))
  np.testing.assert_allclose(function(at, way), jax.jvp(FUNCTIONS[name][0], (at,), (way,))[1], atol=1e-12 * 1e4)
  step = 1e-6 * np.linalg.eigvalsh(at)[0]
  wanted = (function(at + step * turn, way) - function(at - step * turn, way)) / (2 * step)
  _, slope = jax.jvp(lambda m: function(m, way), (at,), (turn,))
  np.testing.assert_allclose(slope, wanted, atol=2e-6 * np.abs(wanted).max())
  check_grads(lambda h: function(at, h), (way,), order=1, modes=("fwd", "rev"))


def test_eigenvalues_as_in_lapack_and_orthonormal_vectors(x64):
  matrices = symmetric3.symmetric(np.random.default_rng(5).normal(size=(200, 3, 3)) * np.exp(np.random.default_rng(6).normal(size=(200, 1, 1)) * 8))
  values, vectors = symmetric3.eigen(jnp.asarray(matrices))
  wanted = np.linalg.eigvalsh(matrices)
  np.testing.assert_allclose(values, wanted, atol=1e-13 * np.abs(wanted).max(axis=1, keepdims=True).repeat(3, 1).max(), rtol=1e-9)
  scale = np.abs(wanted).max(axis=1)[:, None, None]
  np.testing.assert_allclose(np.einsum("nij,nj,nkj->nik", vectors, values, vectors) / scale, matrices / scale, atol=1e-14 * 50)
  np.testing.assert_allclose(np.einsum("nij,nik->njk", vectors, vectors), np.broadcast_to(np.eye(3), (200, 3, 3)), atol=1e-13)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_single_precision_at_any_scale(scale):
  matrices = np.stack([*MATRICES.values(), np.zeros((3, 3))]).astype(np.float32) * np.float32(scale)
  values, vectors = symmetric3.eigen(jnp.asarray(matrices))
  wanted = np.linalg.eigvalsh(matrices.astype(np.float64))
  np.testing.assert_allclose(values, wanted, atol=2e-6 * scale * 4, rtol=1e-3)
  assert np.isfinite(vectors).all()


def test_an_eigenvalue_that_is_not_positive_shows():
  assert np.isnan(symmetric3.logarithm(jnp.diag(jnp.asarray([1.0, -1.0, 2.0])))).any()
  assert np.isnan(symmetric3.root(jnp.diag(jnp.asarray([1.0, -1.0, 2.0])))).any()


def test_second_derivatives_are_refused_not_wrong():
  square = lambda m: jnp.sum(symmetric3.logarithm(m) ** 2)
  with pytest.raises(NotImplementedError, match="once only"):
    jax.hessian(square)(jnp.eye(3))
  with pytest.raises(NotImplementedError, match="eigen is not differentiable"):
    jax.grad(lambda m: symmetric3.eigen(m)[0].sum())(jnp.eye(3))


def test_cofactors_and_factors_as_in_numpy(x64):
  rng = np.random.default_rng(7)
  plain = rng.normal(size=(50, 3, 3))
  positive = plain @ plain.swapaxes(1, 2) + 0.1 * np.eye(3)
  np.testing.assert_allclose(symmetric3.determinant(plain), np.linalg.det(plain), atol=1e-12)
  np.testing.assert_allclose(symmetric3.inverse(jnp.asarray(plain)), np.linalg.inv(plain), rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(symmetric3.cholesky(jnp.asarray(positive)), np.linalg.cholesky(positive), atol=1e-12)
  check_grads(symmetric3.inverse, (jnp.asarray(plain[:3]),), order=2)
  check_grads(symmetric3.cholesky, (jnp.asarray(positive[:3]),), order=2)


@pytest.mark.parametrize("matrix", MATRICES)
def test_lyapunov_as_in_scipy(x64, matrix):
  at, right = MATRICES[matrix], symmetric3.symmetric(np.random.default_rng(8).normal(size=(3, 3)))
  found = symmetric3.lyapunov(jnp.asarray(at), jnp.asarray(right))
  np.testing.assert_allclose(found, scipy.linalg.solve_continuous_lyapunov(at, right), rtol=1e-9, atol=1e-9)
  fine = 1e-5 * np.linalg.eigvalsh(at)[0]
  solve = lambda m: symmetric3.lyapunov(jnp.asarray(m), jnp.asarray(right))
  way = _turned([1, 2, -1], 9)
  wanted = (solve(at + fine * way) - solve(at - fine * way)) / (2 * fine)
  np.testing.assert_allclose(jax.jvp(solve, (jnp.asarray(at),), (jnp.asarray(way),))[1], wanted, atol=1e-6 * np.abs(wanted).max())
