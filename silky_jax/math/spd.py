"""The manifold of symmetric positive definite 3x3 matrices under three metrics.

"affine" (affine-invariant: Pennec, Fillard, Ayache 2006), <U, V>_P = tr(P^-1 U P^-1 V): unchanged by P -> B P B^T.
"log_euclidean" (Arsigny et al. 2006): the flat metric of log P.
"bures" (Bures-Wasserstein: Takatsu 2011; Malago, Montrucchio, Pistone 2018): the 2-Wasserstein distance of centred Gaussians.

P, Q are points, U, V symmetric tangents. Everything is smooth at equal eigenvalues and differentiable once; arrays of any batch shape, in
one unit: use millimetres^2 for heads, metres^2 leave float32 little room.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from silky_jax.math import safe, symmetric3
from silky_jax.math.symmetric3 import product, symmetric

__all__ = [
  "Metric",
  "bures2",
  "clip_tangent",
  "congruence",
  "distance",
  "exp",
  "geodesic",
  "log",
  "optimal_map",
  "parallel_transport",
  "relative",
]

Metric = Literal["affine", "log_euclidean", "bures"]
_STEPS = 8  # of the Runge-Kutta method of Bures transport: an isometry to 2e-5 in the tests


def congruence(matrix: Float[Array, "*#b 3 3"], spd: Float[Array, "*#b 3 3"]) -> Float[Array, "*b 3 3"]:
  """The action of GL(3): what a linear motion does to a covariance.

  Equation: A P A^T.

  Args:
    matrix: A, any.
    spd: P, symmetric.

  Returns:
    Symmetric; positive definite where A is regular. Differentiable in every mode and order.
  """
  return symmetric(product(product(matrix, spd), jnp.swapaxes(matrix, -1, -2)))


def relative(matrix: Float[Array, "*#b 3 3"], spd: Float[Array, "*#b 3 3"]) -> Float[Array, "*b 3 3"]:
  """`congruence` of a positive definite matrix, through its Cholesky factor: A P A^T = (A L) (A L)^T.

  Rounding then stays in proportion to the result, and a needle seen from another needle stays positive definite in float32.

  Args:
    matrix: A, any.
    spd: P, symmetric positive definite.

  Returns:
    Symmetric positive definite up to rounding of its largest eigenvalue.
  """
  factor = product(matrix, symmetric3.cholesky(spd))
  return symmetric(product(factor, jnp.swapaxes(factor, -1, -2)))


def exp(base: Float[Array, "*#b 3 3"], tangent: Float[Array, "*#b 3 3"], *, metric: Metric = "affine") -> Float[Array, "*b 3 3"]:
  """Where the geodesic that leaves `base` along `tangent` is after unit time.

  Equations: affine P^1/2 exp(P^-1/2 V P^-1/2) P^1/2; log_euclidean exp(log P + Dlog_P[V]); bures (I + G) P (I + G) with G P + P G = V,
  which leaves the manifold where I + G is not positive definite: there the result is NaN.

  Args:
    base: P.
    tangent: V.
    metric: which.

  Returns:
    Symmetric positive definite.
  """
  _check(metric)
  base, tangent = jnp.broadcast_arrays(base, tangent)
  if metric == "affine":
    half, back = symmetric3.root(base), symmetric3.inverse_root(base)
    return congruence(half, symmetric3.exponential(congruence(back, tangent)))
  if metric == "log_euclidean":
    return symmetric3.exponential(symmetric3.logarithm(base) + symmetric3.logarithm_derivative(base, tangent))
  factor = jnp.eye(3, dtype=base.dtype) + symmetric3.lyapunov(base, tangent)
  inside = symmetric3.smallest_eigenvalue(factor) > 0
  return jnp.where(inside[..., None, None], congruence(factor, base), jnp.nan)


def log(base: Float[Array, "*#b 3 3"], target: Float[Array, "*#b 3 3"], *, metric: Metric = "affine") -> Float[Array, "*b 3 3"]:
  """The tangent at `base` whose geodesic reaches `target` after unit time: the inverse of `exp`.

  Equations: affine P^1/2 log(P^-1/2 Q P^-1/2) P^1/2; log_euclidean the tangent that Dlog_P takes to log Q - log P; bures
  (T - I) P + P (T - I) with the optimal map T.

  Args:
    base: P.
    target: Q.
    metric: which.

  Returns:
    Symmetric.
  """
  _check(metric)
  base, target = jnp.broadcast_arrays(base, target)
  if metric == "affine":
    half, back = symmetric3.root(base), symmetric3.inverse_root(base)
    return congruence(half, symmetric3.logarithm(relative(back, target)))
  if metric == "log_euclidean":
    start = symmetric3.logarithm(base)
    return symmetric3.exponential_derivative(start, symmetric3.logarithm(target) - start)
  moved = product(optimal_map(base, target), base)
  return moved + jnp.swapaxes(moved, -1, -2) - 2 * symmetric(base)


def distance(a: Float[Array, "*#b 3 3"], b: Float[Array, "*#b 3 3"], *, metric: Metric = "affine") -> Float[Array, "*b"]:
  """Length of the geodesic.

  Equations: affine |log(P^-1/2 Q P^-1/2)|; log_euclidean |log P - log Q|; bures sqrt(tr P + tr Q - 2 tr (P^1/2 Q P^1/2)^1/2).

  Args:
    a: P.
    b: Q.
    metric: which.

  Returns:
    At least 0; for "bures" in the unit of a deviation. The gradient at equal points is 0.
  """
  _check(metric)
  a, b = jnp.broadcast_arrays(a, b)
  if metric == "affine":
    return _norm(symmetric3.logarithm(relative(symmetric3.inverse_root(a), b)))
  if metric == "log_euclidean":
    return _norm(symmetric3.logarithm(a) - symmetric3.logarithm(b))
  return safe.sqrt(bures2(a, b))


def bures2(a: Float[Array, "*#b 3 3"], b: Float[Array, "*#b 3 3"]) -> Float[Array, "*b"]:
  """Squared Bures distance, smooth at equal points.

  Equation: tr P + tr Q - 2 tr (P^1/2 Q P^1/2)^1/2, taken as |(T - I) P^1/2|^2 with the optimal map T: nothing cancels for near points.

  Args:
    a: P.
    b: Q.

  Returns:
    At least 0, in the unit of the matrices.
  """
  a, b = jnp.broadcast_arrays(a, b)
  shift = optimal_map(a, b) - jnp.eye(3, dtype=a.dtype)
  return jnp.sum(product(shift, symmetric3.root(a)) ** 2, axis=(-2, -1))


def geodesic(
  a: Float[Array, "*#b 3 3"], b: Float[Array, "*#b 3 3"], share: Float[Array, "*#c"] | float, *, metric: Metric = "affine"
) -> Float[Array, "*b 3 3"]:
  """The point at a share of the way from `a` to `b`; beyond 0..1 it extrapolates.

  Args:
    a: at share 0.
    b: at share 1.
    share: a number, or an array of the batch shape.
    metric: which. "bures" is NaN where the extrapolation leaves the manifold.

  Returns:
    Symmetric positive definite.
  """
  return exp(a, jnp.asarray(share)[..., None, None] * log(a, b, metric=metric), metric=metric)


def parallel_transport(
  source: Float[Array, "*#b 3 3"], target: Float[Array, "*#b 3 3"], tangent: Float[Array, "*#b 3 3"], *, metric: Metric = "affine"
) -> Float[Array, "*b 3 3"]:
  """A tangent at `source` carried along the geodesic to `target` without turning.

  Equations: affine E V E^T with E = (Q P^-1)^1/2; log_euclidean Dexp_{log Q}[Dlog_P[V]] (flat: the same for every path). bures has no
  closed form: with the horizontal lift A(t) = (I + t G) P^1/2 of the geodesic and V = S P(t) + P(t) S, S follows
  S' P + P S' = -(S K P + P K S), K = G (I + t G)^-1, integrated by the classic Runge-Kutta method in 8 steps.

  Args:
    source: P.
    target: Q.
    tangent: V at P.
    metric: which.

  Returns:
    Symmetric, as long at Q as V was at P.
  """
  _check(metric)
  source, target, tangent = jnp.broadcast_arrays(source, target, tangent)
  if metric == "affine":
    half, back = symmetric3.root(source), symmetric3.inverse_root(source)
    factor = product(product(half, symmetric3.root(relative(back, target))), back)
    return congruence(factor, tangent)
  if metric == "log_euclidean":
    return symmetric3.exponential_derivative(symmetric3.logarithm(target), symmetric3.logarithm_derivative(source, tangent))
  return _bures_transport(source, target, tangent)


def optimal_map(source: Float[Array, "*#b 3 3"], target: Float[Array, "*#b 3 3"]) -> Float[Array, "*b 3 3"]:
  """The linear map that carries one centred Gaussian onto another at the least cost: symmetric positive definite T with T P T = Q.

  Equation: P^-1/2 (P^1/2 Q P^1/2)^1/2 P^-1/2.

  Args:
    source: P.
    target: Q.

  Returns:
    T.
  """
  half, back = symmetric3.root(source), symmetric3.inverse_root(source)
  return congruence(back, symmetric3.root(relative(half, target)))


def clip_tangent(base: Float[Array, "*#b 3 3"], tangent: Float[Array, "*#b 3 3"], longest: float) -> Float[Array, "*b 3 3"]:
  """A tangent shortened to an affine-invariant length, its direction kept.

  Equation: V min(1, c / |P^-1/2 V P^-1/2|). A clip of the norm keeps smoothness and the invariance under P -> B P B^T; one of the
  eigenvalues keeps neither.

  Args:
    base: P.
    tangent: V.
    longest: c; sqrt(3) log 2 is at most a doubling of every axis.

  Returns:
    Symmetric.
  """
  length = jnp.sqrt(jnp.sum(congruence(symmetric3.inverse_root(base), tangent) ** 2, axis=(-2, -1)) + 1e-12)
  return tangent * jnp.minimum(1, longest / length)[..., None, None]


def _bures_transport(source, target, tangent):
  eye = jnp.eye(3, dtype=source.dtype)
  velocity = optimal_map(source, target) - eye  # G

  def slope(time, state):
    factor = eye + time * velocity
    point = congruence(factor, source)
    bend = symmetric(product(velocity, symmetric3.inverse(factor)))  # they commute
    through = product(product(state, bend), point)
    return -symmetric3.lyapunov(point, through + jnp.swapaxes(through, -1, -2))

  def forward(state, time):
    step = 1 / _STEPS
    first = slope(time, state)
    second = slope(time + step / 2, state + step / 2 * first)
    third = slope(time + step / 2, state + step / 2 * second)
    fourth = slope(time + step, state + step * third)
    return state + step / 6 * (first + 2 * second + 2 * third + fourth), None

  state, _ = lax.scan(forward, symmetric3.lyapunov(source, tangent), jnp.arange(_STEPS, dtype=source.dtype) / _STEPS)
  moved = product(state, target)
  return moved + jnp.swapaxes(moved, -1, -2)


def _norm(matrix):
  return safe.norm(matrix.reshape(*matrix.shape[:-2], 9))


def _check(metric: str) -> None:
  if metric not in get_args(Metric):
    raise ValueError(f"metric: expected one of {get_args(Metric)}, got {metric!r}")
