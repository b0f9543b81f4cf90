"""Checkpoints: a round trip without flags, refusals that name both sides, torn files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.geometry import camera as cameras
from silky_jax.training import checkpoint
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.step import create_state
from silky_jax.types import Variables

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
