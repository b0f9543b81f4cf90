"""The adaptive Hellinger loss: its parts, and the whole of it in float32 on every singular state."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics import consistency as c
from silky_jax.physics.kinematics import predict_means
from silky_jax.physics.transport import predict_covariances


def test_residuals_by_group():
  residuals = jnp.asarray([[[3.0, 4, 0], [0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]])
  found = c.group_rms(residuals, jnp.ones((2, 3)), jnp.asarray([0, 1, 1]), 3)
  np.testing.assert_allclose(found, [np.sqrt(25 / 2), np.sqrt(2 / 4), 0], rtol=1e-6)
  first = c.group_rms(residuals, jnp.asarray([[1.0] * 3, [0] * 3]), jnp.asarray([0, 1, 1]), 3)
  np.testing.assert_allclose(first, [5, np.sqrt(1 / 2), 0], rtol=1e-6)
  np.testing.assert_allclose(c.blur_of(found, jnp.asarray([2, 0])), [0.5, np.sqrt(12.5)], rtol=1e-6)
  assert not np.asarray(jax.grad(lambda r: c.group_rms(r, jnp.ones((2, 3)), jnp.asarray([0, 1, 1]), 3).sum())(residuals)).any()


def test_residuals_are_averaged_over_steps():
  residuals, groups = jnp.asarray([[[3.0, 4, 0], [0, 0, 2], [0, 0, 0], [9, 9, 9]]]), jnp.asarray([0, 1, 2, 3])
  counted = jnp.asarray([[1.0, 1, 1, 0]])
  found = c.running_rms(jnp.asarray([0.0, 1, 1, 1]), residuals, counted, groups)
  # The first of its kind; a tenth of the new; perfect inertia is a residual too; not counted.
  np.testing.assert_allclose(found, [5, 0.9 + 0.2, 0.9, 1], rtol=1e-6)
  lost = c.running_rms(jnp.full(4, jnp.nan), residuals, counted, groups)
  np.testing.assert_allclose(lost, [5, 2, 0, 0], rtol=1e-6)
  slopes = jax.grad(lambda b, r: c.running_rms(b, r, counted, groups).sum(), (0, 1))(jnp.ones(4), residuals)
  assert not any(np.asarray(slope).any() for slope in slopes)


def test_jerky_anchors_are_trusted_less():
  np.testing.assert_allclose(c.jerk_weights(jnp.asarray([[0.0, 0, 0], [1, 0, 0], [0, 3, 0]])), [1, 0.5, 0.1], rtol=1e-6)


def test_a_mean_over_nothing_is_nothing():
  value, slope = jax.value_and_grad(lambda v: c.mean_over(v, jnp.zeros(3)))(jnp.ones(3))
  assert value == 0 and not np.asarray(slope).any()


def test_blur_keeps_far_residuals_audible():
  """20 mm off at 3 mm: deaf without the blur of the group's own residual, heard with it."""
  mean, covariance = jnp.asarray([[20.0, 0, 0]]), 9 * jnp.eye(3)[None]
  pull = lambda blur: jnp.abs(
    jax.grad(lambda m: c.adaptive_distance(m, covariance, jnp.zeros((1, 3)), covariance, jnp.asarray([blur])).sum())(mean)
  ).max()
  assert pull(20.0) > 4 * pull(0.5) > 0


@pytest.mark.parametrize("measure", ["hellinger", "bhattacharyya", "airm", "w2"])
def test_measures_vanish_smoothly_at_agreement(measure):
  rng = np.random.default_rng(0)
  axes = rng.normal(size=(6, 3, 3))
  covariance = jnp.asarray(axes @ axes.swapaxes(1, 2) + np.eye(3), jnp.float32).at[0].set(9 * jnp.eye(3))
  mean = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
  loss = lambda m, s: c.adaptive_distance(m, s, mean, covariance, jnp.full(6, 0.5), measure=measure).sum()
  value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(mean, covariance)
  assert abs(value) < 1e-4
  for slope in slopes:
    np.testing.assert_allclose(slope, 0, atol=1e-4)
  assert loss(mean + 1.0, covariance) > 0.1


def _loss(means, log_deviations, rotations):
  """The whole loss, absolute mode, airm2, tau = 0.5 mm, over one window, from what a model holds."""
  times = jnp.arange(means.shape[0], dtype=jnp.float32) * 0.04
  axes = rotations * jnp.exp(log_deviations)[..., None, :]
  covariances = axes @ jnp.swapaxes(axes, -1, -2)
  count = means.shape[0] - 3
  history = [covariances[2 - back : 2 - back + count] for back in range(3)]
  at = [times[3 - back : 3 - back + count][:, None] for back in range(4)]
  predicted = predict_covariances(history, at)
  distance = c.adaptive_distance(means[3:], covariances[3:], predict_means(means, times), predicted, jnp.full(means.shape[1], 0.5))
  return c.mean_over(distance, jnp.ones_like(distance))


def _rotations(rng, shape):
  return jnp.asarray(np.linalg.qr(rng.normal(size=(*shape, 3, 3)))[0], jnp.float32)


STATES = ("isotropic", "identical", "random", "needles", "inertia")


@pytest.mark.parametrize("state", STATES)
def test_the_whole_loss_in_single_precision(state):
  rng, (t, n) = np.random.default_rng(3), (6, 50)
  means = jnp.asarray(rng.normal(size=(t, n, 3)) * 30, jnp.float32)
  deviations = jnp.full((t, n, 3), np.log(3.0), jnp.float32)
  turned = _rotations(rng, (t, n))
  if state == "identical":
    means, turned = jnp.broadcast_to(means[:1], means.shape), jnp.broadcast_to(turned[:1], turned.shape)
    deviations = deviations + jnp.asarray(rng.normal(size=(1, n, 3)) * 0.5, jnp.float32)
  elif state == "random":
    deviations = deviations + jnp.asarray(rng.normal(size=(t, n, 3)), jnp.float32)
  elif state == "needles":
    deviations = jnp.broadcast_to(jnp.log(jnp.asarray([0.05, 20.0, 3.0])), (t, n, 3))
  elif state == "inertia":  # constant acceleration, log-deviations linear in time: a geodesic
    frame = np.arange(t)[:, None, None]
    means = jnp.asarray(rng.normal(size=(1, n, 3)) * 30 + frame * rng.normal(size=(1, n, 3)) + 0.1 * frame**2, jnp.float32)
    deviations = deviations + jnp.asarray(frame * rng.normal(size=(1, n, 3)) * 0.05, jnp.float32)
    turned = jnp.broadcast_to(turned[:1], turned.shape)
  value, slopes = jax.jit(jax.value_and_grad(_loss, (0, 1, 2)))(means, deviations, turned)
  assert np.isfinite(value) and 0 <= value + 1e-6 <= 1.001
  assert all(np.isfinite(s).all() for s in slopes)
  if state in ("identical", "inertia"):
    assert abs(value) < 2e-5
  if state == "identical":
    assert all(np.abs(s).max() < 1e-4 for s in slopes)
  if state == "random":
    assert np.abs(slopes[0]).max() > 1e-6


def test_an_unknown_measure():
  one = jnp.zeros((1, 3)), jnp.eye(3)[None]
  with pytest.raises(ValueError, match="measure: expected one of"):
    inspect.unwrap(c.adaptive_distance)(*one, *one, jnp.ones(1), measure="kl")
