"""Frames kept on the device: every batch bit for bit the one that would have been sent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.data import clips, resident
from silky_jax.data.clips import ClipConfig
from silky_jax.data.memory import MemorySequence
from silky_jax.types import Camera, Frame, Subject

N, SIZE = 41, 16
_TRAIN = np.setdiff1d(np.arange(N), [7, 8, 9, 30])


def _sequence(kind):
  random = np.random.default_rng(0)
  image, mask = random.integers(0, 256, (N, SIZE, SIZE, 3)), random.integers(0, 256, (N, SIZE, SIZE))
  image, mask = (a.astype(np.uint8).astype(np.float32) / 255.0 for a in (image, mask))
  if kind == "finer mask":
    mask = random.uniform(size=mask.shape).astype(np.float32)
  if kind == "one finer picture":
    image[25, 0, 0, 0] = 0.12345
  numbers = np.arange(N, dtype=np.int32)
  camera = Camera(np.tile(np.eye(4, dtype=np.float32), (N, 1, 1)), np.tile(np.eye(3, dtype=np.float32), (N, 1, 1)), SIZE, SIZE)
  frames = Frame(
    index=numbers,
    time=(numbers / 25).astype(np.float32),
    shot=np.zeros(N, np.int32),
    timestep=numbers,
    view=np.zeros(N, np.int32),
    camera=camera,
    expression=random.normal(size=(N, 4)).astype(np.float32),
    pose=random.normal(size=(N, 5, 3)).astype(np.float32),
    eyelids=np.zeros((N, 2), np.float32),
    translation=random.normal(size=(N, 3)).astype(np.float32),
    image=image,
    mask=mask,
    parts=random.integers(0, 19, (N, SIZE, SIZE)).astype(np.uint8),
    landmarks=np.zeros((N, 3, 2), np.float32),
    valid=random.uniform(size=N) > 0.2,
    exposure=np.ones((N, 3), np.float32) if kind == "exposure" else None,
  )
  subject = Subject(*(np.zeros(1, np.float32) for _ in range(4)))
  return MemorySequence(frames, {"train": _TRAIN}, subject, "rig", "hash", 25.0)


@pytest.mark.parametrize("kind", ["8 bit", "exposure", "finer mask", "one finer picture"])
def test_the_batch_that_would_have_been_sent(kind):
  sequence, config = _sequence(kind), ClipConfig(clips=2, length=6, rendered=2)
  plan, drivers = clips.plan_clips(sequence, config), clips.load_drivers(sequence)
  film = resident.read_film(sequence, plan, drivers, threads=2)
  assert film.image.dtype == (np.float32 if kind == "one finer picture" else np.uint8)
  assert film.mask.dtype == (np.float32 if kind == "finer mask" else np.uint8)
  if kind == "8 bit":
    assert film.image.nbytes + film.mask.nbytes + film.parts.nbytes == resident.expected_bytes(sequence, plan)
  film, gather = jax.device_put(film), jax.jit(resident.gather)
  for step in range(12):
    drawn = clips.draw_clips(plan, config, seed=3, step=step)
    expected = jax.device_put(clips.load_batch(sequence, drivers, drawn))
    got = gather(film, resident.rows(plan, drawn))
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, expected)
    assert all(a.dtype == b.dtype for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_every_level_is_the_hosts():
  stored = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(resident._LEVELS, stored.astype(np.float32) / 255.0)
  np.testing.assert_array_equal(resident._coded(resident._LEVELS), stored)
