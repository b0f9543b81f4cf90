"""What the physics and the transport term add to a training step: time and memory -> experiments/results/step_cost.json.

The step of the demo's last stage (all pictures' terms with LPIPS), with neither, either and both of them; interleaved, so that a busy
moment of the machine hits all alike.

python -m experiments.step_cost --data_dir=runs/demo/data
"""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments.record import write_record
from silky_jax import cli
from silky_jax.apps.player import find_rig
from silky_jax.data.clips import Batch, Sequence, draw_clips, load_batch, load_drivers, plan_clips
from silky_jax.data.formats import native
from silky_jax.flame import open_head
from silky_jax.heap import keep_freed_memory
from silky_jax.losses import perceptual
from silky_jax.training.experiment import Experiment, ExperimentConfig, build
from silky_jax.training.step import create_state, make_train_step
from silky_jax.training.synthetic import synthetic_sequence
from silky_jax.types import FlameRig

_DATA = flags.DEFINE_string("data_dir", "synthetic", "A dataset, or `synthetic`.")
_CONFIG = flags.DEFINE_string("config", "configs/silky.py:demo", "FILE.py:VARIANT.")
_JSON = flags.DEFINE_string("json", "experiments/results/step_cost.json", "Where the figures go.")
_STEPS = flags.DEFINE_integer("steps", 30, "Timed steps of each.")
_CAPACITY = flags.DEFINE_integer("capacity", 131072, "Tile pairs of the plain renderer; the compiled one needs none.")
_SET = flags.DEFINE_multi_string("set", [], "term.key=VALUE of model.physics or model.transport, or length=N, to try settings.")
_TERMS = ("physics", "transport")


def main(_: list[str]) -> None:
  """Time the four."""
  keep_freed_memory()
  config = _config()
  sequence = synthetic_sequence(open_head.load()[0]) if _DATA.value == "synthetic" else native.read(_DATA.value)
  rig = find_rig(sequence.rig_name, sequence.rig_hash)
  cases = {"neither": (), "physics": ("physics",), "transport": ("transport",), "both": _TERMS}
  ready = {name: _prepare(_without(config, set(_TERMS) - set(kept)), sequence, rig) for name, kept in cases.items()}
  seconds: dict[str, list[float]] = {name: [] for name in cases}
  for i in range(_STEPS.value + 2):
    for name, run in ready.items():
      begun = time.perf_counter()
      run["state"], metrics = run["step"](run["state"], rig, run["batches"][i % len(run["batches"])], run["networks"])
      jax.block_until_ready(metrics)
      if i >= 2:
        seconds[name].append(time.perf_counter() - begun)
        run["unsolved"] = run.get("unsolved", 0) + int(metrics.get("transport_unsolved", 0))
  base = 1e3 * float(np.median(seconds["neither"]))
  scratch = ready["neither"]["scratch"]
  rows = [
    {
      "terms": name,
      "ms": round(1e3 * float(np.median(seconds[name])), 2),
      "more_time": round(1e3 * float(np.median(seconds[name])) / base - 1, 3),
      "scratch_mib": round(run["scratch"], 1),
      "more_scratch": round(run["scratch"] / scratch - 1, 3),
      "unsolved": run.get("unsolved", 0),
    }
    for name, run in ready.items()
  ]
  for row in rows:
    print(row)
  settings = {"window": config.clips.length, "physics": dataclasses.asdict(config.model.physics)}
  settings |= {"transport": dataclasses.asdict(config.model.transport), "steps": _STEPS.value}
  content = {"rows": rows, "settings": settings, "gaussians": ready["both"]["gaussians"], "size": list(sequence.size)}
  command = f"python -m experiments.step_cost --data_dir=DATA --config={_CONFIG.value}"
  write_record(_JSON.value, content, command=command, packages=("jax", "jaxlib", "ott-jax"))


def _config() -> ExperimentConfig:
  config = ExperimentConfig.from_dict(cli.load_config(_CONFIG.value).to_dict())
  for text in _SET.value:
    path, _, value = text.partition("=")
    if path == "length":
      config = dataclasses.replace(config, clips=dataclasses.replace(config.clips, length=int(value)))
      continue
    name, key = path.split(".")
    own = getattr(config.model, name)
    own = dataclasses.replace(own, **{key: type(getattr(own, key))(value)})
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **{name: own}))
  return config


def _without(config: ExperimentConfig, dropped: set[str]) -> ExperimentConfig:
  kept = {
    name: dataclasses.replace(term, weight=0.0 if name in dropped else term.weight) for name, term in config.losses.regularizers.items()
  }
  return dataclasses.replace(config, losses=dataclasses.replace(config.losses, regularizers=kept))


def _prepare(config: ExperimentConfig, sequence: Sequence, rig: FlameRig) -> dict[str, Any]:
  experiment: Experiment = build(config)
  plan, drivers = plan_clips(sequence, config.clips), load_drivers(sequence)
  batch = lambda i: jax.device_put(load_batch(sequence, drivers, draw_clips(plan, config.clips, seed=0, step=i)))
  batches: list[Batch] = [batch(i) for i in range(8)]
  variables = experiment.avatar.init(jax.random.key(0), rig, sequence.subject)
  if experiment.avatar.paint is not None:
    variables = jax.jit(experiment.avatar.paint)(variables, rig, sequence.frames(plan.frames[:: max(1, len(plan.frames) // 8)][:8]))
  state = create_state(variables, experiment.optimizer, seed=0)
  networks = {"perceptual": perceptual.load(config.losses.perceptual_net)}
  raw = make_train_step(experiment.avatar, experiment.optimizer, experiment.step_config(experiment.stages[-1], _CAPACITY.value))
  compiled = jax.jit(raw, donate_argnums=0).lower(state, rig, batches[0], networks).compile()
  memory = compiled.memory_analysis()
  return {
    "step": compiled,
    "state": state,
    "batches": batches,
    "networks": networks,
    "scratch": memory.temp_size_in_bytes / 2**20 if memory is not None else float("nan"),
    "gaussians": int(np.sum(variables.buffers["alive"])),
  }


if __name__ == "__main__":
  app.run(main)
