"""Noise and inertia found from a track: the numbers it was made with, the filter that beats every low pass, cuts, still channels."""

import math

import numpy as np
import pytest

from silky_jax.physics.inertia import Inertia, calmed, fit_inertia, stretches


def _track(count, channels, noise, jump, seed=0):
  """Something that keeps its velocity but for white accelerations of `jump` per frame^2, seen with white errors."""
  random = np.random.default_rng(seed)
  true = np.cumsum(np.cumsum(jump * random.normal(size=(count, channels)), axis=0), axis=0)
  return true, true + noise * random.normal(size=true.shape)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("ratio", [0.03, 0.3])
def test_it_finds_what_the_track_was_made_with(unit, ratio):
  _, seen = _track(800, 6, noise=unit, jump=ratio * unit)
  times = np.arange(800) / 25
  found = fit_inertia(seen, times, np.zeros(800, int), orders=(1,))
  np.testing.assert_allclose(found.noise, unit, rtol=0.15)
  np.testing.assert_allclose(found.process_noise / (ratio * unit * 25**2), 1.0, atol=0.6)
  assert (found.order == 1).all()


def test_it_beats_every_low_pass_and_the_filter_that_is_told_wrongly():
  true, seen = _track(600, 8, noise=1.0, jump=0.1)
  times, shots = np.arange(600) / 25, np.zeros(600, int)
  found = fit_inertia(seen, times, shots)
  error = lambda x: np.sqrt(np.mean((x - true)[30:] ** 2))
  own = error(calmed(seen, found, times, shots))
  for share in np.linspace(0.1, 1.0, 10):
    low = seen.copy()
    for k in range(1, len(seen)):
      low[k] = share * seen[k] + (1 - share) * low[k - 1]
    assert own < 0.9 * error(low), share
  for factor in (0.1, 10.0):
    assert own < error(calmed(seen, found._replace(process_noise=factor * found.process_noise), times, shots))


def test_nothing_is_carried_across_a_cut_and_nothing_looks_ahead():
  _, seen = _track(200, 3, noise=1.0, jump=0.1)
  seen[100:] += 50.0
  times, shots = np.arange(200) / 25, (np.arange(200) >= 100).astype(int)
  found = fit_inertia(seen, times, shots)
  assert (found.noise < 2.0).all()  # the jump is not taken for motion or for noise
  whole = calmed(seen, found, times, shots)
  np.testing.assert_allclose(whole[100:102], seen[100:102], rtol=1e-5)
  later = seen.copy()
  later[150:] = 1e3
  np.testing.assert_allclose(calmed(later, found, times, shots)[:150], whole[:150], atol=1e-3)


def test_a_still_channel_stays_and_a_missing_frame_is_predicted():
  true, seen = _track(120, 2, noise=0.01, jump=0.02)
  seen[:, 1] = 0.25
  times, shots, valid = np.arange(120) / 25, np.zeros(120, int), np.arange(120) != 60
  found = fit_inertia(seen, times, shots)
  seen[60, 0] = 99.0
  out = calmed(seen, found, times, shots, valid)
  np.testing.assert_array_equal(out[:, 1], np.float32(0.25))
  assert abs(out[60, 0] - true[60, 0]) < 0.3 and np.isfinite(out).all()


@pytest.mark.parametrize("ahead", [False, True])
def test_nothing_is_taken_from_a_frame_that_was_not_tracked(ahead):
  """Whatever stands there, NaN too: the rest is the same, and it is where its neighbours say."""
  true, seen = _track(200, 3, noise=0.05, jump=0.01)
  times, shots, valid = np.arange(200) / 25, np.zeros(200, int), np.ones(200, bool)
  valid[[0, 80, 81, 199]] = False
  found = fit_inertia(seen[valid], times[valid], shots[valid])
  outs = []
  for garbage in (np.nan, 1e4):
    broken = seen.copy()
    broken[~valid] = garbage
    outs.append(calmed(broken, found, times, shots, valid, ahead=ahead))
  np.testing.assert_array_equal(outs[0], outs[1])
  assert np.isfinite(outs[0]).all() and np.abs(outs[0] - true)[[80, 81, 199]].max() < 0.3


def test_a_frame_that_was_not_tracked_surprises_nobody():
  """Far from where the track usually is, the frame after a gap is filtered as before: no motion is seen where nothing is."""
  random = np.random.default_rng(0)
  true = np.where(np.arange(300) < 200, 0.0, 10.0)[:, None] + np.zeros((300, 60))
  seen = true + 0.1 * random.normal(size=true.shape)
  times, shots, valid = np.arange(300) / 25, np.zeros(300, int), np.arange(300) != 260
  found = fit_inertia(seen[:190], times[:190], shots[:190])
  off = lambda x: np.sqrt(np.mean((x - true)[261] ** 2))
  assert off(calmed(seen, found, times, shots, valid)) < 0.7 * off(seen)


