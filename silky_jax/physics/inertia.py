"""How noisy a driver is and how inert what it tracks, found from the track itself: the two numbers that `filter` wants to be told.

A tracked parameter is taken for what Kalman's filter takes it for: something that keeps its velocity (order 1) or its acceleration
(order 2) but for a process noise q, seen with white errors r. The filter's own one-step predictions z^ with their variances S say how
likely a track is (the prediction error decomposition; Schweppe 1965),

    log L = -1/2 sum_k [ log S_k + (z_k - z^_k)^2 / S_k ],

and S scales with r^2 when q does with r. So r^2 = mean (z - z^)^2 / s, s being S for r = 1, and only the ratio q / r and the order
have to be searched for: on a grid, all channels at once. What a tracker errs slowly by looks like motion to any filter: most of it stays.

Someone who sits still and then moves surprises such a filter, and it would lag. A frame that is more than three deviations from what
was predicted is taken for motion: for that frame q grows until it is three. Small errors are filtered as before, and jumps are followed
at once. What is recorded can be known whole: `ahead` asks the same model for the likeliest of all frames together.

Neither the truth nor a picture is looked at: parameters only.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from scipy.linalg import solveh_banded

from silky_jax.physics.filter import init, smooth_track, update
from silky_jax.physics.kinematics import history_weights

__all__ = ["STILL", "STRENGTH", "Inertia", "calmed", "fit_inertia", "stretches"]

# q s^(order + 1) / r, s the time between frames: what a frame's surprise is in units of the error it is seen with. Beyond 30 nothing is
# filtered, below 1e-3 a channel stands still or keeps going for a thousand frames.
_RATIOS = np.logspace(-3, 1.5, 28)
_ORDERS = (1, 2)
# Trackers err slowly too, which a fit of white errors takes for motion: more than 1 brings positions nearer to a studio film's truth, and
# on the demo clip takes more jitter and more of the picture. experiments/results/calm_strength.json has both, at four strengths.
STRENGTH = 1.4
STILL = 1e-7  # deviation of a channel that never moves: of radians, metres, coefficients
_LEAST_NOISE = 1e-12  # what such a channel gets: a positive number
_GAP = 0.2  # seconds between frames: more is a cut, as it is for the clips of training (`clips.max_gap`)
_USUAL = 3.0  # deviations; a larger surprise is motion
_FEWEST = 12  # predictions of a channel, below which nothing can be said


class Inertia(NamedTuple):
  """Of c channels; what `calmed` filters with."""

  noise: Float[np.ndarray, "c"]  # r: deviation of what is seen, the channel's unit
  process_noise: Float[np.ndarray, "c"]  # q: unit / s^(order + 1), as `filter.update` has it
  order: Int[np.ndarray, "c"]  # of the motion that is kept: 1 velocity, 2 acceleration


def fit_inertia(
  track: Float[np.ndarray, "t c"], times: Float[np.ndarray, "t"], shots: Int[np.ndarray, "t"], *, orders: tuple[int, ...] = _ORDERS
) -> Inertia:
  """The likeliest noise and inertia of each channel.

  Args:
    track: what was tracked, in order of time; any units, each channel by itself. Rotations as logarithms, away from pi.
    times: seconds.
    shots: counts cuts; nothing is predicted across one. See `stretches`.
    orders: of motion to choose from.

  Returns:
    Inertia. A channel that never changes gets a noise of next to nothing.

  Raises:
    ValueError: too few frames in a row to predict any.
  """
  track = np.asarray(track, np.float64)
  center, spread = track.mean(axis=0), track.std(axis=0)
  still = spread <= STILL
  scaled = jnp.asarray((track - center) / np.where(still, 1.0, spread), jnp.float32)
  _check_rows(shots, max(orders))
  step = float(np.median(np.diff(times)[np.diff(shots) == 0]))
  found = [_likelihoods(scaled, times, shots, step, order) for order in orders]
  best = np.stack([likelihood.max(axis=1) for likelihood, _ in found])
  chosen = best.argmax(axis=0)
  channels = np.arange(track.shape[1])
  at = np.stack([likelihood.argmax(axis=1) for likelihood, _ in found])[chosen, channels]
  variance = np.stack([variance for _, variance in found])[chosen, channels, at]
  order = np.asarray(orders)[chosen]
  noise = np.where(still, _LEAST_NOISE, np.sqrt(variance) * np.where(still, 1.0, spread))
  return Inertia(noise, _RATIOS[at] * noise / step ** (order + 1), order)


def stretches(times: Float[np.ndarray, "t"], shots: Int[np.ndarray, "t"]) -> Int[np.ndarray, "t"]:
  """A number per frame that changes at cuts, where time does not go on, and after gaps of more than 0.2 s: there nothing is predicted."""
  gaps = np.diff(times)
  return np.concatenate([[0], np.cumsum((np.diff(shots) != 0) | (gaps <= 0) | (gaps > _GAP + 1e-6))])


def _with_history(shots: Int[np.ndarray, "t"], order: int) -> Int[np.ndarray, "u"]:
  """Frames that have order + 1 others before them in their shot."""
  at = np.arange(order + 1, len(shots))
  return at[shots[at] == shots[at - order - 1]]


def _check_rows(shots: Int[np.ndarray, "t"], order: int) -> None:
  if (found := len(_with_history(shots, order))) < _FEWEST:
    raise ValueError(f"fit_inertia: expected at least {_FEWEST} frames that {order + 1} others come before without a cut, found {found}")


def _likelihoods(track, times, shots, step: float, order: int) -> tuple[Float[np.ndarray, "c g"], Float[np.ndarray, "c g"]]:
  """Per channel and ratio: log likelihood per prediction at the best noise, and that noise's variance."""
  channels = track.shape[1]
  wide = jnp.repeat(track, len(_RATIOS), axis=1)  # every ratio is a point of its own
  rates = jnp.tile(jnp.asarray(_RATIOS / step ** (order + 1), jnp.float32), channels)
  means, variances = _predictions(wide, jnp.asarray(times, jnp.float32), jnp.asarray(shots), rates, order)
  at = _with_history(shots, order)  # the first frames of a stretch are taken as they are seen: they say nothing
  total = np.asarray(variances, np.float64)[at] + 1.0
  missed = (np.asarray(wide, np.float64)[at] - np.asarray(means, np.float64)[at]) ** 2
  variance = np.maximum(np.mean(missed / total, axis=0), 1e-12)
  likelihood = -0.5 * (np.mean(np.log(total), axis=0) + np.log(variance) + 1.0)
  return likelihood.reshape(channels, -1), variance.reshape(channels, -1)


