"""Baselines find what was planted; the calibration spoils by what it says."""

import numpy as np
import pytest

from silky_jax.evaluation import baselines


def test_nearest_finds_the_planted_frame(make_frames):
  train = make_frames(30, seed=0)
  planted = [7, 21, 3]
  query = train.replace(**{k: getattr(train, k)[planted].copy() for k in ("pose", "translation", "expression", "eyelids")})
  query.pose[:, 0] += 1e-3
  assert baselines.nearest(train, query).tolist() == planted


def test_aligned_frame_ignores_where_the_head_is(make_frames):
  train = make_frames(30, seed=0)
  planted = [4, 9]
  query = train.replace(**{k: getattr(train, k)[planted].copy() for k in ("pose", "translation", "expression", "eyelids")})
  query.translation[:] = train.translation[[11, 12]]
  assert baselines.nearest(train, query, baselines.POSE_FREE).tolist() == planted
  query.translation[:] += 100.0
  assert baselines.nearest(train, query, baselines.POSE_FREE).tolist() == planted


def test_groups_have_equal_say(make_frames):
  # One rotation wholly wrong against all expressions slightly wrong: the rotation decides.
  train = make_frames(40, seed=1)
  query = train.replace(**{k: getattr(train, k)[:1].copy() for k in ("pose", "translation", "expression", "eyelids")})
  train.pose[0, 0] += 20 * train.pose[:, 0].std(axis=0)
  train.pose[5], train.translation[5], train.eyelids[5] = query.pose[0], query.translation[0], query.eyelids[0]
  train.expression[5] = query.expression[0] + train.expression.std(axis=0)
  assert baselines.nearest(train, query).tolist() == [5]


def test_a_parameter_that_never_moved_is_no_evidence(make_frames):
  train = make_frames(10, seed=2)
  train.eyelids[:] = 0.25
  query = train.replace(
    pose=train.pose[[6]], translation=train.translation[[6]], expression=train.expression[[6]], eyelids=np.ones((1, 2), np.float32)
  )
  assert baselines.nearest(train, query).tolist() == [6]


def test_align_undoes_a_planted_similarity():
  rng = np.random.default_rng(0)
  source = rng.uniform(20, 80, (50, 2))
  c, s = 1.2 * np.cos(0.3), 1.2 * np.sin(0.3)
  planted = np.array([[c, -s, 4.0], [s, c, -7.0]])
  target = source @ planted[:, :2].T + planted[:, 2]
  target[3] = np.nan
  np.testing.assert_allclose(baselines.align(source, target), planted, atol=1e-9)
  with pytest.raises(ValueError, match="at least 2"):
    baselines.align(np.full((5, 2), np.nan), source[:5])


def test_warp_moves_points_where_the_matrix_says(make_picture):
  matrix = np.array([[0.9, -0.2, 15.0], [0.2, 0.9, -6.0]])
  picture = make_picture(96, 96, spot=(40.5, 50.5))
  moved = baselines.warp_similarity(picture, matrix)
  y, x = np.mgrid[0:96, 0:96] + 0.5
  weight = moved[..., 0].astype(float)
  found = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
  np.testing.assert_allclose(found, matrix[:, :2] @ [40.5, 50.5] + matrix[:, 2], atol=0.05)
  back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
  assert np.abs(baselines.warp_similarity(moved, back).astype(int) - picture)[20:-20, 20:-20].mean() < 1.0


def test_shift_repeats_the_border():
  images = np.random.default_rng(0).integers(0, 255, (2, 12, 16, 3), dtype=np.uint8)
  moved = baselines.shift(images, 2)
  np.testing.assert_array_equal(moved[:, :, 2:], images[:, :, :-2])
  np.testing.assert_array_equal(moved[:, :, 0], images[:, :, 0])