def test_where_time_does_not_go_on_there_is_a_cut():
  times, shots = np.asarray([0.0, 0.04, 0.08, 0.0, 0.04, 0.34, 0.38, 0.42]), np.asarray([0, 0, 0, 0, 0, 0, 0, 1])
  np.testing.assert_array_equal(stretches(times, shots), [0, 0, 0, 1, 1, 2, 2, 3])


def test_too_few_frames_are_refused():
  with pytest.raises(ValueError, match="at least 12"):
    fit_inertia(np.zeros((9, 1)), np.arange(9) / 25, np.zeros(9, int))


def test_a_jump_is_followed_at_once():
  """Someone sits still for long and then moves: what is taken for noise is small, and the filter does not lag."""
  random = np.random.default_rng(0)
  true = np.where(np.arange(300) < 200, 0.0, 10.0)[:, None] + np.zeros((300, 2))
  seen = true + 0.1 * random.normal(size=true.shape)
  times, shots = np.arange(300) / 25, np.zeros(300, int)
  found = fit_inertia(seen[:190], times[:190], shots[:190])
  out = calmed(seen, found, times, shots)
  assert np.abs(out[200:204] - true[200:204]).max() < 1.0
  assert np.abs(out[100:190] - true[100:190]).std() < 0.5 * np.abs(seen[100:190] - true[100:190]).std()


def test_missing_times_are_no_cuts():
  """A webcam's repeats left out: what comes a frame later says as much."""
  _, seen = _track(900, 4, noise=1.0, jump=0.1)
  kept = np.flatnonzero(np.random.default_rng(1).random(900) < 0.5)
  found = fit_inertia(seen[kept], kept / 25, np.zeros(len(kept), int), orders=(1,))
  np.testing.assert_allclose(found.noise, 1.0, rtol=0.2)


@pytest.mark.parametrize("order", [1, 2])
def test_the_whole_track_is_the_likeliest_one(order):
  """Against a dense solve of the same least squares, with uneven times and a cut; and nearer to the truth than the causal filter."""
  true, seen = _track(160, 2, noise=1.0, jump=0.1)
  kept = np.flatnonzero(np.random.default_rng(2).random(160) < 0.8)
  times, shots = kept / 25, (kept > 100).astype(int)
  true, seen = true[kept], seen[kept]
  rate = np.full(2, 0.1 * 25.0 ** (order + 1))
  found = Inertia(np.ones(2), rate, np.full(2, order))
  out = calmed(seen, found, times, shots, ahead=True, strength=1.0)

  rows, reaches = [], []
  for k in range(order + 1, len(kept)):
    if shots[k] != shots[k - order - 1]:
      continue
    past = times[k - order - 1 : k]
    row = np.zeros(len(kept))
    row[k - order - 1 : k] = [-np.prod([(times[k] - b) / (a - b) for b in past if b != a]) for a in past]
    row[k] = 1.0
    rows.append(row)
    reaches.append(np.prod(times[k] - past) / math.factorial(order + 1))
  expected = np.asarray(rows) / (rate[0] * np.asarray(reaches))[:, None]
  dense = np.linalg.solve(np.eye(len(kept)) + expected.T @ expected, seen)
  surprised = np.abs(out - dense).max(axis=1) > 1e-2  # where q was raised
  assert surprised.mean() < 0.1
  np.testing.assert_allclose(out[~surprised], dense[~surprised], atol=1e-2)
  error = lambda x: np.sqrt(np.mean((x - true) ** 2))
  assert error(out) < 0.8 * error(calmed(seen, found, times, shots, strength=1.0)) and error(out) < 0.6 * error(seen)


def test_a_jump_and_a_missing_frame_of_a_whole_track():
  random = np.random.default_rng(0)
  true = np.where(np.arange(300) < 200, 0.0, 10.0)[:, None] + np.zeros((300, 2))
  seen = true + 0.1 * random.normal(size=true.shape)
  seen[50] = 1e3
  times, shots, valid = np.arange(300) / 25, np.zeros(300, int), np.arange(300) != 50
  found = fit_inertia(seen[60:190], times[60:190], shots[60:190])
  out = calmed(seen, found, times, shots, valid, ahead=True)
  assert np.isfinite(out).all() and np.abs(out[50]).max() < 0.2
  assert np.abs(out - true)[[197, 198, 199, 200, 201, 202]].max() < 1.5