@functools.partial(jax.jit, static_argnums=4)
def _predictions(track, times, shots, rates, order: int) -> tuple[Float[Array, "t n"], Float[Array, "t n"]]:
  seen = jnp.ones((track.shape[0], 1), bool)
  found = smooth_track(track[..., None], jnp.eye(1), seen, times, shots, process_noise=rates, order=order)
  return found.predicted_mean[..., 0], found.predicted_covariance[..., 0, 0]


def calmed(
  track: Float[np.ndarray, "t c"],
  inertia: Inertia,
  times: Float[np.ndarray, "t"],
  shots: Int[np.ndarray, "t"],
  valid: Bool[np.ndarray, "t"] | None = None,
  *,
  ahead: bool = False,
  strength: float = STRENGTH,
) -> Float[np.ndarray, "t c"]:
  """A track by Kalman's filter, each frame by itself and those before it; or, known whole, what is likeliest of all of it.

  Equation, with `ahead`: per channel, with the same model and numbers, x minimises

      sum_k ((x_k - z_k) / r)^2 + sum_k ((x_k - sum_j w_kj x_k-j) / (q_k reach_k))^2,

  a banded linear system; q_k is raised where the causal filter was surprised.

  Args:
    track: as for `fit_inertia`, of any length; anything, NaN too, where not valid.
    inertia: of its channels.
    times: seconds.
    shots: counts cuts.
    valid: False where a frame was not tracked: its neighbours say where it is, those before it alone without `ahead`. None: all were.
    ahead: whether later frames may be looked at.
    strength: times the noise that was found, at which the track is filtered. 1 is likeliest were all errors white.

  Returns:
    float32. Without `ahead` the first frames of a shot are as they were tracked, and what comes before anything was tracked lies in the
    track's middle.
  """
  track = np.asarray(track)
  seen = np.ones(len(track), bool) if valid is None else np.asarray(valid, bool)
  out, times, shots = np.array(track, np.float32), np.asarray(times, np.float64), np.asarray(shots)
  for order in np.unique(inertia.order):
    which = np.flatnonzero((inertia.order == order) & (inertia.noise > _LEAST_NOISE))
    if not len(which) or not seen.any():
      continue
    # In units of the noise, from the middle: float32 covariances of radians and metres would be tiny.
    noise, middle = strength * inertia.noise[which], track[seen][:, which].mean(axis=0)
    scaled = np.where(seen[:, None], (track[:, which] - middle) / noise, 0.0)
    rates = jnp.asarray(inertia.process_noise[which] / noise, jnp.float32)
    frames = (jnp.asarray(x) for x in (scaled.astype(np.float32), times.astype(np.float32), shots, seen))
    mean, raised = (np.asarray(found, np.float64) for found in _filtered(*frames, rates, int(order)))
    if ahead:
      rows = _expectations(times, shots, int(order))
      mean = np.stack([_likeliest(scaled[:, k], seen, rows, raised[:, k]) for k in range(len(which))], axis=1)
    out[:, which] = mean * noise + middle
  return out


