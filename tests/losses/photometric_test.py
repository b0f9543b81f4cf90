"""Photometric losses against hand numbers and scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from silky_jax.losses import photometric


def _pair(size=(40, 52), seed=0):
  rng = np.random.default_rng(seed)
  a = rng.uniform(size=(*size, 3)).astype(np.float32)
  return jnp.asarray(a), jnp.clip(a + 0.2 * rng.normal(size=a.shape).astype(np.float32), 0, 1)


@pytest.mark.parametrize(("difference", "expected"), [(0.05, 0.00125), (-0.05, 0.00125), (0.3, 0.025), (0.1, 0.005), (0.0, 0.0)])
def test_huber_anchors(difference, expected):
  target = jnp.full((4, 5, 3), 0.4)
  np.testing.assert_allclose(photometric.huber(target + difference, target), expected, atol=1e-7)


def test_huber_slope():
  slope = jax.grad(lambda d: photometric.huber(jnp.full((1, 1, 1), d), jnp.zeros((1, 1, 1))))
  np.testing.assert_allclose([slope(0.04), slope(0.5), slope(-0.5), slope(0.0)], [0.04, 0.1, -0.1, 0.0], atol=1e-7)


def test_l1():
  a, b = _pair()
  np.testing.assert_allclose(photometric.l1(a, b), np.abs(np.asarray(a) - np.asarray(b)).mean(), rtol=1e-5)


def test_part_weights_are_full_picture_plus_mouth():
  a, b = _pair()
  parts = np.zeros(a.shape[:2], np.uint8)
  parts[10:20, 10:30] = 11
  mouth = (parts == 11)[..., None]
  table = np.zeros(19, np.float32)
  table[11] = 40.0
  expected = photometric.huber(a, b) + 40 * photometric.huber(a * mouth, b * mouth)
  np.testing.assert_allclose(photometric.huber(a, b, photometric.part_weights(jnp.asarray(parts), jnp.asarray(table))), expected, rtol=1e-5)


def test_ssim_equals_scikit_image():
  a, b = _pair()
  expected = structural_similarity(
    np.asarray(a), np.asarray(b), data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
  )
  np.testing.assert_allclose(photometric.ssim(a, b), expected, atol=2e-6)


def test_ssim_batch_identity_and_gradient():
  a, b = _pair()
  both = photometric.ssim(jnp.stack([a, a]), jnp.stack([a, b]))
  np.testing.assert_allclose(both, [1.0, photometric.ssim(a, b)], atol=1e-6)
  gradient = jax.grad(lambda x: photometric.ssim(x, jnp.ones_like(x)))(jnp.ones((16, 16, 3)))
  assert np.isfinite(gradient).all()


def test_ssim_refuses_a_small_image():
  with pytest.raises(ValueError, match=r"11 px.*8 x 30"):
    photometric.ssim(jnp.zeros((8, 30, 3)), jnp.zeros((8, 30, 3)))


def test_ssim_blurs_the_same_by_shifts_as_by_products():
  """GPUs take the one, CPUs the other."""
  stack = jnp.asarray(np.random.default_rng(3).uniform(size=(2, 40, 33, 5)), jnp.float32)
  taps = photometric._window(11, 1.5)
  shifts, products = (lambda x, f=f: f(x, taps) for f in (photometric._blur_by_shifts, photometric._blur_by_products))
  np.testing.assert_allclose(jax.jit(shifts)(stack), products(stack), atol=1e-6)
  gradient = lambda blur: jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(7 * blur(x)))))(stack)
  np.testing.assert_allclose(gradient(shifts), gradient(products), atol=1e-5)
