"""Openings and their correlation, on planted landmarks."""

import numpy as np
import pytest

from silky_jax.evaluation import follow


def _landmarks(lips, lids, scale=1.0):
  points = np.zeros((len(lips), 478, 2))
  points[:, 454, 0] = 100 * scale
  points[:, 14, 1] = 100 * scale * np.asarray(lips)
  for upper, lower in ((386, 374), (159, 145)):
    points[:, upper, 1], points[:, lower, 1] = 5, 5 + 100 * scale * np.asarray(lids)
  return points


def test_openings_are_in_face_widths():
  for scale in (1.0, 3.0):
    points = _landmarks([0.0, 0.25], [0.05, 0.1], scale)
    np.testing.assert_allclose(follow.lip_opening(points), [0.0, 0.25])
    np.testing.assert_allclose(follow.lid_opening(points), [0.05, 0.1])


def test_pearson_leaves_out_unknown_frames():
  a = np.array([0.0, 1.0, np.nan, 2.0, 4.0])
  assert follow.pearson(a, 3 * a - 1) == pytest.approx(1.0)
  assert follow.pearson(a, -a) == pytest.approx(-1.0)
  assert follow.pearson(a, np.array([1.0, np.nan, 1.0, np.nan, 2.0])) is None
  assert follow.pearson(a, np.ones(5)) is None


def test_follow_counts_lost_faces_and_joins_splits():
  rng = np.random.default_rng(0)
  lips, lids = rng.uniform(0, 0.3, 12), rng.uniform(0, 0.1, 12)
  truth = _landmarks(lips, lids)
  avatar = _landmarks(0.5 * lips, 0.1 - lids)
  avatar[4] = np.nan
  pictures = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)

  def detect(images):
    table = avatar if next(iter(images)).max() >= 100 else truth
    yield from (table[int(image[0, 0, 0]) % 100] for image in images)

  curves = {}
  for split, part in (("heldout_blocks", slice(0, 8)), ("heldout_tail", slice(8, 12))):
    curves[split] = follow.follow(pictures[part] + 100, pictures[part], np.arange(12)[part], detect)
  result = follow.summary(curves)
  assert result["lips"] == pytest.approx(1.0) and result["lids"] == pytest.approx(-1.0)
  assert (result["frames"], result["avatar_without_face"], result["of"]) == (11, 1, 12)
  assert result["splits"]["heldout_tail"]["of"] == 4
  assert np.isnan(curves["heldout_blocks"].lips_avatar[4])
