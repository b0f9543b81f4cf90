"""The causal filter against a textbook loop and against least squares, its certainty, and what it does to noise, gaps and cuts."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics.filter import fuse, init, smooth_track, update

STEP = 0.04
UNEVEN = np.asarray([0.0, 0.04, 0.07, 0.15, 0.2, 0.24, 0.26, 0.35, 0.4, 0.44, 0.5, 0.53])
track = jax.jit(smooth_track, static_argnames=("order", "damping"))


def _noise(rng, *shape):
  axes = rng.normal(size=(*shape, 3, 3))
  return axes @ axes.swapaxes(-1, -2) + 0.2 * np.eye(3)


def _seen(times, valid=None, seed=0, n=2):
  """Noisy points on sines: what smooth_track takes, in float64 where that is on."""
  rng, t = np.random.default_rng(seed), len(times)
  truth = 5 * np.sin(6 * times[:, None, None] + rng.uniform(0, 6, (n, 3)))
  noise = _noise(rng, t, n)
  observed = truth + np.einsum("tnij,tnj->tni", np.linalg.cholesky(noise), rng.normal(size=truth.shape))
  valid = np.ones((t, n), bool) if valid is None else valid
  given = (observed, noise, valid, times, np.zeros(t, np.int32))
  return [jnp.asarray(x) for x in given]


def _weights(times, at, damping):
  """Of values at `times`, newest first, in the value at `at` of the polynomial through them; damped towards the newest."""
  powers = (times - times[0])[:, None] ** np.arange(len(times))
  full = (at - times[0]) ** np.arange(len(times)) @ np.linalg.inv(powers)
  return np.eye(len(times))[0] * (1 - damping) + damping * full


def _textbook(observed, noise, valid, times, jerk, order, damping):
  """Kalman's filter of one point, with plain inverses and P* = (I - K H) P^, from the first order + 1 frames as they are."""
  h, factorial = order + 1, (order + 1) * (2 if order == 2 else 1)
  x, p = np.concatenate(observed[:h][::-1]), np.zeros((3 * h, 3 * h))
  for k in range(h):
    p[3 * k : 3 * k + 3, 3 * k : 3 * k + 3] = noise[h - 1 - k]
  means, covariances = list(observed[:h]), list(noise[:h])
  for k in range(h, len(times)):
    past = times[k - h : k][::-1]
    move = np.zeros((h, h))
    move[0], move[1:, :-1] = _weights(past, times[k], damping), np.eye(h - 1)
    move = np.kron(move, np.eye(3))
    x, p = move @ x, move @ p @ move.T
    p[:3, :3] += (jerk * np.prod(times[k] - past) / factorial) ** 2 * np.eye(3)
    if valid[k]:
      look = np.eye(3, 3 * h)
      gain = p @ look.T @ np.linalg.inv(look @ p @ look.T + noise[k])
      x, p = x + gain @ (observed[k] - look @ x), (np.eye(3 * h) - gain @ look) @ p
    means.append(x[:3])
    covariances.append(p[:3, :3])
  return np.stack(means), np.stack(covariances)


@pytest.mark.parametrize(("order", "damping"), [(2, 1.0), (1, 0.8)])
def test_equals_a_textbook_loop(x64, order, damping):
  """Uneven times, noise of another shape in each frame, a frame in which one point is missing and one in which both are."""
  valid = np.ones((12, 2), bool)
  valid[5, 1] = valid[8] = False
  given = _seen(UNEVEN, valid)
  found = track(*given, process_noise=2000.0, order=order, damping=damping)
  assert found.known.all()
  for i in range(2):
    observed, noise, there = (np.asarray(x[:, i]) for x in given[:3])
    means, covariances = _textbook(observed, noise, there, UNEVEN, 2000.0, order, damping)
    np.testing.assert_allclose(found.mean[:, i], means, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.covariance[:, i], covariances, rtol=1e-7, atol=1e-9)


def test_each_frame_is_the_least_squares_of_all_before_it(x64):
  """What the recursion is for: the newest point of the path that misses observations and inertia least. The start is exact too."""
  times, jerk = np.arange(8) * STEP, 3000.0
  given = _seen(times, n=1)
  found = track(*given, process_noise=jerk)
  observed, noise = np.asarray(given[0][:, 0]), np.asarray(given[1][:, 0])
  for k in range(3, 8):
    information, right = np.zeros((3 * k + 3, 3 * k + 3)), np.zeros(3 * k + 3)
    for j in range(k + 1):
      at = slice(3 * j, 3 * j + 3)
      information[at, at] += np.linalg.inv(noise[j])
      right[at] += np.linalg.inv(noise[j]) @ observed[j]
      if j >= 3:
        misses = np.zeros((3, 3 * k + 3))
        misses[:, 3 * j - 9 : 3 * j + 3] = np.kron([-1, 3, -3, 1], np.eye(3))
        information += misses.T @ misses / (jerk * STEP**3) ** 2
    solved = np.linalg.inv(information)
    np.testing.assert_allclose(found.mean[k, 0], (solved @ right)[-3:], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.covariance[k, 0], solved[-3:, -3:], rtol=1e-6, atol=1e-9)


