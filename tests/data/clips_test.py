"""Clips: which frames a step may see, and that it is a pure function of (seed, step)."""

import jax
import numpy as np
import pytest

from silky_jax.config import ConfigError, UserError
from silky_jax.data import clips
from silky_jax.data.clips import ClipConfig
from silky_jax.data.memory import MemorySequence
from silky_jax.types import Camera, Frame, Subject


def _sequence(count=40, splits=None, shot=None, size=4):
  zeros = np.zeros((count, 3), np.float32)
  frames = Frame(
    index=np.arange(count, dtype=np.int32),
    time=(np.arange(count) / 25).astype(np.float32),
    shot=np.zeros(count, np.int32) if shot is None else np.asarray(shot, np.int32),
    timestep=np.arange(count, dtype=np.int32),
    view=np.zeros(count, np.int32),
    camera=Camera(np.tile(np.eye(4, dtype=np.float32), (count, 1, 1)), np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)), size, size),
    expression=np.zeros((count, 2), np.float32),
    pose=np.zeros((count, 5, 3), np.float32),
    eyelids=np.zeros((count, 2), np.float32),
    translation=zeros,
    image=np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, size, size, 3), np.float32),
    mask=np.ones((count, size, size), np.float32),
    parts=np.zeros((count, size, size), np.uint8),
    landmarks=np.zeros((count, 1, 2), np.float32),
    valid=np.ones(count, bool),
  )
  subject = Subject(*(np.zeros(1, np.float32) for _ in range(4)))
  return MemorySequence(frames, splits or {"train": np.arange(count)}, subject, "none", "0", 25.0)


# Frames 10..13 are held out with a guard frame on each side, 20 and 21 repeat, and a cut lies before 30.
_HELD, _REPEAT = np.arange(9, 15), np.array([20, 21])
_SPLITS = {"train": np.setdiff1d(np.arange(40), np.concatenate([_HELD, _REPEAT])), "repeat": _REPEAT, "heldout_blocks": _HELD}
_CUT = np.arange(40) >= 30


def test_runs_stop_at_cuts_and_held_out_frames_and_step_over_repeats():
  plan = clips.plan_clips(_sequence(splits=_SPLITS, shot=_CUT), ClipConfig(length=4))
  runs = sorted({(plan.frames[a], plan.frames[b - 1]) for a, b in zip(plan.starts, plan.stops, strict=True)})
  assert runs == [(0, 8), (15, 29), (30, 39)]


def test_runs_stop_at_long_gaps():
  sequence = _sequence(splits={"train": np.array([0, 1, 2, 9, 10]), "repeat": np.arange(3, 9)})
  assert len(set(clips.plan_clips(sequence, ClipConfig(max_gap=0.2)).starts)) == 2
  assert len(set(clips.plan_clips(sequence, ClipConfig(max_gap=0.5)).starts)) == 1


@pytest.mark.parametrize("config", [ClipConfig(), ClipConfig(clips=3, length=5, rendered=2), ClipConfig(length=12, rendered=3)])
def test_every_clip_is_legal(config):
  plan = clips.plan_clips(_sequence(splits=_SPLITS, shot=_CUT), config)
  for step in range(60):
    drawn = clips.draw_clips(plan, config, seed=7, step=step)
    assert drawn.frames.shape == drawn.valid.shape == (config.clips, config.length)
    assert drawn.rendered.shape == (config.clips, config.rendered)
    assert np.isin(drawn.frames, _SPLITS["train"]).all()
    for frames, valid, rendered in zip(*drawn, strict=True):
      assert valid[rendered].all() and valid[0]
      assert len(set(_CUT[frames])) == 1
      assert not np.isin(_HELD, np.arange(frames.min(), frames.max())).any()
      places = np.searchsorted(_SPLITS["train"], frames[valid])
      assert (np.diff(places) == 1).all()
      assert len(set(rendered)) == min(config.rendered, valid.sum())


def test_every_training_frame_once_an_epoch():
  config = ClipConfig(clips=2, length=3)
  plan = clips.plan_clips(_sequence(splits=_SPLITS), config)
  draws = [clips.draw_clips(plan, config, seed=0, step=step) for step in range(32)]
  shown = np.concatenate([np.take_along_axis(d.frames, d.rendered, 1).ravel() for d in draws])
  np.testing.assert_array_equal(np.sort(shown[:32]), _SPLITS["train"])
  np.testing.assert_array_equal(np.sort(shown[32:]), _SPLITS["train"])
  assert (shown[:32] != shown[32:]).any()


def test_pure_function_of_seed_and_step():
  config = ClipConfig(clips=2, length=4, rendered=2)
  plan = clips.plan_clips(_sequence(), config)
  a, b, c = (clips.draw_clips(plan, config, seed=seed, step=9) for seed in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert (a.frames != c.frames).any()


def test_short_runs_are_padded():
  config = ClipConfig(length=6, rendered=2)
  drawn = clips.draw_clips(clips.plan_clips(_sequence(splits={"train": np.array([3, 4, 5])}), config), config, seed=0, step=0)
  np.testing.assert_array_equal(drawn.frames, [[3, 4, 5, 5, 5, 5]])
  np.testing.assert_array_equal(drawn.valid, [[True] * 3 + [False] * 3])


def test_batch_holds_the_right_pictures():
  sequence, config = _sequence(splits=_SPLITS), ClipConfig(clips=2, length=4, rendered=2)
  drawn = clips.draw_clips(clips.plan_clips(sequence, config), config, seed=3, step=5)
  batch = clips.load_batch(sequence, clips.load_drivers(sequence), drawn)
  assert batch.clip.image.shape == (2, 4, 0, 0, 3)
  assert batch.target.image.shape == (2, 2, 4, 4, 3)
  np.testing.assert_array_equal(batch.target.image[..., 0, 0, 0], batch.target.index)
  np.testing.assert_array_equal(np.take_along_axis(batch.clip.index, batch.rendered, 1), batch.target.index)
  np.testing.assert_array_equal(batch.clip.index, drawn.frames)


def test_refusals():
  with pytest.raises(ConfigError, match="rendered=3, length=2"):
    clips.plan_clips(_sequence(), ClipConfig(length=2, rendered=3))
  with pytest.raises(UserError, match="no training frames"):
    clips.plan_clips(_sequence(splits={"train": np.array([], int)}), ClipConfig())
