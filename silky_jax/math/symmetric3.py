"""Functions of symmetric 3x3 matrices: eigen-decomposition, logarithm, exponential, roots, inverse, Cholesky factor, Lyapunov equation.

A spectral function f(S) = U f(L) U^T has the derivative Df(S)[H] = U (G o (U^T H U)) U^T with the divided differences
G_ij = (f(l_i) - f(l_j)) / (l_i - l_j), G_ii = f'(l_i) (Daleckii and Krein 1965). They are written here so that equal eigenvalues, where
differentiating an eigen-decomposition gives NaN, are an ordinary case: Gaussians start isotropic. Derivatives are exact in forward and
reverse mode, once; a second derivative raises.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float
from silky_kernels import eigen3

__all__ = [
  "cholesky",
  "determinant",
  "eigen",
  "exponential",
  "exponential_derivative",
  "inverse",
  "inverse_root",
  "logarithm",
  "logarithm_derivative",
  "lyapunov",
  "product",
  "root",
  "smallest_eigenvalue",
  "symmetric",
]

_ROUNDING = 4  # units in the last place of the largest eigenvalue


def symmetric(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """The symmetric part.

  Args:
    matrix: any.

  Returns:
    (M + M^T) / 2.
  """
  return 0.5 * (matrix + jnp.swapaxes(matrix, -1, -2))


def eigen(matrix: Float[Array, "*b 3 3"]) -> tuple[Float[Array, "*b 3"], Float[Array, "*b 3 3"]]:
  """Eigenvalues and eigenvectors by cyclic Jacobi rotations (Golub and Van Loan 2013, section 8.5), all matrices at once.

  Twice as fast as LAPACK, which takes them one by one, for three thousand matrices on two cores; and the same code on a GPU.

  Args:
    matrix: symmetric; the lower triangle is not read.

  Returns:
    values: ascending, in the unit of the matrix; accurate to rounding of the largest.
    vectors: in columns, orthonormal to rounding; of equal eigenvalues any of the possible ones.
    Differentiating this raises NotImplementedError: differentiate `logarithm`, `root` and so on.
  """
  return _eigen(matrix)


@jax.custom_jvp
def _eigen(matrix):
  return eigen3(matrix)


@_eigen.defjvp
def _no_second_derivative(primals, tangents):
  raise NotImplementedError(
    "silky_jax.math.symmetric3: eigen is not differentiable, and so logarithm, exponential, root and inverse_root are once only; "
    "wanted a first derivative of one of those"
  )


class _Function(NamedTuple):
  """A function of eigenvalues with its divided differences."""

  value: Callable[[Any], Any]
  first: Callable[[Any], Any]  # [*b 3] -> [*b 3 3]
  second: Callable[[Any], Any] | None = None  # [*b 3] -> [*b 3 3 3]
  positive: bool = True  # of positive eigenvalues only

  def eigen(self, matrix):
    """Eigenvalues in the function's domain, and vectors: what rounding alone made negative is a rounding of the largest."""
    values, vectors = _eigen(matrix)
    if not self.positive:
      return values, vectors
    rounding = _ROUNDING * jnp.finfo(values.dtype).eps * values[..., -1:]
    return jnp.where(values < -rounding, jnp.nan, jnp.maximum(values, rounding)), vectors


def _compose(vectors, values):
  """U diag(values) U^T, exactly symmetric."""
  return jnp.sum(vectors[..., :, None, :] * vectors[..., None, :, :] * values[..., None, None, :], axis=-1)


def _turn(vectors, inner):
  """U M U^T."""
  return product(product(vectors, inner), jnp.swapaxes(vectors, -1, -2))


