"""Does each of the flagship's two terms move what it should? A first ablation -> experiments/results/ablation.json.

A made-up person on film, whose driving parameters are as noisy as a tracker's; silky with neither term, either, or both; two seeds. Of each
run: scores on held-out frames, and, over frames in a row that it was driven by,

  jerk_mm       root mean square third difference of what the model adds to the mesh (mm per frame^3): what the physics term is about
  flicker       mean affine-invariant distance of a covariance from itself a frame before, in the surface's axes
  slip_mm       root mean square distance of Gaussians from where the mesh has them (hair: from its rest place)
  group_mm      mean over groups of sqrt(2 S), S the balanced Sinkhorn divergence from the anchors: what transport is about
  crack         mean squared difference of offsets across borders of groups, in spacings^2

python -m experiments.first_ablation --work_dir=runs/ablation
"""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from experiments.record import write_record
from silky_jax import cli
from silky_jax.apps.player import find_rig, open_avatar
from silky_jax.data.clips import load_drivers
from silky_jax.data.formats import native
from silky_jax.evaluation import protocol
from silky_jax.heap import keep_freed_memory
from silky_jax.math import spd
from silky_jax.math.rotation import matrix_from_quaternion
from silky_jax.models.avatar import make
from silky_jax.models.silky.anatomy import anatomy_of
from silky_jax.ot.elasticity import border_continuity
from silky_jax.ot.groups import sample
from silky_jax.ot.sinkhorn import sinkhorn_divergence
from silky_jax.studio.dataset import StudioConfig, film
from silky_jax.studio.scene import SceneConfig
from silky_jax.training.checkpoint import restore_run
from silky_jax.training.experiment import ExperimentConfig
from silky_jax.training.loop import train

_WORK = flags.DEFINE_string("work_dir", "runs/ablation", "Film and runs; what is there is used again.")
_JSON = flags.DEFINE_string("json", "experiments/results/ablation.json", "Where the figures go; runs of other seeds in it are kept.")
_FRAMES = flags.DEFINE_integer("frames", 240, "Length of the film.")
_SIZE = flags.DEFINE_integer("size", 128, "Side of the pictures, px.")
_NOISE = flags.DEFINE_float("noise", 1.0, "Level of the noise.")
_STEPS = flags.DEFINE_integer("steps", 2000, "Of each run.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1"], "Of the runs.")
_CASES = flags.DEFINE_list("cases", ["none", "physics", "transport", "both"], "Which.")
_KEPT = {"none": (), "physics": ("physics",), "transport": ("transport",), "both": ("physics", "transport")}


