"""Silky on the studio: scores on known truth, and what corrections of noisy tracking bring -> experiments/results/studio_scores.json.

Three runs of one person: driven by the truth; by the truth with tracker-like noise; by the same noise with learnable corrections. Each is
scored on held-out frames, which no correction reaches, driven as given (noisy) and by their true parameters. Beside the scores: how far the
driving parameters of training frames are from the truth, before and after.

python -m experiments.studio_scores --work_dir=runs/studio_scores
"""

import dataclasses
import json
from pathlib import Path

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
from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import vertex_mask
from silky_jax.geometry.camera import project
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.models import corrections
from silky_jax.studio.dataset import StudioConfig, Truth, film, read_truth
from silky_jax.studio.scene import SceneConfig
from silky_jax.tracking.judge import rotation_errors
from silky_jax.training.checkpoint import restore_run
from silky_jax.training.experiment import ExperimentConfig
from silky_jax.training.loop import train
from silky_jax.types import Frame

_WORK = flags.DEFINE_string("work_dir", "runs/studio_scores", "Datasets and runs; what is there is used again.")
_JSON = flags.DEFINE_string("json", "experiments/results/studio_scores.json", "Where the figures go.")
_FRAMES = flags.DEFINE_integer("frames", 300, "Length of the film.")
_SIZE = flags.DEFINE_integer("size", 256, "Side of the pictures, px.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the person, the motion and the noise.")
_NOISE = flags.DEFINE_float("noise", 1.0, "Level of the noise.")
_CAMERAS = flags.DEFINE_integer("cameras", 1, "Fixed cameras; with several, their calibration is noisy and corrected too.")
_STEPS = flags.DEFINE_integer("steps", None, "Instead of the demo recipe's.")
_RUNS = flags.DEFINE_list("runs", ["truth", "noise", "corrected"], "Which runs.")
_SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE of the corrected run's corrections, to try settings.")
_DRIVEN = ("expression", "pose", "eyelids", "translation")


def _experiment(corrected: bool) -> ExperimentConfig:
  config = ExperimentConfig.from_dict(cli.load_config("configs/silky.py:demo").to_dict())
  config = dataclasses.replace(config, steps=_STEPS.value or config.steps, loop=dataclasses.replace(config.loop, sample_every=0))
  changes = {key: json.loads(value) for key, _, value in (text.partition("=") for text in _SET.value)}
  changes = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
  if corrected:
    changes = {"enabled": True, "camera": _CAMERAS.value > 1, **changes}
    config = dataclasses.replace(config, corrections=dataclasses.replace(config.corrections, **changes))
  return config


def _truly_driven(sequence: native.NativeSequence, truth: Truth) -> native.NativeSequence:
  views = len(truth.world_to_camera)
  arrays = {key: np.concatenate([np.asarray(truth.parameters[key], np.float32)] * views) for key in _DRIVEN}
  if views > 1:
    arrays |= {key: np.concatenate(list(getattr(truth, key))).astype(np.float32) for key in ("world_to_camera", "intrinsics")}
  return dataclasses.replace(sequence, arrays={**sequence.arrays, **arrays})


