"""The one train step: deform, render, compare, regularise, update. Pure; the caller jits it.

A loss term whose weight is 0 is not in the compiled program. A term may join late: every distinct start makes another compiled step, at
most three a run, chosen on the host.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from silky_jax.config import ConfigError, closest
from silky_jax.data.clips import Batch
from silky_jax.flame.regions import PARTS
from silky_jax.models.protocol import MEMORY, Avatar
from silky_jax.training.objective import IMAGE_TERMS, Ramp, StepConfig, exact_products, make_objective
from silky_jax.types import PyTree, TrainState, Variables

__all__ = ["LossConfig", "Stage", "Term", "TrainStep", "create_state", "make_train_step", "part_ids", "stages"]

TrainStep = Callable[[TrainState, PyTree, Batch, PyTree], tuple[TrainState, dict[str, Array]]]
T = TypeVar("T")
_MOST_STAGES = 3


@dataclasses.dataclass(frozen=True)
class Term:
  """One term of the loss."""

  weight: float = 0.0  # 0 removes the term
  start: float = 0.0  # share of the run after which it joins
  ramp: float = 0.0  # share of the run over which its weight grows from 0, as tanh; 0: at once


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What is minimised. Photometric terms are means over the whole picture."""

  huber: Term = Term(1.0)
  l1: Term = Term()
  ssim: Term = Term()  # 1 - SSIM
  perceptual: Term = Term()  # LPIPS
  alpha: Term = Term()  # L1 between the render's alpha and the mask
  perceptual_net: Literal["alexnet", "vgg16"] = "alexnet"
  perceptual_precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of its convolutions; tf32 is float32 but on a GPU
  cache_targets: bool = False  # keep what that network sees in each training picture on the device: 64 MiB a picture (VGG16, 512 px)
  # Extra weight of a label's pixels in huber and l1, by its name in PARTS. The released code has mouth 40 on its three mouth labels.
  part_weights: dict[str, float] = dataclasses.field(default_factory=dict)
  # Labels whose pixels say nothing: what stands there is neither head nor background. Taught to be background, the rim of the neck
  # that the collar hides would turn transparent, and be missing from every other side.
  ignored_parts: tuple[str, ...] = ("cloth",)
  # Pixels on either side of the mask's edge in which head and background are told apart before anything is compared; 0: none.
  outline: int = 2
  regularizers: dict[str, Term] = dataclasses.field(default_factory=dict)  # by the family's names


class Stage(NamedTuple):
  """A stretch of the run with one compiled step."""

  start: int  # first step
  weights: dict[str, float]
  regularizers: dict[str, float]
  ramps: dict[str, Ramp]  # of those that grow


def stages(config: LossConfig, steps: int) -> list[Stage]:
  """Cut a run where terms join.

  Args:
    config: the loss.
    steps: length of the run.

  Raises:
    ConfigError: more than three stages, a negative weight, a start outside 0..1, or an outline outside 0..16.
  """
  if not 0 <= config.outline <= 16:
    raise ConfigError(f"losses.outline: expected 0 to 16 px, got {config.outline}")
  images = {name: getattr(config, name) for name in IMAGE_TERMS}
  terms = {**images, **{f"regularizers.{name}": term for name, term in config.regularizers.items()}}
  for name, term in terms.items():
    if term.weight < 0 or not 0 <= term.start <= 1:
      raise ConfigError(f"losses.{name}: expected weight >= 0 and start in 0..1, got {term}")
    if not 0 <= term.ramp <= 1:
      raise ConfigError(f"losses.{name}: expected a ramp in 0..1, got {term.ramp}")
  starts = sorted({0, *(round(term.start * steps) for term in terms.values() if term.weight)})
  if len(starts) > _MOST_STAGES:
    raise ConfigError(f"losses: terms start at {starts}, which makes {len(starts)} compiled steps; at most {_MOST_STAGES} are allowed")

  def active(group: Mapping[str, Term], start: int) -> dict[str, float]:
    return {name: term.weight for name, term in group.items() if term.weight and round(term.start * steps) <= start}

  every = {**images, **config.regularizers}
  ramps = {name: Ramp(round(term.start * steps), max(1, round(term.ramp * steps))) for name, term in every.items() if term.ramp}

  def stage(start: int) -> Stage:
    weights, regularizers = active(images, start), active(config.regularizers, start)
    return Stage(start, weights, regularizers, {name: ramp for name, ramp in ramps.items() if name in weights or name in regularizers})

  return [stage(start) for start in starts]


