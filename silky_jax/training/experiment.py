"""One training run as one frozen value: the family, its settings, and the settings of every room it uses."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import optax

from silky_jax import config as configs
from silky_jax.data.clips import ClipConfig
from silky_jax.models import corrections
from silky_jax.models.avatar import Avatar, family, make
from silky_jax.models.corrections import CorrectionsConfig
from silky_jax.models.silky import SilkyConfig
from silky_jax.render.pipeline import RenderConfig
from silky_jax.training.objective import StepConfig
from silky_jax.training.optimizer import OptimizerConfig, make_optimizer
from silky_jax.training.step import LossConfig, Stage, Term, part_ids, part_table, stages

__all__ = ["Experiment", "ExperimentConfig", "LoopConfig", "build"]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """When the loop writes. None of these changes a number in the result."""

  log_every: int = 50  # steps between metrics lines
  sample_every: int = 500  # steps between pictures in renders/; 0 writes none
  checkpoint_every: int = 500  # steps between checkpoints
  shares_every: int = 500  # steps between looks at each term's share of the gradient; 0 never looks
  keep: int = 2  # checkpoints
  prefetch: int = 2  # batches read ahead
  # Whether training pictures stay on the device, 5 bytes a pixel, and a step is sent no more than places. "auto": on a GPU, where they
  # take at most `resident_gib`, and half of what is free there.
  resident: Literal["auto", "yes", "no"] = "auto"
  resident_gib: float = 32.0


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
  """What a run is. Where it reads and writes, and on which device, is said by flags."""

  family: str = "silky"
  seed: int = 0
  steps: int = 4000
  background: tuple[float, float, float] = (1.0, 1.0, 1.0)  # behind the head in samples and scores
  random_background: bool = True  # in training, a new colour every step: what is not head must become transparent
  paint_frames: int = 16  # training frames that start colours are taken from; 0 starts grey
  model: Any = dataclasses.field(default_factory=SilkyConfig)  # the family's own config
  clips: ClipConfig = dataclasses.field(default_factory=ClipConfig)
  render: RenderConfig = dataclasses.field(default_factory=RenderConfig)
  losses: LossConfig = dataclasses.field(default_factory=LossConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  corrections: CorrectionsConfig = dataclasses.field(default_factory=CorrectionsConfig)
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)

  @classmethod
  def from_dict(cls, data: Mapping[str, Any]) -> "ExperimentConfig":
    """Read nested mappings, strictly; `family` decides the type of `model`.

    Raises:
      ConfigError: see `silky_jax.config.from_dict`; also an unknown family.
    """
    return configs.from_dict(cls, data, fields={"model": family(str(data.get("family"))).config})

  def to_dict(self) -> dict[str, Any]:
    """Plain mappings, for JSON; the inverse of `from_dict`."""
    return configs.to_dict(self)


class Experiment(NamedTuple):
  """What a config builds without data."""

  config: ExperimentConfig
  avatar: Avatar
  optimizer: optax.GradientTransformation
  stages: list[Stage]

  def step_config(self, stage: Stage, capacity: int) -> StepConfig:
    """Static settings of one stage's step at a capacity of the renderer."""
    config = self.config
    return StepConfig(
      weights=stage.weights,
      regularizers=stage.regularizers,
      part_table=part_table(config.losses.part_weights),
      ignored=part_ids(config.losses.ignored_parts),
      background=None if config.random_background else config.background,
      render=dataclasses.replace(config.render, capacity=capacity),
      outline=config.losses.outline,
      precision=config.losses.perceptual_precision,
      ramps=stage.ramps,
    )


def build(config: ExperimentConfig) -> Experiment:
  """Avatar, optimizer and stages of a config.

  Raises:
    ConfigError: settings that do not fit each other.
  """
  if config.steps < 1:
    raise configs.ConfigError(f"steps: expected at least 1, got {config.steps}")
  if config.losses.cache_targets and config.random_background:
    raise configs.ConfigError(
      "losses.cache_targets: what LPIPS sees in a picture depends on its background, which is another one every step; "
      "give --config.random_background=False, or --config.losses.cache_targets=False"
    )
  part_table(config.losses.part_weights)
  part_ids(config.losses.ignored_parts)
  own, losses, chosen = {}, config.losses, config.corrections
  if chosen.enabled:
    own = {corrections.KEY: corrections.per_look_descent(corrections.schedule(chosen, steps=config.steps))}
    losses = dataclasses.replace(losses, regularizers={**losses.regularizers, corrections.KEY: Term(chosen.prior)})
  return Experiment(
    config=config,
    avatar=make(config.family, config.model),
    optimizer=make_optimizer(config.optimizer, steps=config.steps, own=own),
    stages=stages(losses, config.steps),
  )
