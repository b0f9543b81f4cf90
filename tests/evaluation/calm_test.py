"""Calm drivers: noise goes, motion stays; repeats hold still; moments seen by several cameras agree."""

import dataclasses

import jax
import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.evaluation.calm import PARAMETERS, calm, calm_driver, fit_calm
from silky_jax.evaluation.reenact import read_driver, write_driver


@pytest.fixture
def film(make_frames):
  """240 frames of steady motion, tracked with errors; and the truth."""
  random, count = np.random.default_rng(0), 240
  frames = make_frames(count, seed=0, size=4)
  true, seen = {}, {}
  for name in PARAMETERS:
    still = getattr(frames, name)[0]
    true[name] = (
      0.2 * np.sin(np.arange(count) / 20 + random.uniform(0, 6, still.shape)[..., None]).transpose(still.ndim, *range(still.ndim)) + 0.4
    )
    seen[name] = (true[name] + 0.01 * random.normal(size=true[name].shape)).astype(np.float32)
  return frames.replace(**seen), true


def test_noise_goes_and_motion_stays(film):
  frames, true = film
  found = calm(frames, fit_calm(frames))
  for name in PARAMETERS:
    off = lambda made, name=name: np.sqrt(np.mean((np.asarray(getattr(made, name)) - true[name])[20:] ** 2))
    assert off(found) < 0.75 * off(frames), name
  np.testing.assert_array_equal(found.time, frames.time)


def test_a_repeated_picture_has_the_parameters_of_the_one_before(film):
  frames, _ = film
  repeats = np.arange(len(frames.index)) % 3 == 2
  found = calm(frames, fit_calm(frames), repeats)
  for name in PARAMETERS:
    value = getattr(found, name)
    np.testing.assert_array_equal(value[repeats], value[np.flatnonzero(repeats) - 1])
  kept = jax.tree.map(lambda leaf: leaf[~repeats], frames)
  np.testing.assert_allclose(found.expression[~repeats], calm(kept, fit_calm(frames)).expression, atol=1e-6)


def test_cameras_that_see_one_moment_agree(film):
  frames, _ = film
  both = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), frames)
  one, two = calm(frames, fit_calm(frames)), calm(both, fit_calm(both))
  np.testing.assert_allclose(two.pose, np.concatenate([one.pose, one.pose]), atol=1e-6)


def test_a_driver_is_calmed_by_its_own_track_and_a_short_one_is_refused(film, tmp_path):
  frames, true = film
  driver = read_driver(write_driver(tmp_path / "motion.npz", frames, rig_name="open_head", rig_hash="0", fps=25.0))
  found, ahead = (calm_driver(driver, ahead=ahead) for ahead in (False, True))
  off = lambda made: np.sqrt(np.mean((np.asarray(made.expression) - true["expression"])[20:] ** 2))
  assert off(ahead.frames) < 0.75 * off(found.frames) < 0.75**2 * off(frames) and found.fps == driver.fps
  short = dataclasses.replace(driver, frames=jax.tree.map(lambda leaf: leaf[:9], driver.frames))
  with pytest.raises(UserError, match="without --calm"):
    calm_driver(short, ahead=False)