def _config(case: str, seed: int) -> ExperimentConfig:
  """The demo's recipe, smaller."""
  config = ExperimentConfig.from_dict(cli.load_config("configs/silky.py:demo").to_dict())
  own = {
    name: dataclasses.replace(term, weight=0.0) if name in ("physics", "transport") and name not in _KEPT[case] else term
    for name, term in config.losses.regularizers.items()
  }
  return dataclasses.replace(
    config,
    seed=seed,
    steps=_STEPS.value,
    model=dataclasses.replace(config.model, uv_size=80, width=64),
    losses=dataclasses.replace(config.losses, regularizers=own),
    loop=dataclasses.replace(config.loop, sample_every=0, checkpoint_every=_STEPS.value, shares_every=_STEPS.value // 2),
  )


def _settings() -> dict[str, Any]:
  config = _config("both", 0)
  terms = {name: dataclasses.asdict(config.losses.regularizers[name]) for name in _KEPT["both"]}
  model = {name: dataclasses.asdict(getattr(config.model, name)) for name in _KEPT["both"]}
  return {"terms": terms, "model": model, "window": config.clips.length, "uv_size": config.model.uv_size, "width": config.model.width}


def measure_motion(run: Path, sequence: native.NativeSequence, count: int = 60) -> dict[str, float]:
  """The figures of motion over `count` frames in a row, driven as given."""
  restored = restore_run(run)
  rig, variables = find_rig(sequence.rig_name, sequence.rig_hash), restored.state.variables
  avatar = make(restored.config.family, restored.config.model)
  frames = load_drivers(sequence, np.arange(count))
  gaussians, aux = jax.jit(lambda v, f: jax.lax.map(lambda frame: avatar.deform(v, rig, frame), f))(variables, frames)
  buffers, local = variables.buffers, 1e3 * aux["local"]
  weight = gaussians.opacities
  mean = lambda x, w: float(jnp.sum(x * w) / jnp.sum(w))
  jerk = local[3:] - 3 * local[2:-1] + 3 * local[1:-2] - local[:-3]
  axes = matrix_from_quaternion(aux["quaternions"]) * (1e3 * jnp.exp(aux["log_deviations"]))[..., None, :]
  shapes = spd.congruence(axes, jnp.eye(3))
  flicker = jax.jit(jax.vmap(spd.distance))(shapes[1:], shapes[:-1])
  held = buffers["transport"]["held"]
  off = local - 1e3 * jnp.where(held[:, None], 0.0, aux["offset"])
  bodies, _, _ = anatomy_of(buffers)
  chosen, there = sample(bodies, 128, jnp.zeros(()))
  anchors = aux["anchors"] + jnp.where(
    held[:, None], 0.0, jnp.sum(matrix_from_quaternion(aux["carried"]) * aux["offset"][:, :, None], axis=-1)
  )

  @jax.jit
  def drift(t):
    masses = (weight[t] * buffers["spacing"] ** 2)[chosen] * there
    middle = jnp.mean(anchors[t][chosen], axis=1, keepdims=True)
    around = lambda x: 1e3 * (x[t][chosen] - middle)
    found = sinkhorn_divergence(around(gaussians.means), masses, around(anchors), masses, threshold=1e-3, max_iterations=2000)
    return jnp.sum(jnp.sqrt(2 * jnp.maximum(found.value, 0)) * found.converged) / jnp.sum(found.converged)

  crack = jax.vmap(lambda u: border_continuity(u, buffers["neighbours"], bodies.groups, jnp.ones(len(bodies.counts)), buffers["spacing"]))
  return {
    "jerk_mm": mean(jnp.sum(jerk**2, axis=-1), weight[3:]) ** 0.5,
    "flicker": mean(flicker, weight[1:]),
    "slip_mm": mean(jnp.sum(off**2, axis=-1), weight) ** 0.5,
    "group_mm": float(np.mean([float(drift(t)) for t in range(0, count, 10)])),
    "crack": float(jnp.mean(crack(1e-3 * off))),
  }


def _one(case: str, seed: int, root: Path) -> dict[str, Any]:
  data, run = root / "film", root / f"{case}_{seed}"
  sequence = native.read(data)
  begun = time.perf_counter()
  train(_config(case, seed), sequence, find_rig(sequence.rig_name, sequence.rig_hash), run)
  seconds = time.perf_counter() - begun
  player = open_avatar(run)
  config = protocol.EvalConfig(resolution=sequence.size[0])
  found = protocol.evaluate(
    lambda frames: player.render(player.own(frames)), sequence, np.full(3, 0.5, np.float32), lpips={}, config=config
  )
  row: dict[str, Any] = {"case": case, "seed": seed, "seconds": round(seconds, 1)}
  for split, scores in found.metrics.items():
    row[f"psnr_{split}"] = scores["avatar"]["psnr"]
    row[f"temporal_psnr_{split}"] = scores["avatar"]["temporal"].get("psnr")
  row |= measure_motion(run, sequence)
  lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  steps = [line for line in lines if "event" not in line]
  row["skipped"] = float(np.sum([line["skipped"] for line in steps]))
  row["unsolved_per_step"] = float(np.mean([line["transport_unsolved"] for line in steps if "transport_unsolved" in line] or [0.0]))
  row["shares"] = {k: v for k, v in next(line for line in reversed(lines) if line.get("event") == "shares").items() if isinstance(v, float)}
  return row


def main(_: list[str]) -> None:
  """Film, train, measure."""
  logging.set_verbosity(logging.WARNING)
  keep_freed_memory()
  root = Path(_WORK.value)
  if not (root / "film" / "dataset.json").exists():
    film(root / "film", StudioConfig(seed=0, scene=SceneConfig(frames=_FRAMES.value, resolution=_SIZE.value), noise_level=_NOISE.value))
  what = {"film": {"frames": _FRAMES.value, "size": _SIZE.value, "noise": _NOISE.value, "seed": 0}, "steps": _STEPS.value}
  before = json.loads(Path(_JSON.value).read_text()) if Path(_JSON.value).exists() else {}
  rows = before.get("rows", []) if all(before.get(key) == value for key, value in what.items()) else []
  for seed in map(int, _SEEDS.value):
    for case in _CASES.value:
      row = _one(case, seed, root)
      print(json.dumps(row), flush=True)
      rows = [r for r in rows if (r["case"], r["seed"]) != (case, seed)] + [row]
      content = {**what, "settings": _settings(), "cpus": len(os.sched_getaffinity(0)), "rows": rows}
      write_record(_JSON.value, content, command="python -m experiments.first_ablation", packages=("jax", "ott-jax"))


if __name__ == "__main__":
  app.run(main)
