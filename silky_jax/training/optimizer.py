"""Adam with a learning rate per group of parameters; groups are named by the paths of the parameter dict."""

import dataclasses
from collections.abc import Mapping

import jax
import optax

from silky_jax.config import ConfigError, closest
from silky_jax.types import PyTree

__all__ = ["SILKY_RATES", "OptimizerConfig", "make_optimizer", "parameter_group"]

# Opacity, scale, rotation and colours: the rates of 3D Gaussian splatting (Kerbl et al. 2023). The offset is in metres: 3D Gaussian
# splatting moves means by 1.6e-4 of the scene's extent, and a head's is about 0.3 m.
SILKY_RATES: dict[str, tuple[float, float]] = {
  "gaussians/offset": (5e-5, 5e-6),
  "gaussians/rotation": (1e-3, 1e-4),
  "gaussians/scale": (5e-3, 5e-4),
  "gaussians/opacity": (5e-2, 5e-3),
  "gaussians/color": (2.5e-3, 2.5e-4),
  "gaussians/harmonics": (1.25e-4, 1.25e-5),
  "residual": (1e-3, 1e-5),
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Learning rates fall log-linearly from the first to the last step, as the means' rate does in 3D Gaussian splatting."""

  # Path prefix -> (rate at the first step, rate at the last). The longest prefix that fits a parameter's path counts.
  rates: dict[str, tuple[float, float]] = dataclasses.field(default_factory=lambda: dict(SILKY_RATES))
  warmup: int = 0  # steps over which all rates rise linearly from 0
  beta1: float = 0.9
  beta2: float = 0.999
  # Far below Adam's usual 1e-8: the loss is a mean over pixels, so one Gaussian's gradient is about 1e-7.
  epsilon: float = 1e-15


def parameter_group(path: str, groups: tuple[str, ...]) -> str:
  """The group of one parameter: the longest group name that is its path or a leading part of it.

  Args:
    path: like "gaussians/opacity".
    groups: names from the config.

  Raises:
    ConfigError: no group fits; the message names the path.
  """
  fitting = [group for group in groups if path == group or path.startswith(group + "/")]
  if not fitting:
    raise ConfigError(f"optimizer.rates: nothing for the parameter {path!r}{closest(path, groups)}")
  return max(fitting, key=len)


def make_optimizer(
  config: OptimizerConfig, *, steps: int, own: Mapping[str, optax.GradientTransformation] | None = None
) -> optax.GradientTransformation:
  """Adam per group.

  Args:
    config: rates by path prefix.
    steps: length of the run; the last rate is reached there and kept.
    own: transformations for groups that are not Adam's, by path prefix.

  Returns:
    A transformation whose `init` and `update` raise ConfigError for a parameter without a rate.

  Raises:
    ConfigError: a rate is not positive.
  """
  for group, (first, last) in config.rates.items():
    if min(first, last) <= 0:
      raise ConfigError(f"optimizer.rates.{group}: expected two positive rates, got {(first, last)}")
  groups = (*config.rates, *(own or {}))

  def labels(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(
      lambda path, _: parameter_group(jax.tree_util.keystr(path, simple=True, separator="/"), groups), params
    )

  adam = {
    group: optax.adam(_schedule(first, last, steps, config.warmup), config.beta1, config.beta2, config.epsilon)
    for group, (first, last) in config.rates.items()
  }
  return optax.multi_transform(adam | dict(own or {}), labels)


def _schedule(first: float, last: float, steps: int, warmup: int) -> optax.Schedule:
  decay = optax.exponential_decay(first, transition_steps=max(steps, 1), decay_rate=last / first, end_value=last)
  if not warmup:
    return decay
  return lambda count: decay(count) * jax.numpy.minimum(1.0, (count + 1) / warmup)