def _below(a, b):
  """Loewner's order, up to float32's rounding of b."""
  return (
    np.linalg.eigvalsh(np.asarray(b, np.float64) - np.asarray(a, np.float64)) > -1e-6 * np.linalg.norm(b, axis=(-2, -1))[..., None]
  ).all()


def test_seeing_makes_certain():
  """The fused covariance is below the predicted and the observed one; with the published sign it is not. Needles too, in float32."""
  rng = np.random.default_rng(1)
  predicted, noise = _noise(rng, 50), _noise(rng, 50)
  turn = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
  predicted[:20] = turn[:20] @ np.diag([0.05, 20, 3.0]) ** 2 @ turn[:20].swapaxes(1, 2)
  a, b = rng.normal(size=(2, 50, 3))
  mean, fused = fuse(*(jnp.asarray(x, jnp.float32) for x in (a, predicted, b, noise)))
  gain = predicted @ np.linalg.inv(predicted + noise)
  wanted = np.linalg.inv(np.linalg.inv(predicted) + np.linalg.inv(noise))
  np.testing.assert_allclose(fused, wanted, atol=1e-4)
  np.testing.assert_allclose(mean, a + np.einsum("nij,nj->ni", gain, b - a), atol=1e-3)
  assert _below(fused, predicted) and _below(fused, noise)
  assert (np.linalg.eigvalsh(np.asarray(fused, np.float64)) > 0).all()
  published = predicted + gain @ predicted
  assert not _below(published, predicted) and not _below(published, noise)


def _lag(found, truth):
  """Frames by which a track is late: how much of the velocity is missing."""
  velocity = np.gradient(truth, axis=0)[20:-1]
  return -np.sum((found - truth)[20:-1] * velocity) / np.sum(velocity**2)


def test_noise_is_taken_away_with_little_delay():
  """Sines of 0.2 to 1.5 Hz and 1 to 4 mm, seen with 1 mm of noise, float32: 0.70 mm are left, 0.3 frames late."""
  rng, t, n = np.random.default_rng(0), 200, 20
  times = np.arange(t) * STEP
  pace, phase, size = (rng.uniform(*ends, (4, 1, n, 3)) for ends in ((0.2, 1.5), (0, 6.3), (1, 4)))
  truth = np.sum(size * np.sin(2 * np.pi * pace * times[:, None, None] + phase), axis=0)
  observed = truth + rng.normal(size=truth.shape)
  f = lambda x: jnp.asarray(x, jnp.float32)
  found = track(
    f(observed), jnp.eye(3), jnp.ones((t, 1), bool), f(times), jnp.zeros(t, jnp.int32), process_noise=0.1 / STEP**3, damping=0.9
  )
  left = lambda x: np.sqrt(np.mean((np.asarray(x) - truth)[20:] ** 2))
  assert left(found.mean) < 0.72 < 0.98 < left(observed)
  assert 0 < _lag(np.asarray(found.mean), truth) < 0.35
  # A mean of the last two frames is later and worse, of three worse than nothing.
  two = 0.5 * (observed + np.roll(observed, 1, axis=0))
  assert left(two) > 0.8 and _lag(two, truth) > 0.4
  # What it claims of itself is so.
  claimed = np.sqrt(np.mean(np.diagonal(found.covariance[20:], axis1=-2, axis2=-1)))
  np.testing.assert_allclose(left(found.mean), claimed, rtol=0.1)


