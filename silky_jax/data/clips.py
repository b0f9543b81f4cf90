"""(seed, step) -> which frames: short clips of consecutive training frames, some of them with pictures.

The draw is a pure function, so a resumed run needs no iterator state and sees exactly the frames it would have seen.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from silky_jax.config import ConfigError, UserError
from silky_jax.types import Frame, Subject

__all__ = ["Batch", "ClipConfig", "ClipPlan", "Draw", "Sequence", "draw_clips", "load_batch", "load_drivers", "plan_clips"]


@runtime_checkable
class Sequence(Protocol):
  """One subject's video, as every format in `data/formats/` offers it: random access, numpy arrays."""

  @property
  def splits(self) -> Mapping[str, np.ndarray]:
    """Sorted frame positions per name: "train", "repeat", held-out and unused ones."""
    ...

  @property
  def size(self) -> tuple[int, int]:
    """(height, width), px."""
    ...

  @property
  def subject(self) -> Subject: ...

  @property
  def rig_name(self) -> str: ...

  @property
  def rig_hash(self) -> str: ...

  @property
  def fps(self) -> float: ...

  def __len__(self) -> int: ...

  def frames(self, indices: np.ndarray) -> Frame:
    """A batch of frames by position; pictures as stored, not composited."""
    ...


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """What one step sees."""

  clips: int = 1  # clips per step
  length: int = 1  # consecutive training frames in a clip; terms on motion need at least 4
  rendered: int = 1  # frames of a clip that are rendered and compared with their picture
  max_gap: float = 0.2  # seconds; training frames further apart never share a clip


class ClipPlan(NamedTuple):
  """The training frames, cut into runs without a jump. Run r holds positions `starts[r]` to `stops[r]` of `frames`."""

  frames: np.ndarray  # [n] positions in the sequence, sorted
  starts: np.ndarray  # [n] of the run that each training frame belongs to
  stops: np.ndarray  # [n] one past its end


class Draw(NamedTuple):
  """The frames of one step. A run shorter than a clip is padded with its last frame, marked not valid."""

  frames: np.ndarray  # [b, t] positions in the sequence
  valid: np.ndarray  # [b, t] bool
  rendered: np.ndarray  # [b, r] places in 0 .. t - 1


class Batch(NamedTuple):
  """What a train step is given."""

  clip: Frame  # [b, t], without pictures (0 x 0 px)
  target: Frame  # [b, r], with pictures
  rendered: jax.Array  # [b, r] int32: target[i, j] = clip[i, rendered[i, j]]


def plan_clips(sequence: Sequence, config: ClipConfig) -> ClipPlan:
  """Find the runs that clips may be cut from.

  Two training frames in a row share a run if they lie in one shot, at most `max_gap` apart, with nothing but near-repeats between them.
  So no clip crosses a cut or a held-out frame, and no held-out, guard or repeated frame is ever in one.

  Args:
    sequence: the video.
    config: sizes.

  Raises:
    ConfigError: more rendered frames than a clip has, or a size below 1.
    UserError: the sequence has no training frames.
  """
  if not 1 <= config.rendered <= config.length or config.clips < 1:
    raise ConfigError(
      f"data.clips: expected clips >= 1 and 1 <= rendered <= length, "
      f"got clips={config.clips}, rendered={config.rendered}, length={config.length}"
    )
  train = np.asarray(sequence.splits["train"])
  if not len(train):
    raise UserError("the sequence has no training frames; choose other splits when preprocessing")
  facts = load_drivers(sequence, train)
  repeats = np.isin(np.arange(len(sequence)), sequence.splits.get("repeat", ()))
  skipped = np.concatenate([[0], np.cumsum(repeats)])
  between = np.diff(train) - 1
  near = between == skipped[train[1:]] - skipped[train[:-1] + 1]
  near &= np.asarray(facts.shot[1:] == facts.shot[:-1]) & (np.diff(np.asarray(facts.time, np.float64)) <= config.max_gap)
  heads = np.flatnonzero(np.concatenate([[True], ~near]))
  ends = np.append(heads[1:], len(train))
  run = np.cumsum(np.concatenate([[True], ~near])) - 1
  return ClipPlan(train, heads[run], ends[run])


def draw_clips(plan: ClipPlan, config: ClipConfig, *, seed: int, step: int) -> Draw:
  """The clips of one step: a pure function of (seed, step).

  Every training frame is the first rendered frame of exactly one clip per epoch, in an order that each epoch shuffles anew; its clip is
  a random window around it, and the other rendered frames are random ones of that window.

  Args:
    plan: from `plan_clips`.
    config: the same sizes.
    seed: of the run.
    step: number of the step, from 0.
  """
  count, length = len(plan.frames), config.length
  frames, valid, rendered = [], [], []
  for i in range(step * config.clips, (step + 1) * config.clips):
    random = np.random.Generator(np.random.Philox(key=[seed, i]))
    chosen = int(_epoch_order(count, seed, i // count)[i % count])
    low, high = max(plan.starts[chosen], chosen - length + 1), min(chosen, plan.stops[chosen] - length)
    start = int(random.integers(low, high + 1)) if high >= low else int(plan.starts[chosen])
    window = np.arange(start, start + length)
    real = window < plan.stops[chosen]
    others = random.permutation(np.flatnonzero(real & (window != chosen)))
    places = np.concatenate([[chosen - start], others])
    frames.append(plan.frames[np.minimum(window, plan.stops[chosen] - 1)])
    valid.append(real)
    rendered.append(np.resize(places, config.rendered))
  return Draw(np.stack(frames), np.stack(valid), np.stack(rendered).astype(np.int32))


@functools.lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
  # A stream of its own: the counter starts half-way round, where the streams of the clips never come.
  return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 1 << 63])).permutation(count)


def load_drivers(sequence: Sequence, indices: np.ndarray | None = None) -> Frame:
  """Everything but the pictures, for many frames: a few hundred numbers each.

  Args:
    sequence: the video.
    indices: positions; None means all.

  Returns:
    Frame [n], numpy; image, mask and parts are 0 x 0 px.
  """
  indices = np.arange(len(sequence)) if indices is None else np.asarray(indices)
  chunks = [_without_pictures(sequence.frames(indices[i : i + 64])) for i in range(0, len(indices), 64)]
  return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def load_batch(sequence: Sequence, drivers: Frame, draw: Draw) -> Batch:
  """Read the pictures of the rendered frames and join them with the drivers of their clips.

  Args:
    sequence: the video.
    drivers: `load_drivers(sequence)`, of all frames.
    draw: from `draw_clips`.

  Returns:
    Batch of numpy arrays.
  """
  clip: Frame = jax.tree.map(lambda a: a[draw.frames], drivers)
  clip = clip.replace(valid=clip.valid & draw.valid)
  wanted = np.take_along_axis(draw.frames, draw.rendered, axis=1)
  target = jax.tree.map(lambda a: a.reshape(*wanted.shape, *a.shape[1:]), sequence.frames(wanted.ravel()))
  return Batch(clip, target, draw.rendered)


def _without_pictures(frame: Frame) -> Frame:
  n = len(frame.index)
  return frame.replace(image=np.zeros((n, 0, 0, 3), np.float32), mask=np.zeros((n, 0, 0), np.float32), parts=np.zeros((n, 0, 0), np.uint8))
