"""Checkpoints: a round trip without flags, refusals that name both sides, torn files."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.geometry import camera as cameras
from silky_jax.training import checkpoint
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.step import create_state
from silky_jax.types import Variables

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ExperimentConfig(seed=3, steps=10)
IDENTITY = {"family": "silky", "rig_name": "head", "rig_hash": "abc", "capacity": 2048, "fps": 25.0}


def _state(step=0, value=0.0):
  variables = Variables(
    {"gaussians": {"color": jnp.full((7, 3), value), "opacity": jnp.zeros(7)}, "residual": {"output": {"bias": jnp.ones(4)}}},
    {"alive": jnp.ones(7, bool), "faces": jnp.arange(7, dtype=jnp.int32)},
  )
  state = create_state(variables, build(CONFIG).optimizer, seed=CONFIG.seed)
  return state.replace(step=jnp.asarray(step, jnp.int32))


def _write(workdir, steps=(1, 2), **changes):
  camera = cameras.from_focal(jnp.eye(4), 50.0, width=20, height=10)
  checkpoint.write_config(workdir, CONFIG)
  store = checkpoint.Store(workdir, keep=3)
  for step in steps:
    store.save(_state(step, value=float(step)), camera=camera, **{**IDENTITY, **changes})
  store.close()


def test_round_trip_needs_only_the_folder(tmp_path):
  _write(tmp_path)
  config, state = checkpoint.restore(tmp_path)
  assert config == CONFIG
  expected = _state(2, value=2.0)
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert jax.tree.map(lambda a: a.dtype, state) == jax.tree.map(lambda a: a.dtype, expected)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_a_run_from_before_corrections_and_physics_is_read_as_one_without(tmp_path):
  _write(tmp_path)
  path = tmp_path / "config.json"
  old = json.loads(path.read_text())
  assert old.pop("corrections") and old["family"] == "silky" and old["model"].pop("physics") and old["model"].pop("transport")
  assert old["loop"].pop("resident") == "auto" and old["loop"].pop("resident_gib") == 32.0
  assert old["losses"].pop("perceptual_precision") == "float32" and not old["losses"].pop("cache_targets")
  assert old["loop"].pop("shares_every") == 500 and old["model"].pop("precision") == "float32"
  for term in (old["losses"]["huber"], old["losses"]["ssim"], *old["losses"]["regularizers"].values()):
    assert term.pop("ramp") == 0.0
  path.write_text(json.dumps(old))
  config, state = checkpoint.restore(tmp_path)
  assert config == dataclasses.replace(CONFIG, loop=dataclasses.replace(CONFIG.loop, shares_every=0)) and int(state.step) == 2


def test_a_section_that_grew_has_the_defaults_of_its_new_keys(tmp_path):
  _write(tmp_path)
  path = tmp_path / "config.json"
  old = json.loads(path.read_text())
  assert old["corrections"].pop("inertia") is False
  path.write_text(json.dumps(old))
  assert checkpoint.restore(tmp_path)[0] == CONFIG


def test_meta_and_camera(tmp_path):
  _write(tmp_path)
  restored = checkpoint.restore_run(tmp_path, step=1)
  assert (restored.meta.rig_name, restored.meta.capacity, restored.meta.fps) == ("head", 2048, 25.0)
  assert restored.meta.versions["jax"] == jax.__version__
  assert (restored.camera.width, restored.camera.height) == (20, 10)
  np.testing.assert_allclose(restored.camera.intrinsics[:2, 2], [10.0, 5.0])
  assert float(restored.state.variables.params["gaussians"]["color"][0, 0]) == 1.0


def test_keeps_the_newest(tmp_path):
  _write(tmp_path, steps=(1, 2, 3, 4, 5))
  store = checkpoint.Store(tmp_path)
  assert store.steps() == [3, 4, 5]
  store.discard_after(3)
  assert store.steps() == [3]
  store.close()


def _tear(folder):
  for path in folder.rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("what", ["state", "meta", "", "arrays"])
def test_a_half_written_checkpoint_is_passed_over(tmp_path, caplog, what):
  _write(tmp_path)
  if what == "arrays":
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
      path.unlink()
  else:
    _tear(tmp_path / "checkpoints" / "2" / what)
  with caplog.at_level("WARNING"):
    _, state = checkpoint.restore(tmp_path)
  assert int(state.step) == 1
  assert "checkpoint 2 cannot be read and is passed over" in caplog.text


def test_an_unfinished_folder_is_no_checkpoint(tmp_path):
  _write(tmp_path)
  (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
  assert int(checkpoint.restore(tmp_path)[1].step) == 2


def test_nothing_readable(tmp_path):
  with pytest.raises(checkpoint.CheckpointError, match=r"no config\.json"):
    checkpoint.restore(tmp_path)
  _write(tmp_path, steps=())
  with pytest.raises(checkpoint.NoCheckpoint, match="run `train`"):
    checkpoint.restore(tmp_path)
  _write(tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint of step 7; there are \[1, 2\]"):
    checkpoint.restore(tmp_path, step=7)


def test_refuses_another_rig_naming_both(tmp_path):
  _write(tmp_path)
  assert int(checkpoint.restore_run(tmp_path, rig=("head", "abc")).state.step) == 2
  with pytest.raises(checkpoint.CheckpointError, match=r"'head' \(abc\).*'other' \(def\)"):
    checkpoint.restore_run(tmp_path, rig=("other", "def"))


def test_refuses_another_family_naming_both(tmp_path):
  _write(tmp_path, family="tensorial")
  with pytest.raises(checkpoint.CheckpointError, match=r"'tensorial'.*'silky'"):
    checkpoint.restore(tmp_path)


def test_refuses_another_format_naming_both(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, "_versions", dict)
  _write(tmp_path)
  path = tmp_path / "checkpoints" / "2" / "meta" / "metadata"
  path.write_text(path.read_text().replace(f'"format": {checkpoint.FORMAT}', '"format": 99'))
  assert json.loads(path.read_text())["format"] == 99
  with pytest.raises(checkpoint.CheckpointError, match=f"expected format {checkpoint.FORMAT}, found 99"):
    checkpoint.restore(tmp_path)


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
  _write(tmp_path)
  before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
  monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 0))
  with pytest.raises(checkpoint.CheckpointError, match=r"checkpoint 3 could not be written: it takes 0 MiB, and 0 MiB are free.*\[1, 2\]"):
    _write(tmp_path, steps=(3,))
  assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from silky_jax import cli
sys.exit(cli.main(["run.py", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_write_that_fails_half_way_loses_nothing_older(tmp_path):
  """No file may grow beyond 20 kB: what a full disk is to a writer that has begun. Then there is room again, and the run ends.

  How many arrays go into one file depends on the writer's threads; the list of all arrays alone is longer than 20 kB.
  """
  work = tmp_path / "run"
  words = ["train", "--config=configs/smoke.py", "--data_dir=synthetic", f"--output_dir={work}", "--config.loop.checkpoint_every=5"]
  words += ["--config.steps=10", "--config.loop.sample_every=0", f"--compile_cache={tmp_path / 'cache'}"]

  def start(*program):
    return subprocess.run([sys.executable, *program, *words], cwd=ROOT, capture_output=True, text=True, check=False)

  assert start("run.py").returncode == 0
  shutil.rmtree(work / "checkpoints" / "10")  # as if it had been stopped there
  before = {path: path.read_bytes() for path in (work / "checkpoints").rglob("*") if path.is_file()}
  full = start("-c", _LIMITED)
  assert full.returncode == 2
  (said,) = [line for line in full.stderr.splitlines() if line.startswith("error:")]
  assert "checkpoint 10 could not be written: File too large" in said and "Older checkpoints ([5]) are as they were" in said
  assert {path: path.read_bytes() for path in (work / "checkpoints").rglob("*") if path.is_file()} == before
  again = start("run.py")
  assert again.returncode == 0 and "resumed: step 5 of 10" in again.stdout
  assert int(checkpoint.restore(work)[1].step) == 10


def test_what_a_killed_write_left_behind_is_cleared_by_the_next_run(tmp_path):
  _write(tmp_path)
  left = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
  left.mkdir()
  (left / "half").write_bytes(b"x")
  checkpoint.restore(tmp_path)
  assert left.exists()  # reading changes nothing
  _write(tmp_path, steps=(4,))
  assert not left.exists() and int(checkpoint.restore(tmp_path)[1].step) == 4
