"""Does the physics do what its name says? Every setting at several seeds, on known truth, beside controls -> results/ablate_physics.json.

A made-up person on film, driven by parameters with a tracker's errors in three sizes, and the demo clip. `ablation_cases.py` lists the
cases, `ablation_measures.py` says what is measured. The seeds of a case are trained side by side (`training/together.py`); cases run in
processes of their own, several at a time, and what is done is not done again.

python -m experiments.ablate_physics --work_dir=runs/ablate_physics --demo_data=runs/demo/data --jobs=4
"""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from experiments.ablation_cases import CASES, Case, experiment_of
from experiments.ablation_drivers import WAYS, drive
from experiments.ablation_measures import measure_motion, measure_pictures, pictures
from experiments.ablation_summary import summary
from experiments.record import write_record
from silky_jax.apps.player import find_rig
from silky_jax.data.formats import native
from silky_jax.heap import keep_freed_memory
from silky_jax.studio.dataset import StudioConfig, Truth, film, read_truth
from silky_jax.studio.noise import disturb
from silky_jax.studio.scene import SceneConfig
from silky_jax.training.experiment import build
from silky_jax.training.together import train_together

_WORK = flags.DEFINE_string("work_dir", "runs/ablate_physics", "Film and rows; what is there is used again.")
_JSON = flags.DEFINE_string("json", "experiments/results/ablate_physics.json", "Where the figures go.")
_DEMO = flags.DEFINE_string("demo_data", "runs/demo/data", "The demo clip's dataset; without one its cases are left out, and named.")
_FRAMES = flags.DEFINE_integer("frames", 300, "Length of the film.")
_SIZE = flags.DEFINE_integer("size", 192, "Side of its pictures, px.")
_STEPS = flags.DEFINE_integer("steps", 2000, "Of each run.")
_UV = flags.DEFINE_integer("uv_size", 80, "Texels per side of the atlas; a multiple of 16.")
_WIDTH = flags.DEFINE_integer("width", 64, "Hidden units of the network.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.")
_CASES = flags.DEFINE_string("cases", "", "Only cases in whose name this regular expression is found.")
_DRIVEN = flags.DEFINE_list("ways", [], "How held-out frames are driven, in every case; empty takes each case's own ways.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Cases at a time.", lower_bound=1)
_GPUS = flags.DEFINE_list("gpus", [], "Numbers of the GPUs that cases take in turn; empty leaves that to JAX.")
_MINUTES = flags.DEFINE_float("minutes", 1e9, "Begin no case after this.")
_CASE = flags.DEFINE_string("case", "", "internal: do this one and write its row.")


def _settings() -> dict[str, Any]:
  names = {"frames": _FRAMES, "size": _SIZE, "steps": _STEPS, "uv_size": _UV, "width": _WIDTH}
  return {**{name: flag.value for name, flag in names.items()}, "seeds": [int(seed) for seed in _SEEDS.value]}


def _row_path(name: str) -> Path:
  return Path(_WORK.value) / "rows" / f"{re.sub('[^a-z0-9.]+', '_', name.lower())}.json"


