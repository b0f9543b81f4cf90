"""Everything that is measured on a GPU, one after the other, each in a process of its own: JSON files and logs into a folder.

    python -m experiments.gpu_all --output_dir=/tmp/figures --demo_data=runs/demo/data
    python -m experiments.gpu_all --output_dir=/tmp/figures --only=suite,steps

`gsplat` and `avatar` want gsplat and PyTorch; `gsplat` and `steps` look at what full_studio left. What fails does not stop the rest; the
last line says what did. Copy the JSON files to experiments/results/, then `python -m experiments.gpu_page`. The runs of the full training
stay in WORK_DIR; `runs.tgz` has what `run.py eval` and `render` want of them.
"""

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from absl import app, flags

_OUT = flags.DEFINE_string("output_dir", None, "Folder of the JSON files and logs.", required=True)
_WORK = flags.DEFINE_string("work_dir", "runs/gpu", "Folder of datasets and runs.")
_DEMO = flags.DEFINE_string(
  "demo_data", "runs/demo/data", "The demo clip's dataset (`run.py demo` makes it); without one there is no full_demo."
)
_ONLY = flags.DEFINE_list("only", [], "Which of them; all when empty.")
_STEPS = flags.DEFINE_integer("steps", 30_000, "Of the full training.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", 5, "Cases of the ablation at a time: compiling is most of a case, and CPU work.")
_MINUTES = flags.DEFINE_float("minutes", 9.0, "After which a measurement is ended.")


def _tasks(out: Path, work: Path) -> dict[str, list[str]]:
  """Name -> module and flags."""
  full = ["experiments.full_training", f"--config.steps={_STEPS.value}"]
  speed = ["experiments.train_speed", f"--data_dir={work}/full_studio/data", "--config=configs/silky.py:full", "--before=200", "--busy"]
  tasks = {
    "suite": ["experiments.gpu_suite", f"--output={out}/gpu_suite.json"],
    "full_studio": [*full, f"--work_dir={work}/full_studio", f"--json={out}/full_studio_h200.json"],
    "full_demo": [*full, f"--data_dir={_DEMO.value}", f"--work_dir={work}/full_demo", f"--json={out}/full_demo_h200.json"],
    "gsplat": ["experiments.bench_gsplat", f"--output={out}/rasterize_h200.json", f"--gaussians={work}/full_studio/gaussians.npz"],
    "avatar": ["experiments.bench_avatar", f"--output={out}/avatar_h200.json"],
    "steps": [*speed, f"--json={out}/train_speed_h200.json"],
    "ablation": [
      *("experiments.ablate_physics", f"--work_dir={work}/ablate_physics", f"--demo_data={_DEMO.value}"),
      *(f"--json={out}/ablate_physics.json", f"--jobs={_JOBS.value}", f"--minutes={_MINUTES.value - 1}"),
    ],
    "steps_ott": [*speed, "--lpips=", "--config.model.transport.solver=ott", f"--json={out}/train_speed_ott_h200.json"],
  }
  if not (Path(_DEMO.value) / "dataset.json").exists():
    del tasks["full_demo"]
  return tasks


def main(_: list[str]) -> None:
  """Command line."""
  out, work = Path(_OUT.value).resolve(), Path(_WORK.value).resolve()
  out.mkdir(parents=True, exist_ok=True)
  tasks = _tasks(out, work)
  if unknown := set(_ONLY.value) - set(tasks):
    raise SystemExit(f"only: expected some of {list(tasks)}, got {sorted(unknown)}; full_demo wants --demo_data")
  ended: dict[str, str] = {}
  for name in _ONLY.value or tasks:
    begun = time.perf_counter()
    with open(out / f"{name}.log", "w") as log:
      try:
        code = subprocess.run(
          [sys.executable, "-m", *tasks[name]], stdout=log, stderr=log, timeout=60 * _MINUTES.value, check=False
        ).returncode
      except subprocess.TimeoutExpired:
        code = -1
    ended[name] = f"{'done' if not code else 'ended' if code < 0 else f'failed ({code})'} after {time.perf_counter() - begun:.0f} s"
    print(f"{name}: {ended[name]}", flush=True)
    (out / "ended.json").write_text(json.dumps(ended, indent=1) + "\n")
  _pack(out, work)


def _pack(out: Path, work: Path) -> None:
  """The newest checkpoint of each run, its config and its log."""
  with tarfile.open(out / "runs.tgz", "w:gz") as archive:
    for run in sorted(path.parent for path in work.glob("*/train/config.json")):
      steps = sorted((path for path in (run / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
      for path in (run / "config.json", run / "metrics.jsonl", *steps[-1:]):
        archive.add(path, arcname=str(path.relative_to(work)))


if __name__ == "__main__":
  app.run(main)