def errors(found: Frame, truth: Frame, shape: np.ndarray, offset: np.ndarray) -> dict[str, float]:
  """How far driving parameters are from the truth: means over frames."""
  rig = open_head.load()[0]
  head = np.asarray(vertex_mask(rig, set(rig.region_names) - {"torso", "neck"}))

  @jax.jit
  def places(frame: Frame, still: jax.Array) -> jax.Array:
    def one(expression, pose, eyelids, translation):
      pose = jnp.where(still, pose.at[:2].set(0.0), pose)
      return flame_vertices(rig, shape, expression, pose, eyelids=eyelids, offset=offset)[0] + jnp.where(still, 0.0, translation)

    return jax.lax.map(lambda x: one(*x), tuple(jnp.asarray(getattr(frame, key)) for key in _DRIVEN))

  def off(still: bool) -> float:
    difference = np.asarray(places(found, jnp.asarray(still)) - places(truth, jnp.asarray(still)))[:, head]
    return float(1e3 * np.linalg.norm(difference, axis=-1).mean())

  def pixels(frame: Frame) -> np.ndarray:
    points = places(frame, jnp.asarray(False))[:, head]
    return np.asarray(jax.vmap(lambda p, camera: project(p, camera)[0])(points, jax.tree.map(jnp.asarray, frame.camera)))

  turn = lambda frame: np.asarray(
    matrix_from_axis_angle(jnp.asarray(frame.pose[:, 0])) @ matrix_from_axis_angle(jnp.asarray(frame.pose[:, 1]))
  )
  rms = lambda key, degrees=False: float(
    np.sqrt(np.mean((np.asarray(getattr(found, key)) - np.asarray(getattr(truth, key))) ** 2)) * (np.degrees(1.0) if degrees else 1.0)
  )
  return {
    "head_vertices_px": float(np.linalg.norm(pixels(found) - pixels(truth), axis=-1).mean()),
    "head_vertices_mm": off(False),
    "expression_vertices_mm": off(True),
    "rotation_degrees": float(rotation_errors(turn(found), turn(truth)).mean()),
    "translation_mm": float(1e3 * np.linalg.norm(np.asarray(found.translation) - np.asarray(truth.translation), axis=-1).mean()),
    "jaw_degrees_rms": float(np.degrees(np.sqrt(np.mean((np.asarray(found.pose) - np.asarray(truth.pose))[:, 2, 0] ** 2)))),
    "gaze_degrees_rms": float(np.degrees(np.sqrt(np.mean((np.asarray(found.pose) - np.asarray(truth.pose))[:, 3:, :2] ** 2)))),
    "expression_rms": rms("expression"),
    "eyelids_rms": rms("eyelids"),
  }


def _score(run: Path, sequence: native.NativeSequence, *, own_cameras: bool) -> dict[str, dict[str, float]]:
  """PSNR in the head mask, dB, per split; by the cameras that training found, or by the sequence's."""
  player = open_avatar(run)
  render = (lambda frames: player.render(player.own(frames))) if own_cameras else player.render
  config = protocol.EvalConfig(resolution=sequence.size[0])
  found = protocol.evaluate(render, sequence, np.full(3, 0.5, np.float32), lpips={}, config=config)
  scores = {}
  for split, row in found.metrics.items():
    scores[split] = {name: row[name]["psnr"] for name in ("avatar", "nearest_frame")}
    scores[split] |= {"mouth": row["avatar"]["mouth"].get("psnr"), "frames": row["avatar"]["frames"]}
  return scores


def _one(name: str, root: Path) -> dict[str, object]:
  data, run = root / ("clean" if name == "truth" else "noisy"), root / name
  if not (data / "dataset.json").exists():
    scene = SceneConfig(frames=_FRAMES.value, resolution=_SIZE.value, cameras=_CAMERAS.value)
    film(data, StudioConfig(seed=_SEED.value, scene=scene, noise_level=0.0 if name == "truth" else _NOISE.value))
  sequence, truth = native.read(data), read_truth(data)
  train(_experiment(name == "corrected"), sequence, find_rig(sequence.rig_name, sequence.rig_hash), run)
  variables = restore_run(run).state.variables
  real = _truly_driven(sequence, truth)
  body = (jnp.asarray(sequence.arrays["shape"]), jnp.asarray(sequence.arrays["offset"]))
  out: dict[str, object] = {
    "held_out_as_given": _score(run, sequence, own_cameras=True),
    "held_out_truly_driven": _score(run, real, own_cameras=False),
  }
  for split in ("train", "heldout_tail"):
    frames, exact = (load_drivers(s, np.asarray(s.splits[split])) for s in (sequence, real))
    out[f"off_{split}"] = errors(frames, exact, *body)
    out[f"off_{split}_corrected"] = errors(corrections.correct(variables, frames), exact, *body)
  return out


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)
  root = Path(_WORK.value)
  record = {name: _one(name, root) for name in _RUNS.value}
  print(json.dumps(record, indent=1))
  config = _experiment(True)
  what: dict[str, object] = {
    "film": {"frames": _FRAMES.value, "size": _SIZE.value, "seed": _SEED.value, "noise": _NOISE.value, "cameras": _CAMERAS.value},
    "steps": config.steps,
    "corrections": dataclasses.asdict(config.corrections),
  }
  what["device"] = jax.devices()[0].device_kind
  before = json.loads(Path(_JSON.value).read_text()) if Path(_JSON.value).exists() else {}
  if all(before.get(key) == json.loads(json.dumps(value)) for key, value in what.items()):
    record = {**before["runs"], **record}  # runs done one at a time gather in one file
  write_record(_JSON.value, {**what, "runs": record}, command="python -m experiments.studio_scores", packages=("jax",))


if __name__ == "__main__":
  app.run(main)
