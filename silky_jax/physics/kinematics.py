"""Where points should be next, by inertia: polynomials through the last frames, of any spacing in time.

A window of t frames gives u = t - (order + 1) predictions, each from the order + 1 frames before it. Predicting is linear:
`history_weights` depends on times alone, `predict` applies it to anything that has a value per frame. Where the frame after is known too,
`between` says what inertia puts in the middle, with a noise gain of 1/2 where the line ahead has 5.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["between", "history_weights", "predict", "predict_means", "share_of_way", "usable"]


def _history(x: Array, order: int) -> list[Array]:
  """Per prediction the frame itself, then the frames before it, newest first: order + 2 arrays [*b u]."""
  count = x.shape[-1] - order - 1
  return [x[..., order + 1 - back : order + 1 - back + count] for back in range(order + 2)]


def usable(times: Float[Array, "*b t"], valid: Bool[Array, "*b t"], shots: Int[Array, "*b t"], *, order: int = 2) -> Bool[Array, "*b u"]:
  """Which frames can be predicted: they and their history exist, lie in one shot, and time runs forward.

  Args:
    times: seconds.
    valid: False where a frame is missing.
    shots: counts cuts.
    order: of the prediction.

  Returns:
    One per prediction; none (length 0) where the window is shorter than the history.
  """
  _check(order)
  if times.shape[-1] < order + 2:
    return jnp.zeros((*times.shape[:-1], 0), bool)
  at, there, shot = (_history(x, order) for x in (times, valid, shots))
  fine = there[0]
  for newer, older in zip(range(order + 1), range(1, order + 2), strict=True):
    fine &= there[older] & (shot[older] == shot[0]) & (at[newer] > at[older])
  return fine


def history_weights(times: Float[Array, "*b t"], *, order: int = 2, damping: float = 1.0) -> Float[Array, "*b u h"]:
  """What each frame of the history counts in the prediction.

  Equation: with h = t_k - t_1 and the polynomial p through the history (newest t_1): p(t_1) + damping (p'(t_1) h + p''(t_1) h^2 / 2).
  Undamped these are Lagrange's weights; of even times (2, -1) and (3, -3, 1), exact on lines and parabolas.

  Args:
    times: seconds.
    order: 1 keeps the velocity, 2 the acceleration too.
    damping: 0 predicts the last place; 1 inertia. The variance of noise grows 5-fold (order 1) and 19-fold (order 2) undamped.

  Returns:
    Newest first, sum 1. Where two times are equal, (1, 0, 0): see `usable`. No gradient to be expected in times that are data.
  """
  _check(order)
  if times.shape[-1] < order + 2:
    return jnp.zeros((*times.shape[:-1], 0, order + 1), times.dtype)
  at = _history(times, order)
  forward = at[0] - at[1]
  first = at[1] - at[2]
  apart = jnp.stack([at[k] - at[k + 1] for k in range(1, order + 1)], axis=-1)
  good = (apart > 0).all(axis=-1)
  safe = lambda x: jnp.where(good, x, 1)
  # Divided differences as weights of the history.
  slope = 1 / safe(first)
  ahead = [slope, -slope]
  if order == 2:
    second = 1 / safe(at[2] - at[3])
    bend = 1 / safe(at[1] - at[3])
    curve = [slope * bend, -(slope + second) * bend, second * bend]
    ahead = [slope + curve[0] * first, -slope + curve[1] * first, curve[2] * first]
    steps = [a * forward + c * forward * forward for a, c in zip(ahead, curve, strict=True)]
  else:
    steps = [a * forward for a in ahead]
  base = [jnp.ones_like(forward)] + [jnp.zeros_like(forward)] * order
  return jnp.stack([b + damping * jnp.where(good, s, 0) for b, s in zip(base, steps, strict=True)], axis=-1)


def predict(values: Float[Array, "*b t n c"], weights: Float[Array, "*b u h"]) -> Float[Array, "*b u n c"]:
  """Weighted sums of the history.

  Args:
    values: per frame and point, any channels.
    weights: `history_weights` of the same frames.

  Returns:
    Per predictable frame. Linear in `values`.
  """
  history = weights.shape[-1]
  count = weights.shape[-2]
  total = jnp.zeros((*values.shape[:-3], count, *values.shape[-2:]), values.dtype)
  for back in range(history):
    start = history - 1 - back
    total += weights[..., back, None, None] * values[..., start : start + count, :, :]
  return total


def predict_means(
  means: Float[Array, "*b t n 3"], times: Float[Array, "*b t"], *, order: int = 2, damping: float = 1.0
) -> Float[Array, "*b u n 3"]:
  """Where each point would be by inertia: `predict` with `history_weights`.

  Args:
    means: any unit.
    times: seconds.
    order: 1 or 2.
    damping: see `history_weights`.

  Returns:
    In the unit of `means`, for the frames after the history. At order 2 and even times the truth is missed by the third difference.
  """
  return predict(means, history_weights(times, order=order, damping=damping))


def share_of_way(times: Float[Array, "*b t"]) -> Float[Array, "*b u"]:
  """How far each inner frame is on the way, in time, from the frame before it to the frame after it.

  Equation: (t_k - t_k-1) / (t_k+1 - t_k-1): Lagrange's weight of the frame after; 1 minus it is that of the frame before.

  Args:
    times: seconds.

  Returns:
    For the frames 1 to t - 2: 0 to 1, 1/2 of even times and where all three are one. None (length 0) where t < 3. Whether it may be used:
    `usable` of order 1, whose k-th entry speaks of the same three frames.
  """
  if times.shape[-1] < 3:
    return jnp.zeros((*times.shape[:-1], 0), times.dtype)
  whole = times[..., 2:] - times[..., :-2]
  good = whole > 0
  return jnp.where(good, (times[..., 1:-1] - times[..., :-2]) / jnp.where(good, whole, 1), 0.5)


def between(values: Float[Array, "*b t n c"], times: Float[Array, "*b t"]) -> Float[Array, "*b u n c"]:
  """Where each point would be if it moved evenly from the frame before to the frame after: exact on lines.

  Equation: (1 - s) x_k-1 + s x_k+1, s = `share_of_way`. At even times the truth is missed by half the second difference.

  Args:
    values: per frame and point, any channels.
    times: seconds.

  Returns:
    For the frames 1 to t - 2. Linear in `values`.
  """
  share = share_of_way(times)[..., None, None]
  count = share.shape[-3]
  return (1 - share) * values[..., :count, :, :] + share * values[..., values.shape[-3] - count :, :, :]


def _check(order: int) -> None:
  if order not in (1, 2):
    raise ValueError(f"order: expected 1 or 2, got {order}")
