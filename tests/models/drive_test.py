"""Playing an avatar: many frames equal single ones, and no picture has holes for want of room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.models.drive import frames_renderer, live_renderer, make_renderer, pack_motion
from silky_jax.models.silky import SilkyConfig, make
from silky_jax.render.pipeline import RenderConfig


@pytest.fixture(scope="module")
def avatar():
  return make(SilkyConfig(uv_size=24, residual="none", harmonics_degree=0))


@pytest.fixture(scope="module")
def variables(avatar, rig, subject):
  return avatar.init(jax.random.key(0), rig, subject)


def test_many_frames_equal_single_ones_although_the_capacity_is_far_too_small(avatar, variables, rig, make_frame, caplog):
  frames = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make_frame(seed) for seed in range(2)))
  blind = frames.replace(image=None, mask=None, parts=None, landmarks=None)
  background = jnp.asarray([0.2, 0.4, 0.6])
  images, alphas = frames_renderer(avatar, variables, rig, background, config=RenderConfig(capacity=64, backend="xla"))(blind)
  assert images.shape == (2, 48, 48, 3) and alphas.shape == (2, 48, 48)
  assert "growing" in caplog.text
  one = make_renderer(avatar, RenderConfig(capacity=32768, backend="xla"))
  for i in range(2):
    result = one(variables, rig, jax.tree.map(lambda leaf, i=i: leaf[i], blind), background)
    assert int(result.overflow) == 0
    np.testing.assert_allclose(images[i], result.image, atol=1e-5)
    np.testing.assert_allclose(alphas[i], result.alpha, atol=1e-5)
  np.testing.assert_allclose(images[0, 0, 0], background, atol=1e-6)


def test_a_live_frame_is_the_frame(avatar, variables, rig, make_frame):
  frames = [make_frame(seed) for seed in range(2)]
  background, config = jnp.asarray([0.2, 0.4, 0.6]), RenderConfig(capacity=32768, backend="xla")
  rows = np.stack([pack_motion(*(np.asarray(getattr(f, n)) for n in ("expression", "pose", "eyelids", "translation"))) for f in frames])
  live = live_renderer(avatar, variables, rig, frames[0].camera, background, config=config)
  one = make_renderer(avatar, config)
  together, pairs = live(rows)
  for k, frame in enumerate(frames):
    expected = one(variables, rig, frame, background)
    image, wanted = live(rows[k])
    assert int(wanted) == int(pairs[k]) == int(expected.pairs) > 0
    np.testing.assert_allclose(image, expected.image, atol=1e-5)
    np.testing.assert_allclose(together[k], expected.image, atol=1e-5)
