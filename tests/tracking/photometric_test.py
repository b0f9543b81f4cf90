"""Direct alignment on a made-up picture: lookups, gains, and a displaced pose that is pulled back."""

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.tracking import photometric
from silky_jax.tracking.photometric import PhotometricConfig


def test_sampling_reads_pixel_centres_and_interpolates_between_them():
  image = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 7, 3)), jnp.float32)
  found = photometric.sample(image, jnp.asarray([[0.5, 0.5], [6.49, 4.49], [3.0, 2.5]]))
  np.testing.assert_allclose(found[0], image[0, 0], atol=1e-6)
  np.testing.assert_allclose(found[1], image[4, 6], atol=0.03)
  np.testing.assert_allclose(found[2], (image[2, 2] + image[2, 3]) / 2, atol=1e-6)


def test_sampling_has_the_gradient_of_the_picture():
  ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None] * 0.1, (16, 16, 3))
  slope = jax.jacfwd(lambda p: photometric.sample(ramp, p[None])[0, 0])(jnp.asarray([7.3, 8.8]))
  np.testing.assert_allclose(slope, [0.1, 0.0], atol=1e-6)


def test_gain_and_offset_are_recovered():
  rng = np.random.default_rng(1)
  colours = jnp.asarray(rng.uniform(0.2, 0.8, (200, 3)), jnp.float32)
  found = colours * jnp.asarray([1.1, 1.0, 0.9]) + 0.02
  gain = photometric._gain(found, colours, jnp.ones(200))
  np.testing.assert_allclose(gain[0], [1.1, 1.0, 0.9], atol=0.01)
  np.testing.assert_allclose(colours * gain[0] + gain[1], found, atol=5e-3)


def test_settings_are_hashable_for_jit():
  assert hash(PhotometricConfig()) == hash(PhotometricConfig())
