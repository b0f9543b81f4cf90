"""Several runs of one recipe as one: the train step under vmap, many steps to a call.

For ablations, which want every setting at several seeds: runs that differ in their seed alone have arrays of the same shapes, so one
compiled program trains them side by side. Nothing is written, nothing is resumed; for a run to keep there is `loop.train`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from silky_jax.config import ConfigError
from silky_jax.data.clips import Sequence as Video
from silky_jax.data.clips import load_drivers, plan_clips
from silky_jax.models import corrections
from silky_jax.models.drive import make_renderer
from silky_jax.progress import Progress
from silky_jax.render.pipeline import next_capacity
from silky_jax.training.experiment import Experiment, ExperimentConfig, build
from silky_jax.training.start import fresh_variables, loss_networks, some_frames
from silky_jax.training.step import Stage, create_state, make_train_step
from silky_jax.training.supply import Kept, Supply, make_program
from silky_jax.types import FlameRig, PyTree, TrainState

__all__ = ["Together", "train_together"]

_LOOKED_AT = 4  # training frames that say how much room the renderer wants


class Together(NamedTuple):
  """s runs at their last step."""

  states: TrainState  # leaves [s, ...]
  experiment: Experiment  # of the first
  capacity: int
  metrics: list[dict[str, np.ndarray]]  # of each call: first step done, and means over its steps [s]
  seconds: float
  compiled: list[float]  # seconds of each compilation


def train_together(
  config: ExperimentConfig, sequence: Video, rig: FlameRig, seeds: Sequence[int], *, most: int = 50, say: Callable[[str], None] = print
) -> Together:
  """Train one avatar per seed.

  Args:
    config: the recipe; its own seed is not looked at. Pictures must be able to stay on the device (`loop.resident`).
    sequence: the video.
    rig: as tracked.
    seeds: of the runs.
    most: steps per call of the device, at most; stages begin between calls.
    say: prints a line.

  Returns:
    Together.

  Raises:
    ConfigError: no seeds, or pictures that are not kept on the device.
  """
  if not seeds:
    raise ConfigError("seeds: expected at least one, got none")
  begun = time.perf_counter()
  config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, resident="yes"))
  rig = jax.device_put(rig)
  plan, drivers = plan_clips(sequence, config.clips), load_drivers(sequence)
  experiments = [build(dataclasses.replace(config, seed=seed)) for seed in seeds]
  first = experiments[0]
  fresh = [fresh_variables(one, rig, sequence, plan, drivers) for one in experiments]
  states = [create_state(v, one.optimizer, seed=one.config.seed) for v, one in zip(fresh, experiments, strict=True)]
  capacity = _capacity(first, fresh[0], rig, some_frames(sequence, plan, _LOOKED_AT))
  supplies = [Supply(sequence, plan, drivers, one.config) for one in experiments]
  networks = loss_networks(first)
  supplies[0].keep(first.step_config(first.stages[-1], capacity), networks)
  for supply in supplies[1:]:
    supply.kept = supplies[0].kept  # the same pictures
  given = (rig, networks, supplies[0].kept)
  return _run(first, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), supplies, given, capacity, most, begun, say)


def _run(
  experiment: Experiment,
  states: TrainState,
  supplies: list[Supply],
  given: tuple[FlameRig, PyTree, Kept],
  capacity: int,
  most: int,
  begun: float,
  say: Callable[[str], None],
) -> Together:
  steps, (rig, networks, kept) = experiment.config.steps, given
  each = math.gcd(steps, *(stage.start for stage in experiment.stages))
  each = max(size for size in range(1, most + 1) if each % size == 0)
  programs: dict[tuple[int, int], tuple[Any, list[str]]] = {}
  metrics, compiled = [], []
  with Progress("train", steps, "steps") as progress:
    for start in range(0, steps, each):
      stage = max(i for i, one in enumerate(experiment.stages) if one.start <= start)
      drawn = [supply.send(step) for step in range(start, start + each) for supply in supplies]
      sent = jax.tree.map(lambda *leaves: np.stack(leaves).reshape(each, len(supplies), *np.shape(leaves[0])), *drawn)
      if (stage, capacity) not in programs:
        since = time.perf_counter()
        program, names = _program(experiment, experiment.stages[stage], capacity)
        lowered = jax.jit(program, donate_argnums=0).lower(states, rig, sent, networks, kept)
        programs = {(stage, capacity): (lowered.compile(), names)}
        compiled.append(time.perf_counter() - since)
        say(f"step {start}: compiled stage {stage + 1} of {len(experiment.stages)} for {len(supplies)} seeds in {compiled[-1]:.1f} s")
      program, names = programs[stage, capacity]
      states, found = program(states, rig, sent, networks, kept)
      means = dict(zip(names, np.moveaxis(np.asarray(found), -1, 0).mean(axis=1), strict=True))
      metrics.append({"step": np.asarray(start), **means})
      progress.to(start + each, f"loss {np.mean(means['loss']):.4f}, psnr {np.mean(means['psnr']):.1f}")
      wanted = int(jnp.max(states.stats["pairs"]))
      if wanted > capacity:
        capacity = next_capacity(wanted)
      states = states.replace(stats=jax.tree.map(jnp.zeros_like, states.stats))
  return Together(states, experiment, capacity, metrics, time.perf_counter() - begun, compiled)


def _program(
  experiment: Experiment, stage: Stage, capacity: int
) -> tuple[Callable[..., tuple[TrainState, Float[Array, "k s m"]]], list[str]]:
  """(states, rig, draws [k, s, ...], networks, kept) -> (states, metrics of k steps), and the metrics' names, which tracing fills in."""
  step = make_train_step(experiment.avatar, experiment.optimizer, experiment.step_config(stage, capacity))
  one, names = make_program(step)
  every = jax.vmap(one, in_axes=(0, None, 0, None, None))

  def program(states: TrainState, rig: PyTree, sent: PyTree, networks: PyTree, kept: Kept) -> tuple[TrainState, Float[Array, "k s m"]]:
    return jax.lax.scan(lambda states, sent: every(states, rig, sent, networks, kept), states, sent)

  return program, names


def _capacity(experiment: Experiment, variables: PyTree, rig: FlameRig, frames: PyTree) -> int:
  """Room for the tile pairs of a start's pictures."""
  settings = experiment.step_config(experiment.stages[0], experiment.config.render.capacity).render
  render, background = make_renderer(experiment.avatar, settings), jnp.asarray(experiment.config.background)
  wanted = 0
  for i in range(len(frames.index)):
    frame = corrections.correct(variables, jax.tree.map(lambda leaf, i=i: leaf[i], frames))
    wanted = max(wanted, int(render(variables, rig, frame, background).pairs))
  return max(experiment.config.render.capacity, next_capacity(wanted))
