"""Preprocess: bad input is refused by name, a rerun does nothing, an interrupted run goes on to the same result."""

import json

import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.formats import native
from silky_jax.data.video import iter_frames, write_video
from silky_jax.tracking import pipeline


def _gray_video(path, count=30):
  rng = np.random.default_rng(0)
  write_video(path, (rng.integers(100, 110, (64, 80, 3), dtype=np.uint8) for _ in range(count)), 25)
  return path


def test_missing_video_is_named(tmp_path):
  with pytest.raises(UserError, match="nowhere.mp4"):
    pipeline.preprocess(tmp_path / "nowhere.mp4", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_empty_and_foreign_files_are_refused(tmp_path):
  for name, content in (("empty.mp4", b""), ("text.mp4", b"hello" * 100)):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
      pipeline.preprocess(tmp_path / name, tmp_path / "out")


def test_a_video_without_a_face_says_so(tmp_path):
  with pytest.raises(UserError, match="no face was found in any of 30 frames"):
    pipeline.preprocess(_gray_video(tmp_path / "gray.mp4"), tmp_path / "out")


def test_resolution_is_checked(tmp_path):
  with pytest.raises(UserError, match="--resolution.*9000"):
    pipeline.preprocess(_gray_video(tmp_path / "gray.mp4", 3), tmp_path / "out", resolution=9000)


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory, request):
  """90 frames of the bundled clip: a real face, talking."""
  from silky_jax.apps.demo import bundled_clip

  path = tmp_path_factory.mktemp("clip") / "short.mp4"
  frames = [image for k, (_, image) in enumerate(iter_frames(bundled_clip())) if 230 <= k < 320]
  return write_video(path, frames, 25, crf=12)


@pytest.mark.slow
def test_interrupted_and_rerun(short_clip, tmp_path, monkeypatch):
  straight = tmp_path / "straight"
  pipeline.preprocess(short_clip, straight, resolution=128)
  whole = native.read(straight)
  quality = json.loads((straight / "quality.json").read_text())
  assert quality["landmark_residual_face_widths"] < 0.012
  assert (straight / "overlay.mp4").stat().st_size > 10_000
  assert "<svg" in (straight / "quality.html").read_text()
  seconds = pipeline.preprocess(short_clip, straight, resolution=128)
  assert set(seconds.values()) == {0.0}

  broken = tmp_path / "broken"
  real = pipeline.labels.label_map
  calls = []

  def dies(*args):
    calls.append(1)
    if len(calls) == 20:
      raise KeyboardInterrupt
    return real(*args)

  monkeypatch.setattr(pipeline.labels, "label_map", dies)
  with pytest.raises(KeyboardInterrupt):
    pipeline.preprocess(short_clip, broken, resolution=128)
  with pytest.raises(UserError, match="dataset.json"):
    native.read(broken)
  pipeline.preprocess(short_clip, broken, resolution=128)
  again = native.read(broken)
  for key, value in whole.arrays.items():
    np.testing.assert_array_equal(value, again.arrays[key], err_msg=key)
  np.testing.assert_array_equal(whole.masks, again.masks)
  np.testing.assert_array_equal(whole.parts, again.parts)
