"""How far apart two Gaussians in space are: Bhattacharyya, Hellinger, 2-Wasserstein.

Means and covariances in one unit (millimetres for heads: in metres float32 has little room). Smooth at equal Gaussians and at equal
eigenvalues; the distances are squared where a root would have an infinite slope at 0.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.math import spd, symmetric3

__all__ = ["bhattacharyya", "hellinger2", "log_determinant", "mahalanobis2", "wasserstein2"]


def log_determinant(factor: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
  """log det P from a Cholesky factor: no overflow, and accurate for needles.

  Args:
    factor: lower triangular, P = L L^T.

  Returns:
    2 sum log L_ii.
  """
  return 2 * sum(jnp.log(factor[..., k, k]) for k in range(3))


def mahalanobis2(factor: Float[Array, "*b 3 3"], vector: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
  """r^T P^-1 r from a Cholesky factor of P, by forward substitution.

  Args:
    factor: lower triangular, P = L L^T.
    vector: r.

  Returns:
    At least 0.
  """
  l = lambda i, j: factor[..., i, j]
  x = vector[..., 0] / l(0, 0)
  y = (vector[..., 1] - l(1, 0) * x) / l(1, 1)
  z = (vector[..., 2] - l(2, 0) * x - l(2, 1) * y) / l(2, 2)
  return x * x + y * y + z * z


def bhattacharyya(
  mean_a: Float[Array, "*b 3"], covariance_a: Float[Array, "*b 3 3"], mean_b: Float[Array, "*b 3"], covariance_b: Float[Array, "*b 3 3"]
) -> Float[Array, "*b"]:
  """Bhattacharyya distance, minus the logarithm of the overlap.

  Equation: with S = (A + B) / 2 and r = a - b: r^T S^-1 r / 8 + log |S| / 2 - log |A| / 4 - log |B| / 4 (Bhattacharyya 1943).

  Args:
    mean_a: a.
    covariance_a: A, symmetric positive definite; the upper triangle is not read.
    mean_b: b.
    covariance_b: B, likewise.

  Returns:
    At least 0 up to rounding; unbounded, so a Gaussian far away still feels a pull. Unchanged by a common affine map. Differentiable in
    every mode and order; the gradient at equal Gaussians is 0.
  """
  a, b = symmetric3.cholesky(covariance_a), symmetric3.cholesky(covariance_b)
  middle = symmetric3.cholesky(0.5 * (covariance_a + covariance_b))
  volumes = 0.5 * log_determinant(middle) - 0.25 * (log_determinant(a) + log_determinant(b))
  return 0.125 * mahalanobis2(middle, mean_a - mean_b) + volumes


def hellinger2(
  mean_a: Float[Array, "*b 3"], covariance_a: Float[Array, "*b 3 3"], mean_b: Float[Array, "*b 3"], covariance_b: Float[Array, "*b 3 3"]
) -> Float[Array, "*b"]:
  """Squared Hellinger distance.

  Equation: 1 - exp(-D) with the Bhattacharyya distance D. Of equal covariances d deviations apart: 1 - exp(-d^2 / 8), whose slope peaks at
  2 deviations and is gone at 6.

  Args:
    mean_a: a.
    covariance_a: A, symmetric positive definite; the upper triangle is not read.
    mean_b: b.
    covariance_b: B, likewise.

  Returns:
    0 to 1. Differentiable in every mode and order; the gradient at equal Gaussians is 0, where its root, the distance, has an infinite
    slope.
  """
  return -jnp.expm1(-bhattacharyya(mean_a, covariance_a, mean_b, covariance_b))


def wasserstein2(
  mean_a: Float[Array, "*b 3"], covariance_a: Float[Array, "*b 3 3"], mean_b: Float[Array, "*b 3"], covariance_b: Float[Array, "*b 3 3"]
) -> Float[Array, "*b"]:
  """Squared 2-Wasserstein distance.

  Equation: |a - b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 (Dowson and Landau 1982).

  Args:
    mean_a: a.
    covariance_a: A, symmetric positive definite.
    mean_b: b.
    covariance_b: B, likewise.

  Returns:
    At least 0, in the square of the means' unit. Differentiable once; the gradient at equal Gaussians is 0.
  """
  return jnp.sum((mean_a - mean_b) ** 2, axis=-1) + spd.bures2(covariance_a, covariance_b)
