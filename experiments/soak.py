"""Do the two terms ever make a number that is none? Runs from random seeds, both at ten times their weight: results/soak.json.

python -m experiments.soak
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from experiments.record import write_record
from silky_jax import cli
from silky_jax.flame import open_head
from silky_jax.heap import keep_freed_memory
from silky_jax.training.experiment import ExperimentConfig
from silky_jax.training.loop import train
from silky_jax.training.metrics import JsonLines
from silky_jax.training.synthetic import synthetic_sequence

_JSON = flags.DEFINE_string("json", "experiments/results/soak.json", "Where the figures go.")
_STEPS = flags.DEFINE_integer("steps", 2000, "Of each run.")
_SEEDS = flags.DEFINE_list("seeds", None, "Instead of five random ones.")
_TIMES = 10.0


def _config(seed: int) -> ExperimentConfig:
  config = ExperimentConfig.from_dict(cli.load_config("configs/silky.py:demo").to_dict())
  own = {
    name: dataclasses.replace(term, weight=_TIMES * term.weight, start=0.0, ramp=0.0) if name in ("physics", "transport") else term
    for name, term in config.losses.regularizers.items()
  }
  return dataclasses.replace(
    config,
    seed=seed,
    steps=_STEPS.value,
    model=dataclasses.replace(config.model, uv_size=48, width=64),
    losses=dataclasses.replace(config.losses, regularizers=own, perceptual=dataclasses.replace(config.losses.perceptual, weight=0.0)),
    loop=dataclasses.replace(config.loop, log_every=1, sample_every=0, shares_every=0, checkpoint_every=_STEPS.value),
  )


def _one(seed: int) -> dict[str, Any]:
  rig = open_head.load()[0]
  with tempfile.TemporaryDirectory() as folder:
    trained = train(_config(seed), synthetic_sequence(rig, frames=60, size=64), rig, folder)
    steps = [record for record in JsonLines.read(Path(folder) / "metrics.jsonl") if "event" not in record]
  broken = sum(value is None for record in steps for value in record.values())  # what JSON cannot hold is written as null
  return {
    "seed": seed,
    "steps": len(steps),
    "gaussians": int(np.sum(trained.state.variables.buffers["alive"])),
    "values_looked_at": sum(len(record) for record in steps),
    "not_finite": broken + sum(int(np.sum(~np.isfinite(leaf))) for leaf in jax.tree.leaves(trained.state) if leaf.dtype.kind == "f"),
    "steps_skipped": float(sum(record["skipped"] for record in steps)),
    "unsolved": float(sum(record["transport_unsolved"] for record in steps)),
    "last": {key: steps[-1][key] for key in ("loss", "psnr", "physics", "transport")},
  }


def main(_: list[str]) -> None:
  """Run and count."""
  logging.set_verbosity(logging.WARNING)
  keep_freed_memory()
  seeds = [int(s) for s in _SEEDS.value] if _SEEDS.value else np.random.SeedSequence().generate_state(5).tolist()
  rows = []
  for seed in seeds:
    rows.append(_one(seed))
    print(rows[-1], flush=True)
  content = {"weights": f"{_TIMES:g} x the demo's, from step 0", "rows": rows}
  write_record(_JSON.value, content, command="python -m experiments.soak", packages=("jax", "ott-jax"))


if __name__ == "__main__":
  app.run(main)
