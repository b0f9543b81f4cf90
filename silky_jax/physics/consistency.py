"""The adaptive Hellinger loss: how far Gaussians are from where inertia puts them.

The plain squared Hellinger distance of a small Gaussian is deaf: at six deviations its slope is gone, and head-scale Gaussians are three
millimetres wide. So both are blurred by as much as residuals are large (the distance stays a true Hellinger distance, of blurred
Gaussians, and sharpens by itself as predictions improve), what is hardly seen counts less, and inertia counts less where the face itself
is jerky. This reading of "adaptive" is ours: docs/physics.md.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from silky_jax.math import gaussian, safe, spd
from silky_jax.math.grouped import members_of, sum_over
from silky_jax.math.symmetric3 import cholesky

__all__ = ["Measure", "adaptive_distance", "blur_of", "group_rms", "jerk_weights", "mean_over", "running_rms"]

Measure = Literal["hellinger", "bhattacharyya", "airm", "w2"]


def group_rms(residuals: Float[Array, "*b n 3"], counted: Float[Array, "*b n"], groups: Int[Array, "n"], count: int) -> Float[Array, "g"]:
  """Root mean square length of the residuals of each group, as a constant.

  Args:
    residuals: mm.
    counted: 1, or 0 for those that are left out.
    groups: of each point, below `count`.
    count: of groups.

  Returns:
    mm; 0 for a group without members. No gradient.
  """
  over_all = lambda x: _over_all(x, groups, count)
  squares = jnp.sum(lax.stop_gradient(residuals) ** 2, axis=-1)
  return safe.sqrt(safe.divide(over_all(squares * counted), over_all(lax.stop_gradient(counted))))


def _over_all(values: Float[Array, "*b n"], groups: Int[Array, "n"], count: int) -> Float[Array, "g"]:
  """The sum over a group's points, and over what comes before them."""
  return sum_over(members_of(groups, count), jnp.sum(values.reshape(-1, values.shape[-1]), axis=0)[:, None])[:, 0]


def running_rms(
  before: Float[Array, "g"],
  residuals: Float[Array, "*b n 3"],
  counted: Float[Array, "*b n"],
  groups: Int[Array, "n"],
  *,
  memory: float = 0.9,
) -> Float[Array, "g"]:
  """The mean over steps, exponentially forgotten, of what `group_rms` is in each: m <- memory m + (1 - memory) rms.

  A group's first step is its mean: starting from 0 would blur too little for 1 / (1 - memory) steps. A group without a counted residual
  keeps what it had.

  Args:
    before: mm, of each group; 0, or what is not a number, where there is nothing yet.
    residuals: mm.
    counted: 1, or 0 for those that are left out.
    groups: of each point.
    memory: 0 is this step alone.

  Returns:
    mm; the next step's `before`. No gradient.
  """
  before, counted = lax.stop_gradient((before, counted))
  now = group_rms(residuals, counted, groups, before.shape[0])
  seen = _over_all(counted, groups, before.shape[0]) > 0
  known = before > 0
  mixed = jnp.where(known, memory * before + (1 - memory) * now, now)
  return jnp.where(seen, mixed, jnp.where(known, before, 0))


def blur_of(rms: Float[Array, "g"], groups: Int[Array, "n"], *, gain: float = 1.0, least: float = 0.5) -> Float[Array, "n"]:
  """The deviation by which both Gaussians are blurred: tau = max(least, gain rms of the group).

  Args:
    rms: mm, of each group: `running_rms`.
    groups: of each point.
    gain: kappa.
    least: mm; bounds the covariances below.

  Returns:
    mm. No gradient.
  """
  return lax.stop_gradient(jnp.maximum(least, gain * rms))[groups]


def jerk_weights(jerk: Float[Array, "*b n 3"], *, scale: float = 1.0) -> Float[Array, "*b n"]:
  """How much inertia is to be trusted where the tracked surface itself jerks: 1 / (1 + |jerk|^2 / scale^2).

  Args:
    jerk: mm per frame^3: what the same prediction misses on the anchors.
    scale: mm per frame^3.

  Returns:
    0 to 1. No gradient.
  """
  return lax.stop_gradient(1 / (1 + jnp.sum(jerk**2, axis=-1) / scale**2))


def adaptive_distance(
  means: Float[Array, "*b n 3"],
  covariances: Float[Array, "*b n 3 3"],
  predicted_means: Float[Array, "*b n 3"],
  predicted_covariances: Float[Array, "*b n 3 3"],
  blur: Float[Array, "n"],
  *,
  measure: Measure = "hellinger",
) -> Float[Array, "*b n"]:
  """Distance of each Gaussian from its prediction, both blurred.

  Equation: with A = S + tau^2 I and B likewise, "hellinger" is 1 - exp(-D), "bhattacharyya" D itself, which never saturates; "airm" the
  squared affine-invariant distance of A and B plus the squared Mahalanobis length of the residual under their mean; "w2" the squared
  2-Wasserstein distance over tau^2.

  Args:
    means: mm.
    covariances: mm^2.
    predicted_means: mm.
    predicted_covariances: mm^2.
    blur: tau, mm, above 0.
    measure: which.

  Returns:
    No unit. 0 with gradient 0 where prediction and Gaussian agree.
  """
  if measure not in get_args(Measure):
    raise ValueError(f"measure: expected one of {get_args(Measure)}, got {measure!r}")
  spread = (blur**2)[:, None, None] * jnp.eye(3, dtype=covariances.dtype)
  a, b = covariances + spread, predicted_covariances + spread
  if measure == "hellinger":
    return gaussian.hellinger2(means, a, predicted_means, b)
  if measure == "bhattacharyya":
    return gaussian.bhattacharyya(means, a, predicted_means, b)
  if measure == "w2":
    return gaussian.wasserstein2(means, a, predicted_means, b) / blur**2
  from_mean = gaussian.mahalanobis2(cholesky(0.5 * (a + b)), means - predicted_means)
  return spd.distance(a, b) ** 2 + from_mean


def mean_over(values: Float[Array, "*b n"], weights: Float[Array, "*b n"]) -> Float[Array, ""]:
  """Weighted mean; 0 where all weights are.

  Args:
    values: any.
    weights: at least 0; those of 0 may stand beside anything finite.

  Returns:
    A number.
  """
  return safe.divide(jnp.sum(values * weights), jnp.sum(weights))
