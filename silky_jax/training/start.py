"""What a fresh run starts from."""

import jax
import numpy as np

from silky_jax.data.clips import ClipPlan, Sequence
from silky_jax.losses import perceptual
from silky_jax.models import corrections
from silky_jax.training.experiment import Experiment
from silky_jax.types import FlameRig, Frame, PyTree, Variables

__all__ = ["fresh_variables", "loss_networks", "some_frames"]


def some_frames(sequence: Sequence, plan: ClipPlan, count: int) -> Frame:
  """Training frames [t], evenly spread, at most `count`; numpy.

  Args:
    sequence: the video.
    plan: its training frames.
    count: how many.
  """
  chosen = np.unique(np.linspace(0, len(plan.frames) - 1, count).round().astype(int))
  return sequence.frames(plan.frames[chosen])


def loss_networks(experiment: Experiment) -> PyTree:
  """What losses look through, on the device; {} where no stage looks through anything.

  Args:
    experiment: from `build`.
  """
  losses = experiment.config.losses
  if not any("perceptual" in stage.weights for stage in experiment.stages):
    return {}
  return jax.device_put({"perceptual": perceptual.cast(perceptual.load(losses.perceptual_net), losses.perceptual_precision)})


def fresh_variables(
  experiment: Experiment, rig: FlameRig, sequence: Sequence, plan: ClipPlan, drivers: Frame, *, painted: bool = True
) -> Variables:
  """Variables before step 0: the family's own start, corrections where they are learnt, colours from some training frames.

  Args:
    experiment: from `build`.
    rig: on the device.
    sequence: the video.
    plan: its training frames.
    drivers: `load_drivers(sequence)`.
    painted: whether colours are taken from frames; a run that begins with another's variables needs none.
  """
  config, avatar = experiment.config, experiment.avatar
  variables: Variables = avatar.init(jax.random.key(config.seed), rig, sequence.subject)
  if config.corrections.enabled:
    variables = corrections.begin(config.corrections, variables, drivers, plan.frames)
  if painted and avatar.paint is not None and config.paint_frames:
    variables = jax.jit(avatar.paint)(variables, rig, some_frames(sequence, plan, config.paint_frames))
  return variables
