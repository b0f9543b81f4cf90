"""A made-up clip in memory: a coloured blob that moves with its tracked parameters."""

import numpy as np
import pytest

from silky_jax.data.memory import MemorySequence
from silky_jax.types import Camera, Frame, Subject


def picture(height: int, width: int, *, spot: tuple[float, float], radius: float = 5.0) -> np.ndarray:
  """A smooth bright spot on black, bytes; `spot` is (x, y) px."""
  y, x = np.mgrid[0:height, 0:width] + 0.5
  value = np.exp(-0.5 * ((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / radius**2)
  return np.round(255 * np.stack([value, value, value], -1)).astype(np.uint8)


def frames(count: int, *, seed: int, size: int = 48) -> Frame:
  """Frames with random parameters, textured pictures, a disc as mask and all 478 landmarks."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[0:size, 0:size] + 0.5
  camera = np.broadcast_to(np.eye(4, dtype=np.float32), (count, 4, 4)).copy()
  camera[:, 2, 3] = 1.0
  intrinsics = np.broadcast_to(np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], np.float32), (count, 3, 3)).copy()
  centres = size / 2 + rng.normal(0, 1.5, (count, 2))
  distance = np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None])
  mask = np.clip(size / 3 + 1 - distance, 0, 1).astype(np.float32)
  phase = rng.uniform(0, 6, (count, 1, 1, 1))
  image = 0.5 + 0.4 * np.sin(np.stack([x / 3, y / 4, (x + y) / 5], -1) + phase)
  parts = np.where(mask > 0.5, 1, 0).astype(np.uint8)
  parts[:, size // 2 + 6 : size // 2 + 12, size // 2 - 6 : size // 2 + 6] = 12
  parts[:, size // 2 - 8 : size // 2 - 4, size // 2 - 8 : size // 2 + 8] = 4
  shape = rng.uniform(-1, 1, (478, 2)) * size / 4
  return Frame(
    index=np.arange(count, dtype=np.int32),
    time=np.arange(count, dtype=np.float32) / 25,
    shot=np.zeros(count, np.int32),
    timestep=np.arange(count, dtype=np.int32),
    view=np.zeros(count, np.int32),
    camera=Camera(camera, intrinsics, width=size, height=size),
    expression=rng.normal(0, 1, (count, 7)).astype(np.float32),
    pose=rng.normal(0, 0.1, (count, 5, 3)).astype(np.float32),
    eyelids=rng.uniform(0, 1, (count, 2)).astype(np.float32),
    translation=rng.normal(0, 0.01, (count, 3)).astype(np.float32),
    image=image.astype(np.float32),
    mask=mask,
    parts=parts,
    landmarks=(centres[:, None] + shape).astype(np.float32),
    valid=np.ones(count, bool),
  )


def sequence(count: int = 40, *, size: int = 48) -> MemorySequence:
  """Train on the first part; one held-out block; a held-out tail; one marked repeat in each."""
  splits = {
    "train": np.arange(0, 20),
    "guard": np.arange(20, 22),
    "heldout_blocks": np.array([22, 23, 25, 26, 27]),
    "repeat": np.array([24, 36]),
    "dropped": np.arange(28, 30),
    "heldout_tail": np.array([i for i in range(30, count) if i != 36]),
  }
  zero = np.zeros(7, np.float32)
  subject = Subject(shape=zero, offset=np.zeros((4, 3), np.float32), mean_expression=zero, expression_variance=zero + 1)
  return MemorySequence(frames(count, seed=5, size=size), splits, subject, "made up", "0", 25.0)


@pytest.fixture
def make_picture():
  return picture


@pytest.fixture
def make_frames():
  return frames


@pytest.fixture
def make_sequence():
  return sequence
