"""How long a training step takes, and which of its parts takes it: steps back to back -> experiments/results/train_speed.json.

Every compiled stage of a run, as the loop runs it but without logs, pictures and checkpoints; then the parts: the photometric terms
alone, and with LPIPS (each network and precision), physics, transport, or both. The parts are steps of their own, so that what they add
to the photometric step is what they cost. `--busy` adds what the GPU works in a step, how many launches it is, and the longest kernels.

python -m experiments.train_speed --data_dir=runs/demo/data --config=configs/silky.py:mlp --config.loop.resident=yes
python -m experiments.train_speed --data_dir=synthetic --config=configs/smoke.py --steps=3 --lpips=alexnet:float32
"""

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.gpu_busy import busy
from experiments.record import write_record
from silky_jax.apps.player import find_rig
from silky_jax.data.clips import Sequence, load_drivers, plan_clips
from silky_jax.data.formats import native
from silky_jax.data.loader import prefetch
from silky_jax.flame import open_head
from silky_jax.heap import keep_freed_memory
from silky_jax.losses import perceptual
from silky_jax.training.experiment import ExperimentConfig
from silky_jax.training.loop import Trained, train
from silky_jax.training.objective import StepConfig
from silky_jax.training.start import loss_networks
from silky_jax.training.step import make_train_step
from silky_jax.training.supply import Kept, Supply, make_program
from silky_jax.training.synthetic import synthetic_sequence
from silky_jax.types import PyTree

_DATA = flags.DEFINE_string("data_dir", "synthetic", "A dataset, or `synthetic`.")
_CONFIG = config_flags.DEFINE_config_file("config", "configs/silky.py:mlp", "FILE.py:VARIANT, and --config.KEY=VALUE.")
_JSON = flags.DEFINE_string("json", "experiments/results/train_speed.json", "Where the figures go.")
_STEPS = flags.DEFINE_integer("steps", 200, "Timed steps of each.", lower_bound=1)
_BEFORE = flags.DEFINE_integer("before", 0, "Steps to train before: Gaussians of a run under way cost more or less than those of a start.")
_PARTS = flags.DEFINE_bool("parts", True, "Whether the parts are timed too, or the stages alone.")
_CASES = flags.DEFINE_string("cases", "", "Only steps in whose name this regular expression is found.")
_LPIPS = flags.DEFINE_list(
  "lpips", [f"{net}:{kind}" for net in ("alexnet", "vgg16") for kind in ("float32", "tf32", "bfloat16")], "NET:PRECISION to time."
)
_BUSY = flags.DEFINE_bool("busy", False, "Whether the GPU's own time is measured too, in a pass of its own: needs PyTorch.")
_WARM = 3  # untimed steps
_MIB = 2**20
_OWN = ("physics", "transport")


class Case(NamedTuple):
  """One kind of step."""

  name: str
  settings: StepConfig
  networks: PyTree
  kept: Kept


def main(_: list[str]) -> None:
  """Time every case."""
  logging.set_verbosity(logging.WARNING)
  keep_freed_memory()
  config = ExperimentConfig.from_dict(_CONFIG.value.to_dict())
  sequence = synthetic_sequence(open_head.load()[0]) if _DATA.value == "synthetic" else native.read(_DATA.value)
  rig = jax.device_put(find_rig(sequence.rig_name, sequence.rig_hash))
  begun = _begin(config, sequence, rig)
  supply = Supply(sequence, plan_clips(sequence, config.clips), load_drivers(sequence), config)
  own = loss_networks(begun.experiment)
  supply.keep(begun.experiment.step_config(begun.experiment.stages[-1], begun.capacity), own)
  rows = []
  for case in _cases(begun, own, supply.kept):
    if not re.search(_CASES.value, case.name):
      continue
    rows.append({"step": case.name, **_time(case, begun, supply, rig)})
    print(rows[-1], flush=True)
  buffers = begun.state.variables.buffers
  content = {
    "rows": rows,
    "pictures": "kept" if supply.kept.film is not None else "sent",
    "kept_mib": {"film": _mib(supply.kept.film), "targets": _mib(supply.kept.targets)},
    "gaussians": int(jnp.sum(buffers["alive"])),
    "size": list(sequence.size),
    "window": dataclasses.asdict(config.clips),
    "capacity": begun.capacity,
    "steps": _STEPS.value,
  }
  command = f"python -m experiments.train_speed --data_dir=DATA --steps={_STEPS.value} --before={_BEFORE.value}"
  write_record(_JSON.value, {**content, "config": config.to_dict()}, command=command, packages=("jax", "jaxlib", "ott-jax"))


