"""Prediction by inertia: exact on what the order assumes, of uneven times too; windows, cuts and gaps."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics.kinematics import between, history_weights, predict, predict_means, share_of_way, usable

EVEN = jnp.arange(6) * 0.04
UNEVEN = jnp.asarray([0.0, 0.04, 0.07, 0.2, 0.24, 0.3])


def _path(times, degree, seed=0):
  """Points that move along polynomials in time, mm."""
  rng = np.random.default_rng(seed)
  powers = np.asarray(times)[:, None] ** np.arange(degree + 1)
  return jnp.asarray(np.einsum("tk,knc->tnc", powers, rng.normal(size=(degree + 1, 4, 3)) * 10))


def test_weights_of_even_times(x64):
  times = jnp.asarray(np.arange(6) * 0.04)
  np.testing.assert_allclose(history_weights(times, order=2), np.broadcast_to([3, -3, 1], (3, 3)), atol=1e-9)
  np.testing.assert_allclose(history_weights(times, order=1), np.broadcast_to([2, -1], (4, 2)), atol=1e-9)
  np.testing.assert_allclose(history_weights(times, order=2, damping=0.0), np.broadcast_to([1, 0, 0], (3, 3)), atol=1e-12)
  half = history_weights(times, order=2, damping=0.5)
  np.testing.assert_allclose(half, np.broadcast_to([2, -1.5, 0.5], (3, 3)), atol=1e-9)


def test_anchor_3_a_parabola_is_not_missed_by_half_its_acceleration(x64):
  """The weights are (3, -3, 1). With the newest difference as velocity they would be (2.5, -2, 0.5), and mu = t^2 / 2 missed by 0.5."""
  times = jnp.arange(4.0)
  means = (0.5 * times**2)[:, None, None] * jnp.ones((1, 1, 3))
  np.testing.assert_allclose(history_weights(times), [[3, -3, 1]], atol=1e-12)
  np.testing.assert_allclose(predict_means(means, times)[0], means[3:].reshape(1, 3), atol=1e-12)
  naive = predict(means, jnp.asarray([[2.5, -2.0, 0.5]]))
  np.testing.assert_allclose(naive[0] - means[3], -0.5, atol=1e-12)


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("order", [1, 2])
def test_motion_of_the_assumed_order_is_predicted_exactly(x64, times, order):
  times = times.astype(jnp.float64)
  means = _path(times, order)
  np.testing.assert_allclose(predict_means(means, times, order=order), means[order + 1 :], atol=1e-9)
  beyond = _path(times, order + 1)
  assert np.abs(predict_means(beyond, times, order=order) - beyond[order + 1 :]).max() > 1e-3


def test_weights_are_those_of_lagrange(x64):
  times = np.asarray(UNEVEN, np.float64)
  for k in range(3, 6):
    past = times[k - 3 : k][::-1]
    wanted = [np.prod([(times[k] - past[m]) / (past[j] - past[m]) for m in range(3) if m != j]) for j in range(3)]
    np.testing.assert_allclose(history_weights(jnp.asarray(times))[k - 3], wanted, rtol=1e-9)


def test_turning_and_shifting_the_path_turns_and_shifts_the_prediction(x64):
  means, times = _path(UNEVEN.astype(jnp.float64), 4), UNEVEN.astype(jnp.float64)
  turn = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0])
  np.testing.assert_allclose(predict_means(means @ turn + 5, times), predict_means(means, times) @ turn + 5, atol=1e-9)


def test_noise_gains_are_five_and_nineteen():
  for order, gain in ((1, 5), (2, 19)):
    np.testing.assert_allclose(jnp.sum(history_weights(EVEN, order=order) ** 2, axis=-1), gain, rtol=1e-4)


def test_what_can_be_predicted():
  there, one_shot = jnp.ones(6, bool), jnp.zeros(6, jnp.int32)
  assert usable(EVEN, there, one_shot, order=2).tolist() == [True, True, True]
  assert usable(EVEN, there, one_shot, order=1).tolist() == [True] * 4
  assert usable(EVEN, there.at[2].set(False), one_shot, order=2).tolist() == [False, False, False]
  assert usable(EVEN, there.at[0].set(False), one_shot, order=2).tolist() == [False, True, True]
  cut = jnp.asarray([0, 0, 0, 0, 1, 1])
  assert usable(EVEN, there, cut, order=2).tolist() == [True, False, False]
  assert usable(EVEN, there, cut, order=1).tolist() == [True, True, False, False]
  twice = EVEN.at[4].set(EVEN[3])
  assert usable(twice, there, one_shot, order=2).tolist() == [True, False, False]
  assert np.isfinite(history_weights(twice)).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_windows_shorter_than_the_history_predict_nothing(count):
  times = EVEN[:count]
  assert usable(times, jnp.ones(count, bool), jnp.zeros(count, jnp.int32)).shape == (0,)
  assert predict_means(jnp.ones((count, 5, 3)), times).shape == (0, 5, 3)


def test_batches_of_windows(x64):
  times = jnp.stack([EVEN, UNEVEN]).astype(jnp.float64)
  means = jnp.stack([_path(times[0], 3, 0), _path(times[1], 3, 1)])
  both = predict_means(means, times)
  for index in range(2):
    np.testing.assert_allclose(both[index], predict_means(means[index], times[index]), atol=1e-12)


def test_an_order_that_there_is_not():
  with pytest.raises(ValueError, match="order: expected 1 or 2, got 3"):
    inspect.unwrap(history_weights)(EVEN, order=3)


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_between_neighbours_is_the_line_through_them(x64, times):
  times = times.astype(jnp.float64)
  line, bent = _path(times, 1), _path(times, 2)
  np.testing.assert_allclose(between(line, times), line[1:-1], atol=1e-12)
  wanted = [
    [np.interp(times[k], times[k - 1 : k + 2 : 2], bent[k - 1 : k + 2 : 2, i, j]) for i in range(4) for j in range(3)] for k in range(1, 5)
  ]
  np.testing.assert_allclose(between(bent, times).reshape(4, 12), wanted, atol=1e-12)
  still = times.at[2:4].set(times[1])
  assert share_of_way(still).tolist()[1] == 0.5 and np.isfinite(share_of_way(still)).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_between_nothing_is_nothing(count):
  assert between(jnp.ones((count, 5, 3)), EVEN[:count]).shape == (0, 5, 3)
