"""`eval`: score an avatar on a dataset by the demo protocol and keep what a report shows of it."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.apps.player import Player, resting, stance
from silky_jax.config import UserError, output_folder
from silky_jax.data.clips import Sequence
from silky_jax.evaluation import follow, protocol, views
from silky_jax.evaluation.playback import driving
from silky_jax.evaluation.scores import Perceptual
from silky_jax.losses import perceptual
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.tracking.landmarks import detect

__all__ = ["VIEW_SIZE", "evaluate", "load_heldout", "lpips_networks", "peak_memory_bytes", "write_metrics"]

VIEW_SIZE = 320  # px, side of the six views


def evaluate(
  player: Player,
  sequence: Sequence,
  output_dir: Path | str,
  *,
  config: protocol.EvalConfig | None = None,
  say: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Score an avatar; write `metrics.json` and `evaluation/{heldout.npz, curves.json}`.

  Args:
    player: the avatar.
    sequence: the dataset it was trained on, with its held-out splits.
    output_dir: made where missing.
    config: how to score.
    say: prints a line.

  Returns:
    What `metrics.json` holds.

  Raises:
    UserError: the folder cannot be written, or the landmark model is not installed.
  """
  begun = time.perf_counter()
  config = config or protocol.EvalConfig()
  folder = output_folder(Path(output_dir) / "evaluation")
  seen = lambda frames: player.render(player.own(frames))
  found = protocol.evaluate(seen, sequence, player.background, lpips=lpips_networks(), config=config, say=say)
  curves = _follow(found, sequence, config)
  moment = resting(sequence)
  where = stance(player, sequence, moment)
  around = views.evaluate_views(
    player.render, moment, player.silhouette, where.centre, distance=where.distance, focal=where.focal * VIEW_SIZE, size=VIEW_SIZE
  )
  metrics: dict[str, Any] = dict(found.metrics)
  metrics["expression_follow"] = follow.summary(curves)
  metrics["views"] = around.metrics
  metrics["facts"] = player.facts() | _facts(sequence, found)
  _write_arrays(folder / "heldout.npz", found, around)
  _write_curves(folder / "curves.json", found, curves)
  metrics["seconds"] = {"eval": time.perf_counter() - begun}
  metrics["peak_memory_bytes"] = peak_memory_bytes()
  write_metrics(Path(output_dir), metrics)
  return metrics


def lpips_networks() -> dict[str, Perceptual]:
  """LPIPS with both nets, jitted, weights as arguments."""
  compiled = jax.jit(perceptual.lpips)
  nets = {"alex": jax.device_put(perceptual.load("alexnet")), "vgg": jax.device_put(perceptual.load("vgg16"))}
  return {name: lambda a, b, weights=weights: compiled(weights, a, b) for name, weights in nets.items()}


def _follow(found: protocol.Evaluation, sequence: Sequence, config: protocol.EvalConfig) -> dict[str, follow.Curves]:
  curves = {}
  for split, indices in found.indices.items():
    if len(indices):
      photos = protocol.read_truth(sequence, indices, config.resolution).image
      curves[split] = follow.follow(found.renders[split], photos, indices, detect)
  return curves


def _facts(sequence: Sequence, found: protocol.Evaluation) -> dict[str, Any]:
  train = np.asarray(sequence.splits["train"])
  video = getattr(sequence, "header", {}).get("video", {})  # what a dataset on disk knows of its source
  pose = jnp.asarray(driving(sequence.frames(train)).pose)
  turn = np.asarray(matrix_from_axis_angle(pose[:, 0])) @ np.asarray(matrix_from_axis_angle(pose[:, 1]))
  to_camera = turn[:, 2, :]  # the camera sits towards +z of the world: that direction in the head's axes
  yaw, pitch = np.degrees(np.arctan2(to_camera[:, 0], to_camera[:, 2])), np.degrees(np.arcsin(np.clip(to_camera[:, 1], -1, 1)))
  facts = {
    "clip": video.get("name", "one video"),
    "clip_size": f"{video['width']}x{video['height']}" if video else None,
    "data_resolution": sequence.size[0],
    "frames": {name: len(value) for name, value in sequence.splits.items()} | {"scored": sum(len(i) for i in found.indices.values())},
    "train_yaw_degrees": [float(yaw.min()), float(yaw.max())],
    "train_pitch_degrees": [float(pitch.min()), float(pitch.max())],
  }
  ranked = [(float(psnr.min()), split, int(found.indices[split][psnr.argmin()])) for split, psnr in found.psnr.items() if len(psnr)]
  if ranked:
    psnr, split, index = min(ranked)
    facts["worst"] = {"split": split, "index": index, "psnr": psnr}
  return facts


def _write_arrays(path: Path, found: protocol.Evaluation, around: views.Views) -> None:
  arrays = {f"{kind}.{split}": value for kind in ("renders", "indices", "psnr") for split, value in getattr(found, kind).items()}
  part = path.with_name(f".{path.name}.part")
  with part.open("wb") as file:
    np.savez_compressed(file, views=around.images, **arrays)
  os.replace(part, path)


def load_heldout(output_dir: Path | str) -> dict[str, np.ndarray]:
  """What `evaluate` kept: "renders.SPLIT" [t, h, w, 3] bytes, "indices.SPLIT", "psnr.SPLIT", and "views" [6, h, w, 3].

  Raises:
    UserError: there is no evaluation in the folder.
  """
  path = Path(output_dir) / "evaluation" / "heldout.npz"
  try:
    with np.load(path) as data:
      return {key: data[key] for key in data.files}
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path}: wanted the pictures of an evaluation, found none ({error}); run `eval` with this --output_dir first"
    ) from error


def _write_curves(path: Path, found: protocol.Evaluation, curves: dict[str, follow.Curves]) -> None:
  clean = lambda values: [float(v) if np.isfinite(v) else None for v in values]
  keys = ("lips_truth", "lips_avatar", "lids_truth", "lids_avatar")
  content = {
    "psnr": {split: clean(values) for split, values in found.psnr.items()},
    "indices": {split: values.tolist() for split, values in found.indices.items()},
    "follow": {split: {key: clean(getattr(curve, key)) for key in keys} for split, curve in curves.items()},
  }
  path.write_text(json.dumps(content))


def write_metrics(output_dir: Path, metrics: dict[str, Any]) -> Path:
  """Write `metrics.json`, whole or not at all; a number that is not finite is an error, not a wrong file."""
  path, part = output_dir / "metrics.json", output_dir / ".metrics.json.part"
  part.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
  os.replace(part, path)
  return path


def peak_memory_bytes() -> int:
  """Largest resident memory of this process so far.

  Not its children's: all work is done here, and a child that is a compiler asked for its version counts, for the system, as large as
  this process was when it started it.
  """
  unit = 1 if sys.platform == "darwin" else 1024
  return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
