"""A sequence held in memory: what tests, notebooks and the smoke config train on."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from silky_jax.types import Frame, Subject

__all__ = ["MemorySequence"]


@dataclasses.dataclass(frozen=True)
class MemorySequence:
  """A `data.clips.Sequence` over arrays."""

  all_frames: Frame  # [n], numpy
  splits: Mapping[str, np.ndarray]
  subject: Subject
  rig_name: str
  rig_hash: str
  fps: float

  @property
  def size(self) -> tuple[int, int]:
    """(height, width), px."""
    return self.all_frames.camera.height, self.all_frames.camera.width

  def __len__(self) -> int:
    return len(self.all_frames.index)

  def frames(self, indices: np.ndarray) -> Frame:
    """A batch of frames by position."""
    return jax.tree.map(lambda a: np.asarray(a)[np.asarray(indices)], self.all_frames)