def test_the_first_frames_are_as_they_are_seen():
  observed, noise, valid, times, shots = _seen(UNEVEN)
  found = track(observed, noise, valid, times, shots, process_noise=100.0)
  np.testing.assert_array_equal(found.mean[:3], observed[:3].astype(jnp.float32))
  np.testing.assert_allclose(found.covariance[:3], noise[:3], rtol=1e-6)
  assert np.abs(found.mean[3:] - observed[3:]).min() > 1e-4
  # Before it is seen nothing is known of it; what starts with a gap is on the line through what there is.
  late = track(observed, noise, valid.at[:2].set(False).at[4].set(False), times, shots, process_noise=100.0)
  assert late.known.all(axis=1).tolist() == [False, False] + [True] * 10
  share = (UNEVEN[4] - UNEVEN[3]) / (UNEVEN[3] - UNEVEN[2])
  np.testing.assert_allclose(late.mean[4], (1 + share) * observed[3] - share * observed[2], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(late.covariance[4], (1 + share) ** 2 * noise[3] + share**2 * noise[2], rtol=1e-4)
  np.testing.assert_array_equal(late.mean[5], observed[5].astype(jnp.float32))
  assert np.isfinite(late.mean).all() and np.isfinite(late.covariance).all()


def test_a_gap_is_bridged_and_a_cut_is_not():
  """A parabola without noise: through the gap it is followed, less and less certainly; after the cut it starts where it is seen."""
  times = np.arange(12) * STEP
  path = np.broadcast_to((30 * times - 40 * times**2)[:, None, None], (12, 1, 3))
  valid = jnp.ones((12, 1), bool).at[5:8].set(False)
  given = [jnp.asarray(x, jnp.float32) for x in (path, 1e-4 * np.eye(3))]
  found = track(*given, valid, jnp.asarray(times, jnp.float32), jnp.zeros(12, jnp.int32), process_noise=10.0)
  np.testing.assert_allclose(found.mean, path, atol=2e-2)
  spread = np.asarray(found.covariance)[:, 0, 0, 0]
  assert (np.diff(spread[4:8]) > 0).all() and spread[8] < 1e-4 < spread[5]
  shots = jnp.asarray([0] * 6 + [1] * 6)
  moved = jnp.asarray(path, jnp.float32).at[6:].add(50)
  cut = track(moved, given[1], jnp.ones((12, 1), bool), jnp.asarray(times, jnp.float32), shots, process_noise=10.0)
  np.testing.assert_array_equal(cut.mean[6:9], moved[6:9])
  np.testing.assert_allclose(cut.mean[9:], moved[9:], atol=2e-2)
  unseen = track(moved, given[1], jnp.ones((12, 1), bool).at[6].set(False), jnp.asarray(times, jnp.float32), shots, process_noise=10.0)
  assert not unseen.known[6] and unseen.known[7]


def test_what_is_not_valid_does_not_spread():
  """NaN, in the observation and in its noise, forward and backward; no gradient of it, some of the rest."""
  observed, noise, valid, times, shots = _seen(UNEVEN)
  valid = valid.at[0, 0].set(False).at[6, 1].set(False).at[7].set(False)
  bad = lambda x: jnp.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, jnp.nan)
  total = lambda z, s: jnp.sum(
    jnp.where(jnp.arange(12)[:, None, None] > 0, smooth_track(z, s, valid, times, shots, process_noise=500.0).mean, 0)
  )
  slopes = jax.jit(jax.value_and_grad(total, (0, 1)))
  value, (by_place, by_noise) = slopes(bad(observed), bad(noise))
  plain = slopes(observed, noise)
  assert np.isfinite(value) and value == plain[0]
  for found, wanted in ((by_place, plain[1][0]), (by_noise, plain[1][1])):
    np.testing.assert_array_equal(found, wanted)
    assert np.isfinite(found).all() and not np.asarray(found)[~np.asarray(valid)].any()
  # A shift of all that is seen shifts every known estimate.
  np.testing.assert_allclose(jnp.sum(by_place[:, 1]), 11 * 3, rtol=1e-4)


def test_time_that_does_not_go_on_changes_nothing():
  observed, noise, valid, times, shots = _seen(UNEVEN)
  step = jax.jit(functools.partial(update, process_noise=500.0))
  state = init(2)
  for k in range(5):
    state, estimate = step(state, observed[k], noise[k], valid[k], times[k], shots[k])
  for time in (times[4], times[2]):
    after, again = step(state, observed[5], noise[5], valid[5], time, shots[5])
    for old, new in zip(state, after, strict=True):
      np.testing.assert_array_equal(old, new)
    np.testing.assert_allclose(again.mean, estimate.mean, rtol=1e-6)


def test_damped_a_point_out_of_sight_comes_to_rest():
  times = np.arange(60) * STEP
  observed = np.broadcast_to(10 * times[:, None, None], (60, 1, 3))
  given = [jnp.asarray(x, jnp.float32) for x in (observed, 0.01 * np.eye(3))]
  valid, shots = jnp.asarray(np.arange(60)[:, None] < 6), jnp.zeros(60, jnp.int32)
  run = lambda damping: np.asarray(track(*given, valid, jnp.asarray(times, jnp.float32), shots, process_noise=100.0, damping=damping).mean)
  assert np.abs(np.diff(run(0.8)[-5:], axis=0)).max() < 3e-3 and np.abs(run(0.8)[6:] - observed[5]).max() < 1.5
  assert run(1.0)[-1].min() > 15


def test_a_driver_s_parameters_are_points_of_one_dimension():
  """Channels of another unit each: scaled with its deviation and process noise, a channel's estimate is the same, scaled."""
  rng, times = np.random.default_rng(3), np.arange(15) * STEP
  values = np.sin(3 * times[:, None] + rng.uniform(0, 6, (1, 4))) + 0.1 * rng.normal(size=(15, 4))
  unit = np.asarray([1.0, 10.0, 0.01, 1.0])
  f = lambda x: jnp.asarray(x, jnp.float32)
  run = lambda unit: track(
    f(values * unit)[..., None],
    f(0.1 * unit)[:, None, None] ** 2,
    jnp.ones((15, 1), bool),
    f(times),
    jnp.zeros(15, jnp.int32),
    process_noise=f(100 * unit),
  )
  plain, scaled = run(np.ones(4)), run(unit)
  assert scaled.mean.shape == (15, 4, 1)
  np.testing.assert_allclose(scaled.mean[..., 0] / unit, plain.mean[..., 0], rtol=1e-3, atol=1e-4)
  assert (plain.covariance[5:] < 0.01).all()


def test_an_order_that_there_is_not():
  with pytest.raises(ValueError, match="order: expected 1 or 2, got 0"):
    inspect.unwrap(init)(3, order=0)
