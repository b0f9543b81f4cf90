"""Checkpoints: `checkpoints/<step>/{state,meta}` in the folder of a run. Restoring needs no flags and no rig.

`meta` says what the state is: format number, family, rig, capacity, versions and the shape of every variable. A state of another kind is
refused by name; a checkpoint that a kill left half-written is passed over for the one before it.
"""

import importlib.metadata
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from silky_jax.config import UserError, to_dict
from silky_jax.models.corrections import CorrectionsConfig
from silky_jax.ot.term import TransportConfig
from silky_jax.physics.term import PhysicsConfig
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.step import create_state
from silky_jax.types import Camera, TrainState, Variables

__all__ = [
  "FORMAT",
  "CheckpointError",
  "Meta",
  "NoCheckpoint",
  "Restored",
  "Store",
  "read_config",
  "restore",
  "restore_run",
  "write_config",
]

FORMAT = 1
_LOG = logging.getLogger(__name__)
_ROOM = 2**20  # bytes that a checkpoint takes beside its arrays
_PACKAGES = ("silky-jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")


class CheckpointError(UserError):
  """A checkpoint that is missing or belongs to something else."""


class NoCheckpoint(CheckpointError):
  """A run without a checkpoint that can be read."""


class Meta(NamedTuple):
  """What a state is of."""

  family: str
  rig_name: str
  rig_hash: str
  capacity: int  # tile pairs of the renderer when it was saved
  camera: dict[str, Any]  # of the first training frame, for drivers that bring none; see `Restored.camera`
  fps: float  # of the training video
  shapes: dict[str, Any]  # of the variables: nested dicts with [shape, dtype] at the leaves
  format: int = FORMAT
  versions: Mapping[str, str] = {}


class Restored(NamedTuple):
  """A run as it was saved."""

  config: ExperimentConfig
  state: TrainState
  meta: Meta

  @property
  def camera(self) -> Camera:
    """The training video's camera at its first training frame."""
    matrices = {name: np.asarray(self.meta.camera[name], np.float32) for name in ("world_to_camera", "intrinsics")}
    return Camera(**matrices, width=self.meta.camera["width"], height=self.meta.camera["height"])


class Store:
  """The checkpoints of one run's folder."""

  def __init__(self, workdir: Path, *, keep: int | None = None):
    """Open, making the folder if it is missing.

    Args:
      workdir: folder of the run.
      keep: how many to keep, for a run that writes: then what killed writes left behind is deleted. None keeps all.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
    self._folder = (Path(workdir) / "checkpoints").absolute()
    if keep is not None:
      self._clear_unfinished()
    self._manager = ocp.CheckpointManager(self._folder, options=options)

  def steps(self) -> list[int]:
    """Steps with a checkpoint, oldest first."""
    return sorted(self._manager.all_steps())

  def save(self, state: TrainState, *, family: str, rig_name: str, rig_hash: str, capacity: int, camera: Camera, fps: float) -> None:
    """Write the state under its step, with what `Meta` says of it. Older checkpoints go only after the new one is whole.

    Raises:
      CheckpointError: it could not be written; what was there before is as it was.
    """
    view = {"world_to_camera": np.asarray(camera.world_to_camera).tolist(), "intrinsics": np.asarray(camera.intrinsics).tolist()}
    view |= {"width": camera.width, "height": camera.height}
    meta = Meta(family, rig_name, rig_hash, capacity, view, fps, _shapes(state.variables), FORMAT, _versions())
    step, size = int(state.step), sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if shutil.disk_usage(self._folder).free < size + _ROOM:
      raise self._unwritten(step, f"it takes {size / 2**20:.0f} MiB")
    try:
      self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta._asdict())))
    except Exception as error:  # whatever a full or lost disk makes of the writer
      self._clear_unfinished()
      raise self._unwritten(step, _reason(error)) from error

  def _unwritten(self, step: int, why: str) -> CheckpointError:
    free = shutil.disk_usage(self._folder).free / 2**20
    return CheckpointError(
      f"{self._folder}: checkpoint {step} could not be written: {why}, and {free:.0f} MiB are free there. "
      f"Older checkpoints ({self.steps() or 'none'}) are as they were: make room and run the same command again to go on."
    )

  def _clear_unfinished(self) -> None:
    """Delete what killed or failed writes left behind."""
    for left in self._folder.glob("*.orbax-checkpoint-tmp"):
      shutil.rmtree(left, ignore_errors=True)

  def discard_after(self, step: int) -> None:
    """Delete checkpoints of later steps: the broken ones that `restore_run` passed over."""
    for later in [s for s in self.steps() if s > step]:
      self._manager.delete(later)

  def load_meta(self, step: int) -> Meta:
    """The meta of one checkpoint.

    Raises:
      CheckpointError: another format number.
    """
    raw = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    if raw.get("format") != FORMAT:
      raise CheckpointError(f"checkpoint {step}: expected format {FORMAT}, found {raw.get('format')}; it was written by another version")
    return Meta(**raw)

  def load_state(self, step: int, like: TrainState) -> TrainState:
    """The state of one checkpoint, into the shapes of `like` (from `eval_shape`)."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like)
    restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
    # Arrays of a reader are bound to their device, which makes another program of the step: compiled again, and missed by the cache.
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), restored)

  def close(self) -> None:
    """Release the folder."""
    self._manager.close()