def part_table(weights: Mapping[str, float]) -> tuple[float, ...]:
  """Extra weight per label id, from weights by label name.

  Raises:
    ConfigError: a name that is no label.
  """
  for name in weights:
    if name not in PARTS:
      raise ConfigError(f"losses.part_weights: no label {name!r}{closest(name, PARTS)}")
  return tuple(float(weights.get(name, 0.0)) for name in PARTS)


def part_ids(names: Sequence[str]) -> tuple[int, ...]:
  """Label ids by name.

  Raises:
    ConfigError: a name that is no label.
  """
  for name in names:
    if name not in PARTS:
      raise ConfigError(f"losses.ignored_parts: no label {name!r}{closest(name, PARTS)}")
  return tuple(PARTS.index(name) for name in names)


def create_state(variables: Variables, optimizer: optax.GradientTransformation, *, seed: int) -> TrainState:
  """The state before step 0, every array with a strong type (a weak one would compile the step twice).

  Args:
    variables: from the family's init.
    optimizer: from `make_optimizer`.
    seed: of all randomness in the run.
  """
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    variables=variables,
    opt_state=optimizer.init(variables.params),
    stats={"pairs": jnp.zeros((), jnp.int32), "overflow": jnp.zeros((), jnp.int32)},
    key=jax.random.key_data(jax.random.key(seed)),
  )
  return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


def make_train_step(avatar: Avatar, optimizer: optax.GradientTransformation, config: StepConfig) -> TrainStep:
  """The step for one stage.

  Args:
    avatar: the family.
    optimizer: over the family's params.
    config: static settings.

  Returns:
    step(state, rig, batch, networks) -> (state, metrics). `networks` holds what losses need: `{"perceptual": load(net)}`, or `{}`; see
    `make_objective`.
    Metrics are scalars: each term unweighted, `loss`, `psnr` (dB, whole picture), `gradient_norm`, `pairs`, `overflow`, and `skipped`,
    1 where loss or gradient were not finite: then nothing is changed but the step count. `state.stats` keeps the largest `pairs` and
    `overflow` since the loop last cleared them.

  Raises:
    ConfigError: at the first call, a regulariser the family does not have.
  """
  objective = make_objective(avatar, config)

  def total(params: PyTree, state: TrainState, rig: PyTree, batch: Batch, networks: PyTree) -> tuple[Array, tuple[dict[str, Array], Any]]:
    found = objective(params, state, rig, batch, networks)
    loss = sum(found.parts.values(), start=jnp.zeros(()))
    return loss, ({**found.metrics, "loss": loss}, found.memory)

  def step(state: TrainState, rig: PyTree, batch: Batch, networks: PyTree) -> tuple[TrainState, dict[str, Array]]:
    params = state.variables.params
    with exact_products():  # here too, for gradients written by hand, which are traced on the way back
      (loss, (metrics, memory)), gradient = jax.value_and_grad(total, has_aux=True)(params, state, rig, batch, networks)
    norm = optax.global_norm(gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, params)
    sound = jnp.isfinite(loss) & jnp.isfinite(norm)
    params, opt_state = _where(sound, (optax.apply_updates(params, updates), opt_state), (params, state.opt_state))
    stats = {name: jnp.maximum(state.stats[name], metrics[name]) for name in state.stats}
    buffers = state.variables.buffers
    if memory:
      before = {name: buffers[MEMORY][name] for name in memory}
      buffers = buffers | {MEMORY: buffers[MEMORY] | _where(sound, memory, before)}
    variables = state.variables.replace(params=params, buffers=buffers)
    new = state.replace(step=state.step + 1, variables=variables, opt_state=opt_state, stats=stats)
    return new, {**metrics, "gradient_norm": norm, "skipped": 1.0 - sound}

  return step


def _where(condition: Array, new: T, old: T) -> T:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
