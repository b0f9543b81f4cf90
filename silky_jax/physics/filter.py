"""A causal filter by inertia, for what is seen with noise: tracked points, Gaussians, the parameters of a live driver.

Kalman's filter (Kalman 1960), with the physics term's own idea of motion. The state of a point is its last h = order + 1 estimates, newest
first; the next is w . x + e, w the weights of `kinematics.history_weights` and e the residual that the term punishes:

    predict   x^ = F x,  P^ = F P F^T + Q,  F the companion matrix of w: S moves by congruence, as every covariance of this room
    correct   K = P^ H^T (H P^ H^T + S)^-1,  x* = x^ + K (z - H x^),  P* = P^ - K H P^

H picks the newest: of that alone K = P^ (P^ + S)^-1 and P* = P^ - K P^. (The published merge of predicted and observed Gaussians adds K P^:
its certainty would fall with every observation.) Older estimates are corrected along with the newest, for an error of place is one of
velocity too: were only the newest corrected, prediction by acceleration would swing itself up at every gain below one half. P* is taken in
Joseph's form, (I - K H) P^ (I - K H)^T + K S K^T, which stays positive definite in float32.

The first h frames of a point are taken as they are seen: with nothing known of velocity and acceleration that is the filter's exact start.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

from silky_jax.physics.kinematics import history_weights

__all__ = ["Estimate", "FilterState", "fuse", "init", "smooth_track", "update"]

# Matrices of any size; on a GPU the default is too coarse for differences of nearly equal estimates.
_einsum = functools.partial(jnp.einsum, precision="highest")


class FilterState(NamedTuple):
  """What is known of n points of dimension d by their last h estimates, newest first."""

  means: Float[Array, "n m"]  # m = h d: the newest's coordinates, then the one's before
  covariance: Float[Array, "n m m"]  # of all of them together
  times: Float[Array, "n h"]  # seconds
  seen: Int[Array, "n"]  # of the h, how many there are; below h the point is only starting
  shot: Int[Array, ""]


class Estimate(NamedTuple):
  """What the filter says of one frame; of `smooth_track` with a leading [t]."""

  mean: Float[Array, "n d"]
  covariance: Float[Array, "n d d"]
  predicted_mean: Float[Array, "n d"]  # before the frame was looked at
  predicted_covariance: Float[Array, "n d d"]
  known: Bool[Array, "n"]  # False where a point was not yet seen in this shot: its numbers mean nothing


def fuse(
  mean: Float[Array, "*b d"], covariance: Float[Array, "*b d d"], observed: Float[Array, "*b d"], noise: Float[Array, "*b d d"]
) -> tuple[Float[Array, "*b d"], Float[Array, "*b d d"]]:
  """A predicted and an observed Gaussian of one thing, made one.

  Equation: K = P (P + S)^-1, m + K (z - m), P - K P = (P^-1 + S^-1)^-1. To merge splats, predict with `kinematics.predict_means` and
  `transport.predict_covariances`.

  Args:
    mean: m, predicted; any unit.
    covariance: P, its square; symmetric positive definite.
    observed: z.
    noise: S, symmetric positive definite.

  Returns:
    The fused mean, and its covariance: below both in Loewner's order. Differentiable in every mode and order.
  """
  return _correct(mean, covariance, observed, noise)


def init(count: int, dimension: int = 3, *, order: int = 2, dtype=jnp.float32) -> FilterState:
  """A filter that has seen nothing.

  Args:
    count: of points, n.
    dimension: of each, d.
    order: of the prediction: 1 keeps the velocity, 2 the acceleration too.
    dtype: of all that is real.

  Returns:
    For `update`.
  """
  if order not in (1, 2):
    raise ValueError(f"order: expected 1 or 2, got {order}")
  size = (order + 1) * dimension
  return FilterState(
    means=jnp.zeros((count, size), dtype),
    covariance=jnp.zeros((count, size, size), dtype),
    times=jnp.zeros((count, order + 1), dtype),
    seen=jnp.zeros(count, jnp.int32),
    shot=jnp.zeros((), jnp.int32),
  )


def update(
  state: FilterState,
  observed: Float[Array, "n d"],
  noise: Float[Array, "n d d"],
  valid: Bool[Array, "n"],
  time: Float[Array, ""],
  shot: Int[Array, ""],
  *,
  process_noise: Float[Array, "#n"] | Float[Array, ""] | float,
  damping: float = 1.0,
) -> tuple[FilterState, Estimate]:
  """One frame: predict, and correct what was seen. See the head of this file.

  Args:
    state: `init`, or what the frame before returned.
    observed: any unit; anything, NaN too, where not valid.
    noise: its covariance, symmetric positive definite; likewise.
    valid: False where a point was not seen: it is predicted only, and grows less certain.
    time: seconds. A frame that is not after the newest one changes nothing.
    shot: counts cuts; at another number than before every point starts anew.
    process_noise: root mean square, per coordinate, of the derivative that the prediction leaves out: the third, unit / s^3, at order 2,
      the second at order 1. Of a prediction that misses by r in frames s apart: r / s^(order + 1). Per point, or one for all.
    damping: of the prediction, see `kinematics.history_weights`. Below 1 a point that is out of sight comes to rest.

  Returns:
    The state for the next frame, and the estimate. A point that is not seen while it starts is predicted with what there is, and its
    covariance leaves out what is not yet known of its motion. Differentiable; what is not valid has gradient 0.
  """
  history, dimension = state.times.shape[-1], observed.shape[-1]
  seen = jnp.where(shot == state.shot, state.seen, 0)
  full, at = seen == history, jnp.where(seen > 0, jnp.maximum(time, state.times[:, 0]), time)
  ahead = (seen == 0) | (time > state.times[:, 0])
  taken = valid & ahead
  eye = jnp.eye(dimension, dtype=observed.dtype)

  weights = _weights(state.times, seen, at, damping)
  missed = process_noise * jnp.prod(at[:, None] - state.times, axis=-1) / math.factorial(history)
  spread = (jnp.where(full, missed, 0) ** 2)[:, None, None] * eye
  means, covariance = _push(state, weights, jnp.zeros_like(observed), spread)
  predicted = means[:, :dimension], covariance[:, :dimension, :dimension]

  # A point that starts: what is seen goes on top as it is. (Where it is not valid this is dropped, and being linear sends nothing back.)
  first = _push(state, jnp.zeros_like(weights), observed, noise)
  # What is not to be corrected is so with an observation that agrees, whose result is not used.
  correct = taken & full
  agreeing = jnp.where(correct[:, None], observed, predicted[0])
  corrected = _correct(means, covariance, agreeing, jnp.where(correct[:, None, None], noise, eye))
  pick = lambda here, a, b: jnp.where(here.reshape(-1, *[1] * (a.ndim - 1)), a, b)
  now = [pick(correct, c, pick(taken, f, p)) for c, f, p in zip(corrected, first, (means, covariance), strict=True)]

  pushed = ahead & (full | taken)
  older = jnp.where((seen == 0)[:, None], at[:, None] - jnp.arange(1, history, dtype=at.dtype), state.times[:, :-1])
  times = jnp.concatenate([at[:, None], older], axis=-1)
  after = FilterState(
    means=pick(pushed, now[0], state.means),
    covariance=pick(pushed, now[1], state.covariance),
    times=pick(pushed, times, state.times),
    seen=jnp.minimum(seen + (pushed & ~full), history).astype(jnp.int32),
    shot=jnp.asarray(shot, jnp.int32),
  )
  return after, Estimate(now[0][:, :dimension], now[1][:, :dimension, :dimension], *predicted, (seen > 0) | taken)


def smooth_track(
  observed: Float[Array, "t n d"],
  noise: Float[Array, "*#t d d"],
  valid: Bool[Array, "t #n"],
  times: Float[Array, "t"],
  shots: Int[Array, "t"],
  *,
  process_noise: Float[Array, "#n"] | Float[Array, ""] | float,
  order: int = 2,
  damping: float = 1.0,
) -> Estimate:
  """A whole track, frame after frame, each by itself and those before it: `update` under `lax.scan`.

  A vector of parameters [t, c] is c points of one dimension: `observed=x[..., None]`, `noise=deviations[..., None, None] ** 2`, a
  `process_noise` [c] for each channel's unit, and the result's `mean[..., 0]`. (Rotations as logarithms, away from pi.)

  Args:
    observed: any unit.
    noise: covariances that broadcast to [t, n, d, d]: a [d, d] for all, or per frame and point.
    valid: per frame and point; [t, 1] for whole frames.
    times: seconds.
    shots: counts cuts.
    process_noise: see `update`.
    order: of the prediction.
    damping: of the prediction.

  Returns:
    With a leading [t].
  """
  count, dimension = observed.shape[1:]
  noise = jnp.broadcast_to(noise, (*observed.shape, dimension)).astype(observed.dtype)
  frames = observed, noise, jnp.broadcast_to(valid, observed.shape[:2]), times, shots
  step = lambda state, frame: update(state, *frame, process_noise=process_noise, damping=damping)
  return lax.scan(step, init(count, dimension, order=order, dtype=observed.dtype), frames)[1]


def _weights(times: Array, seen: Array, at: Array, damping: float) -> Array:
  """What each of the last estimates counts in the prediction, [n h]: of as high an order as there are estimates for."""
  history = times.shape[-1]
  ascending = jnp.concatenate([times[:, ::-1], at[:, None]], axis=-1)
  found = jnp.zeros_like(times).at[:, 0].set(1)
  for order in range(1, history):
    of_order = history_weights(ascending[:, -order - 2 :], order=order, damping=damping)[:, 0]
    of_order = jnp.pad(of_order, ((0, 0), (0, history - order - 1)))
    found = jnp.where((seen > order)[:, None], of_order, found)
  return found


def _push(state: FilterState, weights: Array, top: Array, spread: Array) -> tuple[Array, Array]:
  """The state with weights . x + top in front, whose own covariance is `spread`, and without its oldest."""
  history, dimension = weights.shape[-1], top.shape[-1]
  companion = jnp.zeros((*weights.shape, history), weights.dtype).at[:, 0].set(weights)
  companion = companion.at[:, jnp.arange(1, history), jnp.arange(history - 1)].set(1)
  move = _einsum("nij,kl->nikjl", companion, jnp.eye(dimension, dtype=weights.dtype)).reshape(state.covariance.shape)
  means = _einsum("nij,nj->ni", move, state.means).at[:, :dimension].add(top)
  covariance = _einsum("nij,njk,nlk->nil", move, state.covariance, move).at[:, :dimension, :dimension].add(spread)
  return means, 0.5 * (covariance + jnp.swapaxes(covariance, -1, -2))


def _correct(mean: Array, covariance: Array, observed: Array, noise: Array) -> tuple[Array, Array]:
  """Kalman's correction by an observation of the first coordinates, in Joseph's form."""
  size = observed.shape[-1]
  factor = jnp.linalg.cholesky(covariance[..., :size, :size] + noise)
  gain = jnp.swapaxes(cho_solve((factor, True), covariance[..., :size, :]), -1, -2)
  rest = jnp.broadcast_to(jnp.eye(mean.shape[-1], dtype=mean.dtype), covariance.shape).at[..., :size].add(-gain)
  corrected = _einsum("...ij,...jk,...lk->...il", rest, covariance, rest) + _einsum("...ij,...jk,...lk->...il", gain, noise, gain)
  moved = mean + _einsum("...ij,...j->...i", gain, observed - mean[..., :size])
  return moved, 0.5 * (corrected + jnp.swapaxes(corrected, -1, -2))
