"""Kill the demo with SIGKILL at random moments; run it again; it must end with the same result, bit for bit
-> experiments/results/resume_drill.json.

A reduced demo (60 studio frames, 96 px) is run to its end once. Then, for every kill: start in an empty folder (after tracking: in
one that holds the tracked dataset), kill, run again to the end, compare tracked dataset, checkpoint and scores with those of the straight
run. Moments: of every four, two are anywhere in the run's time, one is within a checkpoint's write, one within the evaluation.

python -m experiments.resume_drill --kills=20
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from experiments.record import write_record
from silky_jax.studio.dataset import StudioConfig, film
from silky_jax.studio.motion import MotionConfig
from silky_jax.studio.scene import SceneConfig
from silky_jax.training.checkpoint import restore

_ROOT = Path(__file__).resolve().parents[1]
_EVALUATION = 3.0  # s from its beginning; with everything compiled it takes 12, so a kill cannot come after it
KINDS = ("any time", "checkpoint", "any time", "evaluation")


def make_clip(folder: Path, *, frames: int = 60, seed: int = 0) -> Path:
  """A studio video of somebody who talks and sways, without the hard turn: the end of so short a clip is like its beginning."""
  scene = SceneConfig(frames=frames, resolution=192, motion=MotionConfig(turn=0.0))
  film(folder, StudioConfig(seed=seed, scene=scene, texture_size=512, supersampling=2))
  return folder / "video.mp4"


def demo_command(clip: Path, output: Path, *, steps: int = 120, uv_size: int = 48) -> list[str]:
  """The reduced demo as a command line."""
  settings = {"steps": steps, "model.uv_size": uv_size, "loop.sample_every": 0, "loop.checkpoint_every": 30, "loop.log_every": 10}
  words = [f"--config.{key}={value}" for key, value in settings.items()]
  return [sys.executable, "run.py", "demo", f"--clip={clip}", f"--output_dir={output}", "--resolution=96", *words]


def run(command: list[str]) -> None:
  """To its end.

  Raises:
    RuntimeError: it failed; what it said is in the message.
  """
  done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
  if done.returncode:
    raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def run_and_kill(command: list[str], output: Path, kind: str, seconds: float, rng: np.random.Generator) -> dict[str, object]:
  """Start, and SIGKILL: after a share of `seconds` ("any time"), or in a checkpoint's write, or in the evaluation.

  Returns:
    "after_seconds", and "during": the stage that was under way.
  """
  begun = time.perf_counter()
  with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
    if kind == "any time":
      moment = begun + rng.uniform(0.05, 0.95) * seconds
      _wait(process, lambda: time.perf_counter() > moment, seconds)
    elif kind == "checkpoint":
      _wait(process, _Writes(output, int(rng.integers(1, 4))), seconds * 4)
      time.sleep(rng.uniform(0, 0.01))
    else:
      _wait(process, (output / "stages" / "eval.started.json").exists, seconds * 4)
      time.sleep(rng.uniform(0, _EVALUATION))
    stage = _under_way(output)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
  return {"kind": kind, "during": stage, "after_seconds": round(time.perf_counter() - begun, 2), "was_running": alive}


class _Writes:
  """Whether a run has begun to write its n-th checkpoint."""

  def __init__(self, output: Path, wanted: int):
    self.output, self.wanted, self.seen = output, wanted, set()

  def __call__(self) -> bool:
    self.seen |= {path.name for path in _unfinished(self.output)}
    return len(self.seen) >= self.wanted


def _wait(process: subprocess.Popen, reached, most: float) -> None:
  end = time.perf_counter() + most
  while not reached() and process.poll() is None and time.perf_counter() < end:
    time.sleep(0.001)


def _unfinished(output: Path) -> list[Path]:
  return list((output / "train" / "checkpoints").glob("*orbax-checkpoint-tmp*"))


def _under_way(output: Path) -> str:
  if _unfinished(output):
    return "a checkpoint's write"
  started = [*output.glob("stages/*.started.json"), *output.glob("data/stages/*.started.json")]
  return ", ".join(sorted(p.name.split(".")[0] for p in started)) or "between stages"


def digest(output: Path) -> dict[str, str]:
  """What a run has come to: hashes of the tracked dataset, of every array of the newest checkpoint, and of the scores."""
  found = {}
  with np.load(output / "data" / "frames.npz") as arrays:
    found["tracked parameters"] = _hash(*(arrays[key] for key in sorted(arrays.files)))
  for folder in ("images", "masks", "parts"):
    found[folder] = _hash(*(np.frombuffer(p.read_bytes(), np.uint8) for p in sorted((output / "data" / folder).iterdir())))
  _, state = restore(output / "train")
  found["checkpoint"] = _hash(*(np.asarray(leaf) for leaf in jax.tree.leaves(state)))
  metrics = json.loads((output / "metrics.json").read_text())
  scores = {key: value for key, value in metrics.items() if key not in ("seconds", "peak_memory_bytes")}
  found["scores"] = hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
  return found


def _hash(*arrays: np.ndarray) -> str:
  total = hashlib.sha256()
  for array in arrays:
    total.update(str((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
  return total.hexdigest()


def main(argv: list[str]) -> None:
  del argv
  values = flags.FLAGS
  work, rng = Path(values.work_dir), np.random.default_rng(values.seed)
  clip = work / "film" / "video.mp4"
  if not clip.exists():
    make_clip(work / "film")
  straight, broken = work / "straight", work / "broken"
  shutil.rmtree(straight, ignore_errors=True)
  run(demo_command(clip, straight))  # fills the cache of compiled programs
  shutil.rmtree(straight)
  begun = time.perf_counter()
  run(demo_command(clip, straight))
  seconds, wanted = time.perf_counter() - begun, digest(straight)
  kills = []
  for number in range(values.kills):
    shutil.rmtree(broken, ignore_errors=True)
    kind = KINDS[number % len(KINDS)]
    if kind != "any time":  # tracked already: nothing of it is under way then
      for folder in ("data", "stages"):
        shutil.copytree(straight / folder, broken / folder)
      for stamp in (broken / "stages").glob("*.json"):
        if stamp.stem not in ("demo", "seconds"):
          stamp.unlink()
    kill = run_and_kill(demo_command(clip, broken), broken, kind, seconds, rng)
    run(demo_command(clip, broken))
    found = digest(broken)
    kill["differing"] = [key for key in wanted if found[key] != wanted[key]]
    kills.append(kill)
    print(number + 1, kill, flush=True)
  same = sum(not kill["differing"] for kill in kills)
  record = {"what": "kills of a reduced demo", "straight_seconds": seconds, "kills": len(kills), "same_result": same, "each": kills}
  write_record(
    values.json, record, command=f"python -m experiments.resume_drill --kills={values.kills}", packages=("jax", "orbax-checkpoint")
  )
  print(f"{same} of {len(kills)} reruns ended with the same result")


if __name__ == "__main__":
  flags.DEFINE_integer("kills", 20, "How many.")
  flags.DEFINE_integer("seed", 0, "Of the moments.")
  flags.DEFINE_string("work_dir", "runs/resume_drill", "Clip and runs.")
  flags.DEFINE_string("json", "experiments/results/resume_drill.json", "Where the figures go.")
  app.run(main)