class _Expected(NamedTuple):
  """What is expected of each frame that has a history in its shot."""

  at: Int[np.ndarray, "u"]
  weights: Float[np.ndarray, "u h"]  # of the frames before it, newest first
  reach: Float[np.ndarray, "u"]  # of a process noise, by the time of this frame


def _expectations(times: np.ndarray, shots: np.ndarray, order: int) -> _Expected:
  history, at = order + 1, _with_history(shots, order)
  before = times[at[:, None] - np.arange(1, history + 1)]
  window = np.concatenate([before[:, ::-1], times[at][:, None]], axis=1) - times[at][:, None]
  weights = np.asarray(history_weights(jnp.asarray(window, jnp.float32), order=order)[:, 0], np.float64)
  return _Expected(at, weights, np.prod(times[at][:, None] - before, axis=1) / math.factorial(history))


def _likeliest(seen_at: np.ndarray, seen: np.ndarray, rows: _Expected, rates: np.ndarray) -> np.ndarray:
  """Of one channel, in units of its noise."""
  history, count = rows.weights.shape[1], len(seen_at)
  trust = 1 / (rates[rows.at] * rows.reach) ** 2
  terms = np.concatenate([np.ones((len(rows.at), 1)), -rows.weights], axis=1)  # of frame k, k - 1, ..
  bands = np.zeros((history + 1, count))  # lower: bands[d, j] couples j and j + d
  # A frame that was not tracked has next to no weight of its own (none where it stands alone would leave it nowhere).
  own = np.where(seen, 1.0, 1e-6)
  bands[0] = own
  for newer in range(history + 1):
    for older in range(newer, history + 1):
      np.add.at(bands[older - newer], rows.at - older, trust * terms[:, newer] * terms[:, older])
  return solveh_banded(bands, own * seen_at, lower=True)


@functools.partial(jax.jit, static_argnums=5)
def _filtered(track, times, shots, seen, rates, order: int) -> tuple[Float[Array, "t n"], Float[Array, "t n"]]:
  """Estimates, and the process noise that each frame was taken to have: `filter.smooth_track` in units of the noise, with a process noise
  that a surprise raises. See the head of this file."""
  noise, history = jnp.eye(1), order + 1

  def step(state, frame):
    place, time, shot, here = frame
    look = functools.partial(
      update, state, place[:, None], jnp.broadcast_to(noise, (len(rates), 1, 1)), jnp.broadcast_to(here, rates.shape)
    )
    guess = look(time, shot, process_noise=rates)[1]
    missed, total = place - guess.predicted_mean[:, 0], guess.predicted_covariance[:, 0, 0] + 1.0
    unexplained = jnp.maximum((missed / _USUAL) ** 2 - total, 0.0)
    reach = jnp.prod(time - state.times, axis=-1) / math.factorial(history)  # of a rate, by the time of this frame
    known = here & (state.seen == history) & (shot == state.shot) & (reach > 0)
    raised = jnp.sqrt(rates**2 + jnp.where(known, unexplained / jnp.where(known, reach, 1.0) ** 2, 0.0))
    after, found = look(time, shot, process_noise=raised)
    return after, (found.mean[:, 0], raised)

  start = init(len(rates), 1, order=order, dtype=track.dtype)
  return lax.scan(step, start, (track, times, shots, seen))[1]