def _begin(config: ExperimentConfig, sequence: Sequence, rig: PyTree) -> Trained:
  """The state that is timed, and the renderer's capacity for it."""
  loop = dataclasses.replace(config.loop, sample_every=0, shares_every=0, checkpoint_every=max(1, _BEFORE.value), resident="no")
  config = dataclasses.replace(config, loop=loop, losses=dataclasses.replace(config.losses, cache_targets=False))
  with tempfile.TemporaryDirectory() as folder:
    return train(config, sequence, rig, folder, stop=_BEFORE.value, say=lambda line: None)


def _network(net: str, precision: Any) -> PyTree:
  return jax.device_put({"perceptual": perceptual.cast(perceptual.load(net), precision)})


def _cases(begun: Trained, own: PyTree, kept: Kept) -> Iterator[Case]:
  """Stages as they are trained, then parts of the last one. LPIPS' weights come and go with their case."""
  experiment = begun.experiment
  for i, stage in enumerate(experiment.stages):
    yield Case(f"stage {i + 1} of {len(experiment.stages)}", experiment.step_config(stage, begun.capacity), own, kept)
  if not _PARTS.value:
    return
  full = experiment.step_config(experiment.stages[-1], begun.capacity)
  terms = {name: weight for name, weight in full.regularizers.items() if name not in _OWN}
  without = {name: weight for name, weight in full.weights.items() if name != "perceptual"}
  base = dataclasses.replace(full, weights=without, regularizers=terms)
  film = kept._replace(targets=None)
  yield Case("photometric", base, {}, film)
  for text in _LPIPS.value:
    net, precision = text.split(":")
    settings = dataclasses.replace(base, weights={**without, "perceptual": full.weights.get("perceptual", 0.1)}, precision=precision)
    yield Case(f"photometric + lpips {net} {precision}", settings, _network(net, precision), film)
  here = [name for name in _OWN if name in full.regularizers]
  for names in [(name,) for name in here] + ([tuple(here)] if len(here) > 1 else []):
    more = {name: full.regularizers[name] for name in names}
    yield Case(f"photometric + {' + '.join(names)}", dataclasses.replace(base, regularizers={**terms, **more}), {}, film)


def _time(case: Case, begun: Trained, supply: Supply, rig: PyTree) -> dict[str, float]:
  """Milliseconds a step, back to back, with the batches read ahead as the loop reads them; and what compiling says of memory."""
  experiment = begun.experiment
  program, _ = make_program(make_train_step(experiment.avatar, experiment.optimizer, case.settings))
  state = jax.tree.map(jnp.copy, begun.state)
  start, since = int(state.step), time.perf_counter()
  given = (rig, supply.send(start), case.networks, case.kept)
  compiled = jax.jit(program, donate_argnums=0).lower(state, *given).compile()
  seconds, memory = time.perf_counter() - since, compiled.memory_analysis()
  steps = range(start, start + _WARM + _STEPS.value)
  with contextlib.closing(prefetch(supply.send, steps, ahead=experiment.config.loop.prefetch)) as batches:
    for step, sent in batches:
      state, metrics = compiled(state, rig, sent, case.networks, case.kept)
      if step == start + _WARM - 1:
        jax.block_until_ready((state, metrics))
        since = time.perf_counter()
  jax.block_until_ready((state, metrics))
  spent = time.perf_counter() - since
  stats = jax.devices()[0].memory_stats() or {}
  found = _busy(lambda state: compiled(state, rig, sent, case.networks, case.kept)[0], state) if _BUSY.value else {}
  return {
    "ms": round(1e3 * spent / _STEPS.value, 3),
    **found,
    "compile_s": round(seconds, 1),
    "scratch_mib": round(memory.temp_size_in_bytes / _MIB, 1) if memory is not None else float("nan"),
    "peak_mib_so_far": round(stats.get("peak_bytes_in_use", 0) / _MIB, 1),
  }


def _busy(advance: Callable[[PyTree], PyTree], state: PyTree) -> dict[str, Any]:
  """The GPU's time in a step; the same batch again and again."""
  held = [state]

  def call(_: int) -> None:
    held[0] = jax.block_until_ready(advance(held[0]))

  found = busy(call)
  longest = {name[:60]: round(1e3 * ms, 1) for name, ms in list(found.kernels.items())[:16]}
  return {"busy_ms": round(found.ms, 3), "launches": found.launches, "kernels_us": longest}


def _mib(tree: PyTree) -> float:
  return round(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / _MIB, 1)


if __name__ == "__main__":
  app.run(main)
