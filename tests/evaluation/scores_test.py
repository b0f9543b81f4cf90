"""Scores against scikit-image and against cases worked by hand; means that merge."""

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics

from silky_jax.evaluation import scores
from silky_jax.training.metrics import Means


@pytest.fixture
def pair():
  rng = np.random.default_rng(3)
  smooth = np.cumsum(np.cumsum(rng.normal(size=(2, 40, 48, 3)), 1), 2)
  a = (smooth - smooth.min()) / np.ptp(smooth)
  b = np.clip(a + rng.normal(0, 0.05, a.shape), 0, 1)
  return a.astype(np.float32), b.astype(np.float32)


def test_psnr_is_that_of_scikit_image(pair):
  a, b = pair
  got = scores.psnr(jnp.asarray(a), jnp.asarray(b), jnp.ones((2, 40, 48)))
  want = [skimage.metrics.peak_signal_noise_ratio(b[k], a[k], data_range=1.0) for k in range(2)]
  np.testing.assert_allclose(got, want, atol=1e-3)


def test_ssim_is_that_of_scikit_image(pair):
  a, b = pair
  got = scores.ssim(jnp.asarray(a), jnp.asarray(b), jnp.ones((2, 40, 48)))
  settings = dict(data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
  want = [skimage.metrics.structural_similarity(b[k], a[k], **settings) for k in range(2)]
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_mask_weighs_pixels():
  # 16 px off by 0.1 with weight 1, 16 px off by 0.3 with weight 0.5: (16 * 0.01 + 8 * 0.09) / 24 = 0.88 / 24.
  target = np.zeros((1, 8, 8, 3), np.float32)
  predicted, mask = target.copy(), np.zeros((1, 8, 8), np.float32)
  predicted[:, :2], mask[:, :2] = 0.1, 1.0
  predicted[:, 2:4], mask[:, 2:4] = 0.3, 0.5
  predicted[:, 4:] = 1.0  # outside: does not count
  got = scores.psnr(jnp.asarray(predicted), jnp.asarray(target), jnp.asarray(mask))
  np.testing.assert_allclose(got, [-10 * np.log10(0.88 / 24)], atol=1e-4)


def test_equal_pictures_score_100_and_nothing_scores_nan():
  image = jnp.full((1, 16, 16, 3), 0.4)
  np.testing.assert_allclose(scores.psnr(image, image, jnp.ones((1, 16, 16))), [100.0])
  assert np.isnan(scores.psnr(image, image, jnp.zeros((1, 16, 16)))[0])
  assert np.isnan(scores.ssim(image, image, jnp.zeros((1, 16, 16)))[0])


def test_ssim_counts_only_the_mask(pair):
  a, b = pair
  mask = np.zeros((2, 40, 48), np.float32)
  mask[:, :, :20] = 1
  spoiled = b.copy()
  spoiled[:, :, 26:] = 0  # further than 5 px from the mask
  left = scores.ssim(jnp.asarray(a), jnp.asarray(b), jnp.asarray(mask))
  np.testing.assert_allclose(scores.ssim(jnp.asarray(a), jnp.asarray(spoiled), jnp.asarray(mask)), left, atol=1e-6)


def _scene(pair):
  a, b = pair
  mask = np.zeros((2, 40, 48), np.float32)
  mask[:, 4:36, 4:40] = 1
  parts = np.full((2, 40, 48), 1, np.uint8)
  parts[:, 24:30, 12:24] = 12
  parts[0, 10:16, 10:16] = 4
  parts[:, 36:, 40:] = 5  # outside the mask
  return tuple(jnp.asarray(x) for x in (a, b, mask, parts))


def test_frame_scores_by_region(pair):
  a, b, mask, parts = _scene(pair)
  seen = []

  def lpips(x, y):
    seen.append(np.abs(np.asarray(x - y)) * (1 - np.asarray(mask))[..., None])
    return jnp.zeros(x.shape[0])

  got = scores.frame_scores(a, scores.inside(a, b, mask), b, mask, parts, lpips=lpips)
  np.testing.assert_allclose(got["psnr"], scores.psnr(a, b, mask), atol=1e-4)
  np.testing.assert_allclose(got["mouth.psnr"], scores.psnr(a, b, (parts == 12) * 1.0), atol=1e-4)
  assert np.isfinite(got["eyes.psnr"][0]) and np.isnan(got["eyes.psnr"][1])
  assert (np.asarray(got["whole.psnr"]) > np.asarray(got["psnr"])).all()  # outside the mask it agrees here
  assert seen[0].max() == 0.0  # inside-the-mask LPIPS sees no difference outside
  assert set(got) == {f"{r}{m}" for r in ("", "whole.", "mouth.", "eyes.") for m in ("psnr", "ssim")} | {"lpips_alex", "whole.lpips_alex"}


def test_lpips_of_regions_sees_no_other_difference(pair):
  a, b, mask, parts = _scene(pair)
  distance = lambda x, y: jnp.abs(x - y).sum(axis=(1, 2, 3))
  got = scores.region_lpips(a, b, mask, parts, lpips=distance)
  np.testing.assert_allclose(got["mouth.lpips_alex"], distance(a[:, 24:30, 12:24], b[:, 24:30, 12:24]), rtol=1e-5)
  np.testing.assert_allclose(got["eyes.lpips_alex"][0], distance(a[:1, 10:16, 10:16], b[:1, 10:16, 10:16])[0], rtol=1e-5)
  assert np.isnan(got["eyes.lpips_alex"][1])  # there the only eye is outside the mask


def test_paint_outside_the_head_counts_in_the_whole_picture_only(pair):
  a, b, mask, parts = _scene(pair)
  clean = scores.frame_scores(a, scores.inside(a, b, mask), b, mask, parts)
  spilt = jnp.where(mask[..., None] > 0, a, 1.0)
  spill = scores.frame_scores(spilt, spilt, b, mask, parts)
  np.testing.assert_allclose(clean["psnr"], spill["psnr"])
  np.testing.assert_allclose(clean["ssim"], spill["ssim"], atol=1e-6)
  assert (np.asarray(spill["whole.psnr"]) < np.asarray(clean["whole.psnr"]) - 3).all()


def test_pair_scores_see_flicker_not_offset(pair):
  a, _ = pair
  still = jnp.stack([jnp.asarray(a), jnp.asarray(a)], axis=1)
  mask = jnp.ones((2, 2, 40, 48))
  darker = scores.pair_scores(still * 0.5, still, mask)["temporal.psnr"]
  np.testing.assert_allclose(darker, 100.0)  # a constant error does not change in time
  flicker = still.at[:, 1].add(0.1)
  np.testing.assert_allclose(scores.pair_scores(flicker, still, mask)["temporal.psnr"], 20.0, atol=1e-3)


def test_means_merge_to_the_mean_of_all():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=11), rng.normal(size=11)
  b[[2, 7]] = np.nan
  groups = [slice(0, 1), slice(1, 6), slice(6, 6), slice(6, 11)]
  merged = Means.empty()
  for group in groups:
    merged = merged.merge(scores.means_of({"a": a[group], "b": b[group]}))
  at_once = scores.means_of({"a": np.append(a, 99.0), "b": np.append(b, 99.0)}, 11)
  assert merged.compute() == pytest.approx(at_once.compute())
  assert merged.compute() == pytest.approx({"a": a.mean(), "b": np.nanmean(b)})
  assert np.isnan(scores.means_of({"c": np.array([np.nan])}).compute()["c"])


def test_successive_pairs_skip_only_repeats():
  indices = np.array([10, 11, 13, 15, 30, 31, 41])
  got = scores.successive_pairs(indices, np.array([12, 32, 33, 34, 35, 36, 37, 38, 39, 40]))
  # 11-13 has the repeat 12 between; 13-15 has an unmarked frame; 31-41 has only repeats but lies too far apart.
  assert got.tolist() == [[0, 1], [1, 2], [4, 5]]
  assert scores.successive_pairs(np.array([3]), np.array([], int)).shape == (0, 2)
