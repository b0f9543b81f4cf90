"""How a step comes by its pictures: sent with every step, or kept on the device and looked up there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from silky_jax.config import UserError
from silky_jax.data.clips import Batch, ClipPlan, Draw, Sequence, draw_clips, load_batch
from silky_jax.data.resident import Film, expected_bytes, gather, read_film, rows
from silky_jax.losses import perceptual
from silky_jax.training import targets
from silky_jax.training.experiment import ExperimentConfig, LoopConfig
from silky_jax.training.objective import StepConfig
from silky_jax.training.step import TrainStep
from silky_jax.types import Frame, PyTree, TrainState

__all__ = ["Kept", "Program", "Supply", "free_bytes", "make_program", "received", "stays"]

_GIB = 2**30
_SHARE = 0.5  # of the device's free memory: the step wants the rest


class Kept(NamedTuple):
  """What stays on the device for the whole run; nothing of it where steps are sent their pictures."""

  film: Film | None = None
  targets: perceptual.Taps | None = None


Program = Callable[[TrainState, PyTree, Batch | Draw, PyTree, Kept], tuple[TrainState, Any]]


class Supply:
  """The batches of one run."""

  def __init__(self, sequence: Sequence, plan: ClipPlan, drivers: Frame, config: ExperimentConfig):
    """Sends pictures, until `keep` is called.

    Args:
      sequence: the video.
      plan: from `plan_clips`.
      drivers: `load_drivers(sequence)`.
      config: the run.
    """
    self._sequence, self._plan, self._drivers, self._config = sequence, plan, drivers, config
    self.kept = Kept()

  def keep(self, step_config: StepConfig, networks: PyTree) -> None:
    """Bring to the device what the config wants kept there.

    Args:
      step_config: of the last stage.
      networks: as of the step, on the device.

    Raises:
      UserError: it does not fit, or cannot be.
    """
    wanted = self._config.losses.cache_targets and "perceptual" in networks
    if not stays(self._config.loop, expected_bytes(self._sequence, self._plan), free_bytes()):
      if wanted:
        raise UserError("losses.cache_targets: needs the training pictures on the device too; give --config.loop.resident=yes")
      return
    film = read_film(self._sequence, self._plan, self._drivers)
    size, free = sum(leaf.nbytes for leaf in jax.tree.leaves(film)), free_bytes()
    if free is not None and size > free:  # pictures of more than 8 bits take more than was expected
      raise UserError(f"loop.resident: pictures of {size / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free; give --config.loop.resident=no")
    self.kept = Kept(jax.device_put(film))
    if wanted:
      table = targets.make_table(step_config, networks["perceptual"], self.kept.film, free=free_bytes())
      self.kept = self.kept._replace(targets=table)

  def send(self, step: int) -> Batch | Draw:
    """What goes to the device for a step, as numpy arrays; a function of the step alone."""
    drawn = draw_clips(self._plan, self._config.clips, seed=self._config.seed, step=step)
    return load_batch(self._sequence, self._drivers, drawn) if self.kept.film is None else rows(self._plan, drawn)


def received(sent: Batch | Draw, kept: Kept) -> tuple[Batch, dict[str, Any]]:
  """On the device, a step's batch and what joins its networks. Pure, part of the compiled step.

  Args:
    sent: from `Supply.send`.
    kept: `Supply.kept`.
  """
  if isinstance(sent, Batch):
    return sent, {}
  assert kept.film is not None
  return gather(kept.film, sent), {} if kept.targets is None else {"targets": targets.look_up(kept.targets, sent)}


def make_program(step: TrainStep) -> tuple[Program, list[str]]:
  """A train step with what comes before and after it: pictures are looked up, and metrics leave as one array. Pure; the caller jits it.

  Args:
    step: from `make_train_step`.

  Returns:
    program(state, rig, sent, networks, kept) -> (state, float32 [m]), and the names of the m metrics, which tracing fills in.
  """
  names: list[str] = []

  def program(state: TrainState, rig: PyTree, sent: Batch | Draw, networks: PyTree, kept: Kept) -> tuple[TrainState, Any]:
    batch, seen = received(sent, kept)
    state, metrics = step(state, rig, batch, {**networks, **seen})
    names[:] = sorted(metrics)
    return state, jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names])

  return program, names


def stays(config: LoopConfig, size: int, free: int | None) -> bool:
  """Whether training pictures stay on the device.

  Args:
    config: `resident` and `resident_gib` of it.
    size: bytes they take.
    free: bytes free on the device; None: not known.

  Raises:
    UserError: they were asked to, and have no room.
  """
  if config.resident == "no":
    return False
  if config.resident == "yes":
    if free is not None and size > free:
      raise UserError(f"loop.resident: pictures of {size / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free; give --config.loop.resident=no")
    return True
  fits = size <= config.resident_gib * _GIB and (free is None or size <= _SHARE * free)
  return jax.devices()[0].platform != "cpu" and fits


def free_bytes() -> int | None:
  """Bytes free on the device, as far as it tells."""
  stats = jax.devices()[0].memory_stats() or {}
  return int(stats["bytes_limit"] - stats["bytes_in_use"]) if {"bytes_limit", "bytes_in_use"} <= stats.keys() else None