def _recipe(case: Case) -> str:
  """Tells a row of an earlier recipe from one of this."""
  experiment = experiment_of(case, steps=_STEPS.value, uv_size=_UV.value, width=_WIDTH.value)
  return hashlib.sha256(json.dumps(experiment.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def _load(case: Case) -> tuple[native.NativeSequence, tuple[Truth, native.NativeSequence] | None]:
  """The film, driven as a tracker would have it; the truth, and the film driven by it."""
  if case.film == "demo":
    return native.read(_DEMO.value), None
  data = Path(_WORK.value) / "film"
  sequence, truth = native.read(data), read_truth(data)
  keys = ("expression", "pose", "eyelids", "translation")
  rig = find_rig(sequence.rig_name, sequence.rig_hash)
  driven = disturb({key: truth.parameters[key] for key in keys}, rig.expression_names, level=case.noise, fps=sequence.fps, seed=0)
  return dataclasses.replace(sequence, arrays=sequence.arrays | driven), (truth, sequence)


def _one(name: str) -> None:
  case = CASES[name]
  experiment = experiment_of(case, steps=_STEPS.value, uv_size=_UV.value, width=_WIDTH.value)
  sequence, truth = _load(case)
  usual = WAYS if case.swept else ("tracked", "calm", "smooth")
  ways = {way: drive(sequence, way) for way in WAYS if way == case.drivers or way in (_DRIVEN.value or usual)}
  rig = jax.device_put(find_rig(sequence.rig_name, sequence.rig_hash))
  seeds = [int(seed) for seed in _SEEDS.value]
  made = train_together(experiment, ways[case.drivers], rig, seeds)
  avatar, settings = build(experiment).avatar, made.experiment.step_config(made.experiment.stages[-1], made.capacity).render
  first = jax.tree.map(lambda leaf: leaf[0], made.states.variables)
  if case.filmed:
    made_of = pictures(avatar, first, rig, ways[case.filmed], settings, experiment.background)
    where = Path(_WORK.value) / "pictures"
    where.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(where / f"{_row_path(name).stem}.npz", pictures=made_of)
  runs = []
  for place, seed in enumerate(seeds):
    variables = jax.tree.map(lambda leaf, place=place: leaf[place], made.states.variables)
    found: dict[str, Any] = {}
    for way, driven in ways.items():
      own = measure_pictures(avatar, variables, rig, driven, settings, experiment.background)
      own |= measure_motion(avatar, variables, rig, driven, truth, training=way == case.drivers)
      plain = lambda key, way=way: way == "tracked" or key.startswith("train.")
      found |= {key if plain(key) else f"{way}: {key}": value for key, value in own.items()}
    runs.append({
      "seed": seed,
      **found,
      "not_finite": sum(int(np.sum(~np.isfinite(leaf))) for leaf in jax.tree.leaves(variables.params)),
      "skipped": _STEPS.value * float(np.mean([row["skipped"][place] for row in made.metrics])),  # calls are equally long
    })  # fmt: skip
  row = {
    "case": name,
    "settings": _settings(),
    "recipe": _recipe(case),
    "train_s": round(made.seconds, 1),
    "compile_s": [round(s, 1) for s in made.compiled],
  }
  row |= {"drivers": case.drivers, "device": jax.devices()[0].device_kind, "runs": runs}
  path = _row_path(name)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(".part")
  part.write_text(json.dumps(row, indent=1) + "\n")
  part.rename(path)
  print(json.dumps({key: value for key, value in row.items() if key != "settings"}), flush=True)


def _rows() -> Iterator[dict[str, Any]]:
  """What is done with these settings and this recipe."""
  for name, case in CASES.items():
    if _row_path(name).exists():
      row = json.loads(_row_path(name).read_text())
      if row["settings"] == _settings() and row.get("recipe") == _recipe(case):
        yield row


def _do(names: list[str]) -> dict[str, str]:
  """Run cases, some at a time; how those that failed ended."""
  until, left = time.perf_counter() + 60 * _MINUTES.value, list(names)
  running: dict[str, tuple[subprocess.Popen, str]] = {}
  failed: dict[str, str] = {}
  passed = [word for word in sys.argv[1:] if not word.startswith(("--cases", "--jobs", "--minutes", "--json", "--gpus"))]
  logs = Path(_WORK.value) / "logs"
  logs.mkdir(parents=True, exist_ok=True)
  while left or running:
    while left and len(running) < _JOBS.value and time.perf_counter() < until:
      name = left.pop(0)
      log = open(logs / f"{_row_path(name).stem}.log", "w")  # noqa: SIM115 - the child writes it
      command = [sys.executable, "-m", "experiments.ablate_physics", *passed, f"--case={name}"]
      taken = [gpu for _, gpu in running.values()]
      gpu = min(_GPUS.value, key=taken.count, default="")
      where = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(Path(_WORK.value).resolve() / "programs")}  # cases share most of theirs
      where |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
      running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=where), gpu
    time.sleep(0.2)
    for name, (process, _) in list(running.items()):
      if (code := process.poll()) is not None:
        del running[name]
        print(f"{name}: {'done' if not code else f'failed ({code})'}; {len(left)} to begin, {len(running)} running", flush=True)
        if code:
          failed[name] = f"ended with {code}, see its log"
    if time.perf_counter() > until:
      failed |= dict.fromkeys(left, "not begun: the time was up")
      left = []
  return failed


def main(_: list[str]) -> None:
  """Film, run the cases, gather."""
  logging.set_verbosity(logging.WARNING)
  keep_freed_memory()
  if _CASE.value:
    _one(_CASE.value)
    return
  data = Path(_WORK.value) / "film"
  if not (data / "dataset.json").exists():
    film(data, StudioConfig(seed=0, scene=SceneConfig(frames=_FRAMES.value, resolution=_SIZE.value), noise_level=0.0, video=False))
  wanted = [name for name in CASES if re.search(_CASES.value, name)]
  missing = {}
  if not (Path(_DEMO.value) / "dataset.json").exists():
    missing = {name: f"no dataset in --demo_data {_DEMO.value}" for name in wanted if CASES[name].film == "demo"}
  done = {row["case"] for row in _rows()}
  missing |= _do([name for name in wanted if name not in done and name not in missing])
  rows = list(_rows())
  content = {**_settings(), "summary": summary(rows), "rows": rows, "missing": missing}
  write_record(_JSON.value, content, command="python -m experiments.ablate_physics", packages=("jax", "ott-jax"))
  print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
  app.run(main)