def product(a: Float[Array, "*#b 3 3"], b: Float[Array, "*#b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Matrix product of any 3x3 matrices in sums: batched 3x3 products are slow on CPU and inexact by default on GPU.

  Args:
    a: left.
    b: right.

  Returns:
    a b.
  """
  return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spectral(function: _Function, matrix):
  values, vectors = function.eigen(matrix)
  return _compose(vectors, function.value(values))


@_spectral.defjvp
def _spectral_jvp(function, primals, tangents):
  values, vectors = function.eigen(primals[0])
  inner = _turn(jnp.swapaxes(vectors, -1, -2), symmetric(tangents[0]))
  return _compose(vectors, function.value(values)), _turn(vectors, function.first(values) * inner)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _derivative(function: _Function, matrix, direction):
  """Df(S)[H], itself differentiable once."""
  values, vectors = function.eigen(matrix)
  return _turn(vectors, function.first(values) * _turn(jnp.swapaxes(vectors, -1, -2), direction))


@_derivative.defjvp
def _derivative_jvp(function, primals, tangents):
  # D2f(S)[H, K] = U (sum over k of f[i, k, j] (H_ik K_kj + K_ik H_kj)) U^T.
  values, vectors = function.eigen(primals[0])
  back = jnp.swapaxes(vectors, -1, -2)
  h, k, moved = (_turn(back, symmetric(m)) for m in (primals[1], tangents[0], tangents[1]))
  first, second = function.first(values), function.second(values)
  both = h[..., :, :, None] * k[..., None, :, :] + k[..., :, :, None] * h[..., None, :, :]
  return _turn(vectors, first * h), _turn(vectors, jnp.sum(second * both, axis=-2) + first * moved)


def _pairs(values):
  return values[..., :, None], values[..., None, :]


def _mean_and_half_difference(values):
  a, b = _pairs(values)
  return 0.5 * (a + b), 0.5 * (a - b)


def _log_differences(values):
  # (log a - log b) / (a - b) = atanh(d) / d / m, with m the mean and d the half difference over m.
  mean, half = _mean_and_half_difference(values)
  square = (half / mean) ** 2
  near = square < 1e-4
  series = (1 + square * (1 / 3 + square * (1 / 5 + square / 7))) / mean
  gap = jnp.where(near, 1, 2 * jnp.abs(half))
  return jnp.where(near, series, jnp.log1p(gap / jnp.minimum(*_pairs(values))) / gap)


def _exp_differences(values):
  # (exp a - exp b) / (a - b) = e^m sinh(h) / h, with m the mean and h the half difference.
  mean, half = _mean_and_half_difference(values)
  square = half * half
  near = square < 1e-2
  series = jnp.exp(mean) * (1 + square * (1 / 6 + square * (1 / 120 + square / 5040)))
  gap = jnp.where(near, 1, 2 * jnp.abs(half))
  return jnp.where(near, series, jnp.exp(jnp.minimum(*_pairs(values))) * jnp.expm1(gap) / gap)


def _second_differences(values, first, near, series):
  """f[a, b, c] = (f[b, c] - f[a, b]) / (c - a) about the widest pair, or `series` of the mean and of what deviates from it."""
  i, j, k = jnp.meshgrid(*(jnp.arange(3),) * 3, indexing="ij")
  low, high = jnp.minimum(jnp.minimum(i, j), k), jnp.maximum(jnp.maximum(i, j), k)  # eigenvalues ascend
  middle = i + j + k - low - high
  a, b, c = values[..., low], values[..., middle], values[..., high]
  mean = (a + b + c) / 3
  x, y, z = a - mean, b - mean, c - mean
  square = 0.5 * (x * x + y * y + z * z)
  close = near(mean, c - a)
  away = (first[..., middle, high] - first[..., low, middle]) / jnp.where(close, 1, c - a)
  return jnp.where(close, series(mean, square, x * y * z), away)


def _log_second(values):
  def series(m, square, cube):
    return -(0.5 + (square / 4 - cube / (5 * m) + square * square / (6 * m * m)) / (m * m)) / (m * m)

  return _second_differences(values, _log_differences(values), lambda mean, gap: gap < 0.02 * mean, series)


def _exp_second(values):
  def series(m, square, cube):
    return jnp.exp(m) * (0.5 + square / 24 + cube / 120 + square * square / 720)

  return _second_differences(values, _exp_differences(values), lambda mean, gap: gap < 0.05, series)


def _root_differences(values):
  a, b = _pairs(jnp.sqrt(values))
  return 1 / (a + b)


def _inverse_root_differences(values):
  a, b = _pairs(jnp.sqrt(values))
  return -1 / (a * b * (a + b))


_LOG = _Function(jnp.log, _log_differences, _log_second)
_EXP = _Function(jnp.exp, _exp_differences, _exp_second, positive=False)
_ROOT = _Function(jnp.sqrt, _root_differences)
_INVERSE_ROOT = _Function(lax.rsqrt, _inverse_root_differences)


def logarithm(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Matrix logarithm of a symmetric positive definite matrix.

  Equation: U log(L) U^T; divided differences atanh(d) / (d m), m the mean and d m the half difference of two eigenvalues.

  Args:
    matrix: symmetric positive definite; only the symmetric part counts. An eigenvalue below 4 roundings of the largest counts as that
      much; one that is negative beyond rounding gives NaN.

  Returns:
    Symmetric. Differentiable once, also at equal eigenvalues.
  """
  return _spectral(_LOG, symmetric(matrix))


def exponential(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Matrix exponential of a symmetric matrix.

  Args:
    matrix: symmetric; only the symmetric part counts.

  Returns:
    Symmetric positive definite. Differentiable once, also at equal eigenvalues.
  """
  return _spectral(_EXP, symmetric(matrix))


def logarithm_derivative(matrix: Float[Array, "*b 3 3"], direction: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """How the logarithm moves: Dlog_P[V].

  Args:
    matrix: P, symmetric positive definite.
    direction: V, symmetric.

  Returns:
    Symmetric, linear in V. Differentiable once in both, by second divided differences.
  """
  return _derivative(_LOG, symmetric(matrix), symmetric(direction))


def exponential_derivative(matrix: Float[Array, "*b 3 3"], direction: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """How the exponential moves: Dexp_S[H], the inverse of `logarithm_derivative` at exp S.

  Args:
    matrix: S, symmetric.
    direction: H, symmetric.

  Returns:
    Symmetric, linear in H. Differentiable once in both, by second divided differences.
  """
  return _derivative(_EXP, symmetric(matrix), symmetric(direction))


def smallest_eigenvalue(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
  """The smallest eigenvalue of a symmetric matrix, as a constant: for checks.

  Args:
    matrix: symmetric.

  Returns:
    No gradient.
  """
  return _eigen(lax.stop_gradient(symmetric(matrix)))[0][..., 0]


def root(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Symmetric square root of a symmetric positive definite matrix; divided differences 1 / (sqrt a + sqrt b).

  Args:
    matrix: symmetric positive definite; only the symmetric part counts. Small and negative eigenvalues: see `logarithm`.

  Returns:
    Symmetric positive definite. Differentiable once, also at equal eigenvalues.
  """
  return _spectral(_ROOT, symmetric(matrix))


def inverse_root(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Inverse of `root`.

  Args:
    matrix: symmetric positive definite; only the symmetric part counts. Small and negative eigenvalues: see `logarithm`.

  Returns:
    Symmetric positive definite. Differentiable once, also at equal eigenvalues.
  """
  return _spectral(_INVERSE_ROOT, symmetric(matrix))


def determinant(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
  """Determinant of any 3x3 matrix, by cofactors.

  Args:
    matrix: any.

  Returns:
    Its determinant. Differentiable in every mode and order.
  """
  a, b, c = (matrix[..., i, :] for i in range(3))
  return jnp.sum(a * jnp.cross(b, c), axis=-1)


def inverse(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Inverse of any 3x3 matrix, by cofactors.

  Args:
    matrix: regular. A singular one gives infinities.

  Returns:
    Its inverse; relative error about the condition number times rounding. Differentiable in every mode and order.
  """
  a, b, c = (matrix[..., i, :] for i in range(3))
  columns = [jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]
  return jnp.stack(columns, axis=-1) / jnp.sum(a * columns[0], axis=-1)[..., None, None]


def cholesky(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """Lower Cholesky factor, written out: smooth in every mode and order, and quick for many matrices.

  Args:
    matrix: symmetric positive definite; the upper triangle is not read.

  Returns:
    L with L L^T = matrix, positive on the diagonal; NaN where a pivot is negative.
  """
  m = lambda i, j: matrix[..., i, j]
  a = jnp.sqrt(m(0, 0))
  b, c = m(1, 0) / a, m(2, 0) / a
  d = jnp.sqrt(m(1, 1) - b * b)
  e = (m(2, 1) - b * c) / d
  f = jnp.sqrt(m(2, 2) - c * c - e * e)
  zero = jnp.zeros_like(a)
  return jnp.stack([a, zero, zero, b, d, zero, c, e, f], axis=-1).reshape(matrix.shape)


def lyapunov(matrix: Float[Array, "*b 3 3"], right: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """The symmetric X with X P + P X = V.

  Equation: X = U [(U^T V U)_ij / (l_i + l_j)] U^T with P = U diag(l) U^T.

  Args:
    matrix: P, symmetric positive definite.
    right: V, symmetric.

  Returns:
    Symmetric. Differentiable once in both.
  """
  return _lyapunov(symmetric(matrix), symmetric(right))


@jax.custom_jvp
def _lyapunov(matrix, right):
  values, vectors = _eigen(matrix)
  a, b = _pairs(values)
  return _turn(vectors, _turn(jnp.swapaxes(vectors, -1, -2), right) / (a + b))


@_lyapunov.defjvp
def _lyapunov_jvp(primals, tangents):
  # X P + P X = V  =>  dX P + P dX = dV - (X dP + dP X).
  matrix, right = primals
  values, vectors = _eigen(matrix)
  a, b = _pairs(values)
  solve = lambda v: _turn(vectors, _turn(jnp.swapaxes(vectors, -1, -2), v) / (a + b))
  found = solve(right)
  moved = symmetric(tangents[0])
  return found, solve(symmetric(tangents[1]) - product(found, moved) - product(moved, found))