def write_config(workdir: Path, config: ExperimentConfig) -> None:
  """Write `config.json`, atomically."""
  path = Path(workdir) / "config.json"
  part = path.with_name(".config.json.part")
  part.write_text(json.dumps(config.to_dict(), indent=1) + "\n")
  os.replace(part, path)


def read_config(workdir: Path) -> ExperimentConfig:
  """Read `config.json` of a run, also of one from before a section was added: that has the section's defaults.

  Raises:
    CheckpointError: the folder holds no run.
    ConfigError: the file holds another config than this version knows.
  """
  path = Path(workdir) / "config.json"
  if not path.is_file():
    raise CheckpointError(f"{workdir}: expected the folder of a training run, found no config.json there; give the --output_dir of `train`")
  written = json.loads(path.read_text())
  # Since format 1; off by default, so that older runs stay what they were.
  written = {**written, "corrections": {**to_dict(CorrectionsConfig()), **written.get("corrections", {})}}
  if written.get("family") == "silky" and isinstance(written.get("model"), dict):
    written["model"] = model = {"precision": "float32", "uv_width": 16, **written["model"]}
    for name, defaults in (("physics", PhysicsConfig()), ("transport", TransportConfig())):
      written["model"] = model = {**model, name: {**to_dict(defaults), **model.get(name, {})}}
  if isinstance(loop := written.get("loop"), dict):
    written["loop"] = {"shares_every": 0, "resident": "auto", "resident_gib": 32.0, **loop}
  if isinstance(losses := written.get("losses"), dict):
    written["losses"] = {"perceptual_precision": "float32", "cache_targets": False, **_with_ramps(losses)}
  return ExperimentConfig.from_dict(written)


def _with_ramps(losses: dict[str, Any]) -> dict[str, Any]:
  """Terms from before they could grow: at once."""
  is_term = lambda value: isinstance(value, dict) and value.keys() == {"weight", "start"}
  grown = {name: {**value, "ramp": 0.0} if is_term(value) else value for name, value in losses.items()}
  if isinstance(own := losses.get("regularizers"), dict):
    grown["regularizers"] = {name: {**value, "ramp": 0.0} if is_term(value) else value for name, value in own.items()}
  return grown


def restore(workdir: Path | str, *, step: int | None = None) -> tuple[ExperimentConfig, TrainState]:
  """The config and state of a run; see `restore_run`."""
  restored = restore_run(workdir, step=step)
  return restored.config, restored.state


def restore_run(workdir: Path | str, *, step: int | None = None, rig: tuple[str, str] | None = None) -> Restored:
  """Restore a run from its folder alone.

  Args:
    workdir: the --output_dir of `train`.
    step: which checkpoint; None is the newest that can be read. Half-written ones are passed over with a message.
    rig: (name, hash) that the state must belong to; None accepts any.

  Raises:
    NoCheckpoint: no checkpoint that can be read.
    CheckpointError: no run, no such step, or a checkpoint of another format, family or rig (both are named).
  """
  config = read_config(Path(workdir))
  store = Store(Path(workdir))
  try:
    found = store.steps()
    if step is not None and step not in found:
      raise CheckpointError(f"{workdir}: no checkpoint of step {step}; there are {found or 'none'}")
    for candidate in [step] if step is not None else reversed(found):
      try:
        return _load(store, candidate, config, rig)
      except UserError:
        raise
      except Exception as error:  # whatever a torn file makes of the reader
        _LOG.warning("%s: checkpoint %d cannot be read and is passed over (%s)", workdir, candidate, _first_line(error))
  finally:
    store.close()
  raise NoCheckpoint(f"{workdir}: no readable checkpoint; run `train` with this --output_dir first")


def _load(store: Store, step: int, config: ExperimentConfig, rig: tuple[str, str] | None) -> Restored:
  meta = store.load_meta(step)
  if meta.family != config.family:
    raise CheckpointError(f"checkpoint {step} is of the family {meta.family!r}, but config.json says {config.family!r}")
  if rig is not None and rig != (meta.rig_name, meta.rig_hash):
    raise CheckpointError(
      f"checkpoint {step} was trained on the rig {meta.rig_name!r} ({meta.rig_hash[:12]}), "
      f"but this data is tracked with {rig[0]!r} ({rig[1][:12]}); preprocess the video with the rig of the checkpoint"
    )
  variables = Variables(**jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*leaf), meta.shapes, is_leaf=lambda x: isinstance(x, list)))
  like = jax.eval_shape(lambda v: create_state(v, build(config).optimizer, seed=config.seed), variables)
  return Restored(config, store.load_state(step, like), meta)


def _shapes(variables: Variables) -> dict[str, Any]:
  tree = {"params": variables.params, "buffers": variables.buffers}
  return jax.tree.map(lambda leaf: [list(leaf.shape), leaf.dtype.name], tree)


def _versions() -> dict[str, str]:
  versions = {}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = "not installed"
  return versions


def _reason(error: Exception) -> str:
  """Why a write failed, in the system's words where the error carries its number."""
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return os.strerror(int(code[1])) if code else _first_line(error)


def _first_line(error: Exception) -> str:
  return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
