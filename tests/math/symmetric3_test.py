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


ALL = np.stack(list(MATRICES.values()))  # one batch: one compilation
SMALLEST = np.linalg.eigvalsh(ALL)[:, :1, None]


def _each(function, matrices):
  return np.stack([np.real(function(matrix)) for matrix in matrices])


def _close(found, wanted, relative, absolute=0.0):
  """Against the largest entry of each matrix."""
  wanted = np.asarray(wanted)
  scale = np.abs(wanted).max(axis=(1, 2), keepdims=True)
  assert (np.abs(np.asarray(found) - wanted) <= relative * scale + absolute).all(), np.abs(np.asarray(found) - wanted) / scale


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_as_in_scipy(x64, name):
  function, other = FUNCTIONS[name]
  wanted = _each(other, ALL)
  _close(function(jnp.asarray(ALL)), wanted, 1e-12, 1e-12)
  _close(function(jnp.asarray(ALL, jnp.float32)), wanted, 3e-5, 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_anchor_6_derivatives_are_those_of_finite_differences(x64, name):
  """At 2 I, which is the first of them, and all the others."""
  function, other = FUNCTIONS[name]
  way = symmetric3.symmetric(jnp.asarray(np.random.default_rng(1).normal(size=(3, 3))))
  way, step = np.broadcast_to(way, ALL.shape), 1e-5 * SMALLEST
  wanted = (_each(other, ALL + step * way) - _each(other, ALL - step * way)) / (2 * step)
  along = jax.jit(lambda m, w: jax.jvp(function, (m,), (w,))[1])
  slope = along(jnp.asarray(ALL), jnp.asarray(way))
  _close(slope, wanted, 1e-6)
  # Reverse mode is the same linear map.
  weight = jnp.asarray(np.random.default_rng(2).normal(size=(3, 3)))
  gradient = jax.jit(jax.grad(lambda m: jnp.sum(function(m) * weight)))(jnp.asarray(ALL))
  np.testing.assert_allclose(jnp.sum(gradient * way, axis=(1, 2)), jnp.sum(slope * weight, axis=(1, 2)), rtol=1e-9)
  # float32, with the error that its rounding explains.
  _close(along(jnp.asarray(ALL, jnp.float32), jnp.asarray(way, jnp.float32)), slope, 2e-4)


@pytest.mark.parametrize("name", ["logarithm", "exponential"])
def test_derivatives_of_derivatives(x64, name):
  function = jax.jit(getattr(symmetric3, f"{name}_derivative"))
  at = jnp.asarray(ALL)
  way, turn = (jnp.broadcast_to(jnp.asarray(_turned([1, -2, 0.5], seed)), at.shape) for seed in (3, 4))
  _close(function(at, way), jax.jvp(FUNCTIONS[name][0], (at,), (way,))[1], 1e-12)
  step = 1e-5 * SMALLEST
  wanted = (function(at + step * turn, way) - function(at - step * turn, way)) / (2 * step)
  slopes = jax.jit(lambda m, h, dm, dh: jax.jvp(function, (m, h), (dm, dh))[1])
  _close(slopes(at, way, turn, jnp.zeros_like(way)), wanted, 2e-6)
  _close(slopes(at, way, jnp.zeros_like(turn), turn), function(at, turn), 1e-12)
  gradient = jax.jit(jax.grad(lambda m: jnp.sum(function(m, way) * turn)))(at)
  np.testing.assert_allclose(jnp.sum(gradient * turn, axis=(1, 2)), jnp.sum(wanted * turn, axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_eigenvalues_as_in_lapack_and_orthonormal_vectors(x64):
  rng = np.random.default_rng(5)
  matrices = symmetric3.symmetric(jnp.asarray(rng.normal(size=(200, 3, 3)) * np.exp(rng.normal(size=(200, 1, 1)) * 8)))
  values, vectors = symmetric3.eigen(matrices)
  wanted = np.linalg.eigvalsh(matrices)
  scale = np.abs(wanted).max(axis=1)[:, None]
  np.testing.assert_allclose(values / scale, wanted / scale, atol=1e-14 * 20)
  rebuilt = np.einsum("nij,nj,nkj->nik", vectors, values, vectors)
  np.testing.assert_allclose(rebuilt / scale[..., None], matrices / scale[..., None], atol=1e-14 * 50)
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


def test_what_rounding_made_negative_is_forgiven():
  """A needle seen from another needle: eigenvalues 10 orders of magnitude apart, in single precision."""
  turn = np.linalg.qr(np.random.default_rng(12).normal(size=(3, 3)))[0]
  matrix = jnp.asarray(turn @ np.diag([1e-6, 1.0, 1e5]) @ turn.T, jnp.float32)
  for function in (symmetric3.logarithm, symmetric3.root, symmetric3.inverse_root):
    value, slope = function(matrix), jax.grad(lambda m, f=function: jnp.sum(f(m)))(matrix)
    assert np.isfinite(value).all() and np.isfinite(slope).all()


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
  np.testing.assert_allclose(symmetric3.determinant(jnp.asarray(plain)), np.linalg.det(plain), atol=1e-12)
  np.testing.assert_allclose(symmetric3.inverse(jnp.asarray(plain)), np.linalg.inv(plain), rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(symmetric3.cholesky(jnp.asarray(positive)), np.linalg.cholesky(positive), atol=1e-12)
  check_grads(lambda m: symmetric3.inverse(jnp.asarray(m)), (jnp.asarray(plain[:3]),), order=2)
  check_grads(lambda m: symmetric3.cholesky(jnp.asarray(m)), (jnp.asarray(positive[:3]),), order=2)


def test_lyapunov_as_in_scipy(x64):
  solve = jax.jit(symmetric3.lyapunov)
  right = symmetric3.symmetric(jnp.asarray(np.random.default_rng(8).normal(size=(3, 3))))
  at, right = jnp.asarray(ALL), jnp.broadcast_to(right, ALL.shape)
  wanted = np.stack([scipy.linalg.solve_continuous_lyapunov(a, b) for a, b in zip(ALL, np.asarray(right), strict=True)])
  _close(solve(at, right), wanted, 1e-9)
  way, step = jnp.broadcast_to(jnp.asarray(_turned([1, 2, -1], 9)), at.shape), 1e-5 * SMALLEST
  wanted = (solve(at + step * way, right) - solve(at - step * way, right)) / (2 * step)
  _close(jax.jvp(lambda m: solve(m, right), (at,), (way,))[1], wanted, 1e-6)
