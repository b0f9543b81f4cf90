"""Odd videos through all of tracking: the same person comes out as from the plain one."""

import json

import numpy as np
import pytest

from silky_jax.apps.demo import bundled_clip
from silky_jax.data.formats import native
from silky_jax.data.images import crop_resize
from silky_jax.data.video import iter_frames, write_video
from silky_jax.tracking.pipeline import preprocess
from tests.data import odd_videos

pytestmark = pytest.mark.slow
_FRAMES = range(230, 275)  # he talks; of 300 x 400 px
_SIZE = 96


@pytest.fixture(scope="module")
def frames():
  return [image for k, (_, image) in enumerate(iter_frames(bundled_clip())) if k in _FRAMES]


def _tracked(video, output):
  preprocess(video, output, resolution=_SIZE)
  quality = json.loads((output / "quality.json").read_text())
  assert quality["frames_without_face"] == 0 and quality["landmark_residual_face_widths"] < 0.015
  return native.read(output)


@pytest.fixture(scope="module")
def plain(frames, tmp_path_factory):
  root = tmp_path_factory.mktemp("plain")
  return _tracked(write_video(root / "v.mp4", frames, 25, crf=4), root / "out")


def _like(found: native.NativeSequence, plain: native.NativeSequence) -> None:
  """The same pictures the right way up, and about the same motion."""
  assert len(found) == len(plain)
  a, b = (s.images.astype(float).mean(axis=0).ravel() for s in (found, plain))
  assert np.corrcoef(a, b)[0, 1] > 0.97
  a, b = ((s.arrays["pose"][:, 0] + s.arrays["pose"][:, 1]) for s in (found, plain))
  assert np.degrees(np.abs(a - b).mean()) < 4.0
  assert np.corrcoef(a[:, 1], b[:, 1])[0, 1] > 0.9


def test_odd_sizes_and_uneven_times(frames, plain, tmp_path):
  times = np.cumsum(np.random.default_rng(0).integers(20, 61, len(frames)))
  cut = [frame[3:296, 5:396] for frame in frames]
  assert cut[0].shape == (293, 391, 3)
  found = _tracked(odd_videos.uneven(tmp_path / "v.mkv", cut, times), tmp_path / "out")
  _like(found, plain)
  np.testing.assert_allclose(found.arrays["time"], (times - times[0]) / 1000, atol=1e-5)


@pytest.mark.parametrize("clockwise", [90, 180])
def test_turned_by_a_flag(frames, plain, tmp_path, clockwise):
  _like(_tracked(odd_videos.turned(tmp_path / "v.mp4", frames, clockwise), tmp_path / "out"), plain)


def test_4k(frames, plain, tmp_path):
  wide = lambda picture: np.pad(picture[:2160], ((0, 0), (480, 480), (0, 0)))
  large = (wide(crop_resize(frame, (0.0, 0.0, 400.0), 2880)) for frame in frames)
  found = _tracked(write_video(tmp_path / "v.mp4", large, 25, crf=20), tmp_path / "out")
  assert [found.header["video"][key] for key in ("width", "height")] == [3840, 2160]
  _like(found, plain)
