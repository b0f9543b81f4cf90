"""Unmixing outlines that were mixed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.losses.matting import unmix_outline

FRONT, BACK = np.array([0.2, 0.1, 0.05]), np.array([0.8, 0.7, 0.6])
SIZE = 40


def _disc(softness=1.0, radius=12.0):
  """True alpha of a disc whose edge is `softness` px wide, and a mask that is one pixel too large and hard."""
  y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
  distance = np.hypot(y, x)
  return np.clip((radius - distance) / softness + 0.5, 0, 1), (distance < radius + 1.0).astype(np.float64)


def _unmix(image, mask, width=2):
  return (np.asarray(x) for x in unmix_outline(jnp.asarray(image, jnp.float32), jnp.asarray(mask, jnp.float32), width))


@pytest.mark.parametrize("softness", [0.5, 2.0])
def test_finds_the_alpha_that_mixed_the_picture(softness):
  alpha, mask = _disc(softness)
  image = alpha[..., None] * FRONT + (1 - alpha[..., None]) * BACK
  foreground, found = _unmix(image, mask)
  assert np.abs(mask - alpha).max() > 0.9  # the mask given is wrong
  np.testing.assert_allclose(found, alpha, atol=0.03)
  np.testing.assert_allclose(foreground[alpha > 0.01], np.broadcast_to(FRONT, foreground[alpha > 0.01].shape), atol=1e-3)


def test_inside_and_outside_nothing_changes():
  alpha, mask = _disc()
  image = np.random.default_rng(0).uniform(size=(SIZE, SIZE, 3))
  foreground, found = _unmix(image, mask)
  inside = alpha == 1
  inside &= np.roll(inside, (4, 4), (0, 1)) & np.roll(inside, (-4, -4), (0, 1)) & np.roll(inside, (4, -4), (0, 1))
  np.testing.assert_allclose(foreground[inside], image[inside], rtol=1e-6)
  np.testing.assert_array_equal(found[inside], 1)
  assert (found[:4] == 0).all()


def test_keeps_the_mask_where_head_and_wall_look_alike():
  _, mask = _disc()
  _, found = _unmix(np.full((SIZE, SIZE, 3), 0.4), mask)
  np.testing.assert_allclose(found, mask, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_an_outline(value):
  image = np.random.default_rng(1).uniform(size=(SIZE, SIZE, 3))
  foreground, found = _unmix(image, np.full((SIZE, SIZE), value))
  np.testing.assert_allclose(foreground, image, rtol=1e-6)
  np.testing.assert_array_equal(found, value)


def test_batches():
  alpha, mask = _disc()
  image = alpha[..., None] * FRONT + (1 - alpha[..., None]) * BACK
  many = jax.jit(unmix_outline, static_argnums=2)(jnp.stack([image, image]).astype(jnp.float32), jnp.stack([mask, mask]), 2)
  for one, both in zip(_unmix(image, mask), many, strict=True):
    np.testing.assert_allclose(np.asarray(both), np.stack([one, one]), atol=1e-5)
