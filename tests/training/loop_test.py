"""The loop on a tiny made-up person: learns, resumes bit for bit, never sees held-out pictures, grows, refuses."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.clips import ClipConfig
from silky_jax.flame import open_head
from silky_jax.models.corrections import CorrectionsConfig
from silky_jax.models.silky import SilkyConfig
from silky_jax.render.pipeline import RenderConfig
from silky_jax.training import checkpoint, loop
from silky_jax.training.experiment import ExperimentConfig, LoopConfig
from silky_jax.training.metrics import JsonLines
from silky_jax.training.step import LossConfig, Term
from silky_jax.training.synthetic import synthetic_sequence

CONFIG = ExperimentConfig(
  steps=14,
  paint_frames=3,
  model=SilkyConfig(uv_size=32, width=16, depth=2, frequencies=3),
  clips=ClipConfig(length=2),
  corrections=CorrectionsConfig(enabled=True, start=0.2),
  render=RenderConfig(capacity=1024),
  losses=LossConfig(ssim=Term(0.2), alpha=Term(0.05, 0.5), regularizers={"motion": Term(1e-3)}),
  loop=LoopConfig(log_every=5, sample_every=14, checkpoint_every=6),
)


@pytest.fixture(scope="module", autouse=True)
def _compile_cache(tmp_path_factory):
  """The same few programs are compiled by every test here: keep them."""
  settings = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")), "jax_persistent_cache_min_compile_time_secs": 0.2}
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture(scope="module")
def rig():
  return open_head.load()[0]


@pytest.fixture(scope="module")
def sequence(rig):
  return synthetic_sequence(rig, frames=20, size=32, uv_size=64)


def _train(config, sequence, rig, workdir, **options):
  lines = []
  return loop.train(config, sequence, rig, workdir, say=lines.append, **options), lines


@pytest.fixture(scope="module")
def straight(sequence, rig, tmp_path_factory):
  """One uninterrupted run."""
  workdir = tmp_path_factory.mktemp("straight")
  trained, lines = _train(CONFIG, sequence, rig, workdir)
  return trained, lines, workdir


def _assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_writes_what_it_says(straight):
  trained, lines, workdir = straight
  assert int(trained.state.step) == 14 and trained.compiles == 2
  assert {path.name for path in workdir.iterdir()} == {"config.json", "metrics.jsonl", "renders", "checkpoints"}
  assert (workdir / "renders" / "000014.png").stat().st_size > 500
  records = [r for r in JsonLines.read(workdir / "metrics.jsonl") if "event" not in r]
  assert [r["step"] for r in records] == [5, 10, 14]
  assert {"huber", "ssim", "motion", "loss", "psnr", "steps_per_second"} <= set(records[0]) and "alpha" in records[2]
  text = "\n".join(lines)
  for words in (
    "fresh: step 0 of 14",
    "Gaussians",
    "device: cpu",
    "memory:",
    "compiled stage 1 of 2",
    "compiled stage 2 of 2",
    "peak memory",
  ):
    assert words in text
  assert checkpoint.Store(workdir).steps() == [12, 14]


def test_restored_state_is_the_trained_one(straight):
  trained, _, workdir = straight
  config, state = checkpoint.restore(workdir)
  assert config == CONFIG
  _assert_equal(state, trained.state)


@pytest.fixture(scope="module")
def stopped(sequence, rig, tmp_path_factory):
  """A run killed after step 9, in its second stage, between two log lines."""
  workdir = tmp_path_factory.mktemp("stopped")
  _train(CONFIG, sequence, rig, workdir, stop=9)
  return workdir


def test_interrupted_and_resumed_equals_straight_through(straight, stopped, sequence, rig, tmp_path):
  workdir = shutil.copytree(stopped, tmp_path / "run")
  trained, lines = _train(CONFIG, sequence, rig, workdir)
  assert "resumed: step 9 of 14" in lines[0]
  _assert_equal(trained.state, straight[0].state)
  steps = [r["step"] for r in JsonLines.read(workdir / "metrics.jsonl") if "event" not in r]
  assert steps == [5, 9, 10, 14]


@pytest.mark.slow  # 34 s: a second whole run
def test_pictures_on_the_device_change_no_bit(straight, sequence, rig, tmp_path):
  """A run whose pictures stay on the device, stopped and resumed: equal to the straight one that was sent its pictures."""
  stays = dataclasses.replace(CONFIG, loop=dataclasses.replace(CONFIG.loop, resident="yes"))
  _train(stays, sequence, rig, tmp_path, stop=9)
  trained, lines = _train(stays, sequence, rig, tmp_path)
  assert "resumed: step 9 of 14" in lines[0] and "resident" in lines[1]
  _assert_equal(trained.state, straight[0].state)
  first = lambda workdir: {k: v for k, v in _metrics(workdir)[0].items() if k != "steps_per_second"}
  assert first(tmp_path) == first(straight[2])


def _metrics(workdir):
  return [r for r in JsonLines.read(workdir / "metrics.jsonl") if "event" not in r]


def test_out_of_memory_says_what_is_large_and_keeps_the_checkpoint(stopped, sequence, rig, tmp_path, monkeypatch):
  workdir = shutil.copytree(stopped, tmp_path / "run")
  before = {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")}

  def full(self, step):
    def run(*given):
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.50GiB.")

    return run, []

  monkeypatch.setattr(loop._Run, "_compiled", full)
  with pytest.raises(
    UserError, match=r"out of memory after step 9 \(it asked for 12.50GiB\); checkpoints \[6, 9\] are as they were"
  ) as told:
    _train(dataclasses.replace(CONFIG, loop=dataclasses.replace(CONFIG.loop, resident="yes")), sequence, rig, workdir)
  words = ("state", "resident pictures", "tile pairs", "--config.loop.resident=no", "--config.clips.rendered", "--config.model.uv_size")
  assert all(word in str(told.value) for word in words)
  assert "alexnet" not in str(told.value)  # no LPIPS in this run
  assert {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")} == before
  monkeypatch.setattr(loop._Run, "_compiled", lambda self, step: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: other")))
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    _train(CONFIG, sequence, rig, workdir)


def test_a_torn_newest_checkpoint_costs_steps_but_no_bits(straight, stopped, sequence, rig, tmp_path):
  workdir = shutil.copytree(stopped, tmp_path / "run")
  for path in (workdir / "checkpoints" / "9" / "state").iterdir():
    if path.is_file():
      path.write_bytes(b"")
  trained, lines = _train(CONFIG, sequence, rig, workdir)
  assert "resumed: step 6 of 14" in lines[0]
  _assert_equal(trained.state, straight[0].state)
  assert [r["step"] for r in JsonLines.read(workdir / "metrics.jsonl") if "event" not in r] == [5, 10, 14]


def test_held_out_pictures_are_never_seen(straight, sequence, rig, tmp_path):
  hidden = np.setdiff1d(np.arange(len(sequence)), sequence.splits["train"])
  random = np.random.default_rng(0)
  frames = jax.tree.map(np.copy, sequence.all_frames)
  for name in ("image", "mask", "parts", "expression", "pose"):
    array = getattr(frames, name)
    array[hidden] = random.uniform(size=array[hidden].shape).astype(array.dtype)
  spoiled = dataclasses.replace(sequence, all_frames=frames)
  _assert_equal(_train(CONFIG, spoiled, rig, tmp_path)[0].state, straight[0].state)


def test_a_finished_run_does_nothing(straight, sequence, rig):
  trained, lines = _train(CONFIG, sequence, rig, straight[2])
  assert trained.compiles == 0 and "step 14 of 14" in lines[0]
  _assert_equal(trained.state, straight[0].state)


def test_another_config_or_rig_is_refused(straight, sequence, rig):
  with pytest.raises(UserError, match=r"seed: 0 -> 1"):
    _train(dataclasses.replace(CONFIG, seed=1), sequence, rig, straight[2])
  with pytest.raises(UserError, match="'other'"):
    _train(CONFIG, dataclasses.replace(sequence, rig_name="other"), rig, straight[2])


def test_starts_from_another_run(straight, sequence, rig, tmp_path):
  trained, lines = _train(CONFIG, sequence, rig, tmp_path, init_from=straight[2], stop=0)
  assert f"from {straight[2]}" in lines[0] and int(trained.state.step) == 0
  _assert_equal(trained.state.variables, straight[0].state.variables)
  smaller = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=8))
  with pytest.raises(UserError, match="other names or shapes"):
    _train(smaller, sequence, rig, tmp_path / "other", init_from=straight[2])


def test_grows_when_pictures_ask_for_more(straight, sequence, rig, tmp_path, monkeypatch):
  monkeypatch.setattr(loop, "next_capacity", lambda wanted: 1024 if wanted < 10**9 else wanted)
  # The compiled kernel has no capacity. Everything that has no part in this is left out: two steps are compiled.
  plain = dataclasses.replace(
    CONFIG,
    model=dataclasses.replace(CONFIG.model, residual="none", harmonics_degree=0),
    corrections=CorrectionsConfig(),
    losses=LossConfig(outline=0),
    render=RenderConfig(capacity=1024, backend="xla"),
  )
  run = loop._Run(plain, sequence, rig, tmp_path, lambda line: None)
  run.start(None)
  assert run.capacity == 1024
  monkeypatch.undo()
  lines = []
  run.say = lines.append
  run.go(6, None)
  records = JsonLines.read(tmp_path / "metrics.jsonl")
  assert next(r for r in records if r["step"] == 5 and "event" not in r)["overflow"] > 0
  assert any("growing to" in line for line in lines)
  assert [r["capacity"] for r in records if r.get("event") == "compile"] == [1024, run.capacity]
  assert next(r for r in records if r["step"] == 6 and "event" not in r)["overflow"] == 0
  assert json.loads((tmp_path / "config.json").read_text())["render"]["capacity"] == 1024
  assert checkpoint.restore_run(tmp_path).meta.capacity == run.capacity > 1024


def test_over_fits_a_tiny_clip(sequence, rig, tmp_path):
  """150 steps on 14 frames of 32 x 32 px: 30 dB against the photographs on white, from the coarse truth's own renderer."""
  losses = LossConfig(ssim=Term(0.2), outline=0)
  config = dataclasses.replace(CONFIG, steps=150, losses=losses, loop=LoopConfig(log_every=50, sample_every=0))
  _train(config, sequence, rig, tmp_path)
  records = [r for r in JsonLines.read(tmp_path / "metrics.jsonl") if "event" not in r]
  assert records[-1]["loss"] < 0.7 * records[0]["loss"]
  assert records[-1]["psnr"] > 30.0
