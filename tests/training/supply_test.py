"""Where pictures lie, and what LPIPS sees in them: decided once, the same numbers either way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.config import ConfigError, UserError
from silky_jax.data.clips import ClipConfig, load_drivers, plan_clips
from silky_jax.data.memory import MemorySequence
from silky_jax.losses import perceptual
from silky_jax.render.pipeline import RenderConfig
from silky_jax.training import supply
from silky_jax.training.experiment import ExperimentConfig, LoopConfig, build
from silky_jax.training.objective import _image_terms
from silky_jax.training.shortage import explain, is_shortage
from silky_jax.training.step import LossConfig, Term
from silky_jax.training.supply import Supply, received, stays
from silky_jax.types import Camera, Frame, Subject

SIZE, COUNT = 40, 9
CONFIG = ExperimentConfig(
  random_background=False,
  background=(0.2, 0.9, 0.4),
  clips=ClipConfig(length=2, rendered=2),
  render=RenderConfig(capacity=1024),
  losses=LossConfig(perceptual=Term(0.1), cache_targets=True),
  loop=LoopConfig(resident="yes"),
)


@pytest.fixture(scope="module")
def sequence():
  random = np.random.default_rng(0)
  numbers, eyes = np.arange(COUNT, dtype=np.int32), np.tile(np.eye(4, dtype=np.float32), (COUNT, 1, 1))
  level = lambda *shape: random.integers(0, 256, shape).astype(np.uint8).astype(np.float32) / 255.0
  frames = Frame(
    index=numbers,
    time=(numbers / 25).astype(np.float32),
    shot=np.zeros(COUNT, np.int32),
    timestep=numbers,
    view=np.zeros(COUNT, np.int32),
    camera=Camera(eyes, eyes[:, :3, :3], SIZE, SIZE),
    expression=np.zeros((COUNT, 2), np.float32),
    pose=np.zeros((COUNT, 5, 3), np.float32),
    eyelids=np.zeros((COUNT, 2), np.float32),
    translation=np.zeros((COUNT, 3), np.float32),
    image=level(COUNT, SIZE, SIZE, 3),
    mask=level(COUNT, SIZE, SIZE),
    parts=random.integers(0, 19, (COUNT, SIZE, SIZE)).astype(np.uint8),
    landmarks=np.zeros((COUNT, 0, 2), np.float32),
    valid=np.ones(COUNT, bool),
  )
  subject = Subject(*(np.zeros(1, np.float32) for _ in range(4)))
  return MemorySequence(frames, {"train": np.setdiff1d(numbers, [3, 4])}, subject, "rig", "hash", 25.0)


def _supply(config, sequence):
  return Supply(sequence, plan_clips(sequence, config.clips), load_drivers(sequence), config)


def test_what_lpips_sees_is_looked_up(sequence):
  experiment = build(CONFIG)
  settings = dataclasses.replace(experiment.step_config(experiment.stages[-1], 1024), weights={"perceptual": 1.0})
  networks = jax.device_put({"perceptual": perceptual.load("alexnet")})
  given = _supply(CONFIG, sequence)
  given.keep(settings, networks)
  assert given.kept.film is not None and given.kept.targets is not None
  assert given.kept.film.image.dtype == jnp.uint8 and len(given.kept.film.parts) == COUNT - 2
  assert all(layer.dtype == jnp.bfloat16 for layer in given.kept.targets)

  @jax.jit
  def loss(sent, kept, image):
    batch, seen = received(sent, kept)
    target = jax.tree.map(lambda leaf: leaf.reshape(2, *leaf.shape[2:]), batch.target)
    color = jnp.broadcast_to(jnp.asarray(CONFIG.background), (2, 3))
    return _image_terms(settings, image, target.mask, target, color, {**networks, **seen})

  image = jax.random.uniform(jax.random.key(0), (2, SIZE, SIZE, 3))
  plain = _supply(CONFIG, sequence)
  for step in (0, 5):
    looked_up = loss(given.send(step), given.kept, image)
    computed = loss(plain.send(step), plain.kept, image)
    np.testing.assert_allclose(looked_up["perceptual"], computed["perceptual"], rtol=2e-3)
    np.testing.assert_array_equal(looked_up["psnr"], computed["psnr"])


def test_refusals(sequence, monkeypatch):
  with pytest.raises(ConfigError, match="another one every step"):
    build(dataclasses.replace(CONFIG, random_background=True))
  experiment = build(CONFIG)
  settings, networks = experiment.step_config(experiment.stages[-1], 1024), {"perceptual": perceptual.load("alexnet")}
  sends = dataclasses.replace(CONFIG, loop=LoopConfig(resident="no"))
  with pytest.raises(UserError, match=r"--config\.loop\.resident=yes"):
    _supply(sends, sequence).keep(settings, networks)
  monkeypatch.setattr(supply, "free_bytes", lambda: 100_000)
  with pytest.raises(UserError, match=r"losses\.cache_targets: 7 training pictures take"):
    _supply(CONFIG, sequence).keep(settings, networks)


class _Device:
  platform = "gpu"


def test_pictures_stay_where_there_is_room(monkeypatch):
  gib = 2**30
  assert not stays(LoopConfig(), gib, None)  # a CPU reads them where they are
  assert stays(LoopConfig(resident="yes"), 100 * gib, None)
  monkeypatch.setattr(supply.jax, "devices", lambda: [_Device()])
  auto = LoopConfig(resident_gib=4.0)
  assert stays(auto, 3 * gib, None) and stays(auto, 3 * gib, 7 * gib)
  assert not stays(auto, 5 * gib, 100 * gib) and not stays(auto, 3 * gib, 5 * gib)
  assert not stays(dataclasses.replace(auto, resident="no"), 1, None)
  with pytest.raises(UserError, match=r"5\.0 GiB, 4\.0 GiB are free"):
    stays(dataclasses.replace(auto, resident="yes"), 5 * gib, 4 * gib)


def test_a_shortage_names_what_is_large_first():
  error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.")
  assert is_shortage(error) and not is_shortage(ValueError("RESOURCE_EXHAUSTED"))
  sizes = {"state": 2**20, "LPIPS: activations of vgg16, about": 2**30, "cached features": 0}
  text = str(explain(error, sizes, step=None, checkpoints=[]))
  assert "before the first step (it asked for 8589934592 bytes); there is no checkpoint yet" in text
  assert text.index("LPIPS") < text.index("state") and "cached" not in text and "alexnet" in text and "resident=no" not in text
