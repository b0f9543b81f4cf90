"""The parts of the adaptive Hellinger loss. The whole of it: term_test.py, and singular_test.py where it could break."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics import consistency as c


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


def test_an_unknown_measure():
  one = jnp.zeros((1, 3)), jnp.eye(3)[None]
  with pytest.raises(ValueError, match="measure: expected one of"):
    inspect.unwrap(c.adaptive_distance)(*one, *one, jnp.ones(1), measure="kl")
