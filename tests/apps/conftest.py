"""A made-up finished run on disk: what the report reads."""

import json

import jax
import numpy as np
import pytest

from silky_jax.apps import figures, player
from silky_jax.data.video import write_video
from silky_jax.flame import open_head
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.models.silky import SilkyConfig
from silky_jax.training.checkpoint import Store, write_config
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.step import create_state
from silky_jax.training.synthetic import synthetic_sequence


def made_up_metrics() -> dict:
  def row(psnr, *, vgg=True):
    return {
      "psnr": psnr,
      "ssim": 0.9,
      "lpips_alex": 1 / psnr,
      "lpips_vgg": 2 / psnr if vgg else None,
      "frames": 3,
      "whole": {"psnr": psnr + 3, "ssim": 0.95, "lpips_alex": 0.9 / psnr},
      "mouth": {"psnr": psnr - 3, "ssim": 0.8},
      "eyes": {"psnr": None, "ssim": None},
      "temporal": {"psnr": psnr + 4, "lpips_alex": 0.1},
      "meta": {"split": "heldout_tail", "mask": "head <and> neck", "lpips_version": "0.1", "background": [1.0, 1.0, 1.0]},
    }

  names = ("avatar", "nearest_frame", "aligned_frame", "truth_shifted_1px", "truth_shifted_2px", "truth_blurred")

  def split(values):
    return {name: row(value, vgg=not name.startswith("truth")) for name, value in zip(names, values, strict=True)}

  follow = {"lips": 0.9, "lids": 0.5, "frames": 5, "of": 6, "avatar_without_face": 1, "measured": "by the landmark model", "splits": {}}
  return {
    "heldout_blocks": {
      name: row(value, vgg=not name.startswith("truth")) for name, value in zip(names, (28, 31, 33, 28, 23, 35), strict=True)
    },
    "heldout_tail": {
      name: row(value, vgg=not name.startswith("truth")) for name, value in zip(names, (26, 21, 29, 27, 22, 34), strict=True)
    },
    "expression_follow": follow,
    "views": {
      "coverage": 0.97,
      "largest_hole": 0.001,
      "measured": "alpha 0.5",
      "views": [
        {"yaw": yaw, "pitch": pitch, "coverage": 0.97, "largest_hole": 0.001} for pitch in (20.0, -20.0) for yaw in (-40.0, 0.0, 40.0)
      ],
    },
    "seconds": {"preprocess": 100.0, "train": 600.0, "eval": 80.0, "render": 30.0},
    "peak_memory_bytes": 3 * 2**30,
    "facts": {
      "clip": "cap13.mp4",
      "gaussians": 14000,
      "train_resolution": 192,
      "steps": 1000,
      "device": "cpu",
      "frames": {"train": 150, "scored": 6},
      "worst": {"split": "heldout_tail", "index": 700, "psnr": 19.5},
      "train_yaw_degrees": [-12.0, 9.0],
      "train_pitch_degrees": [-20.0, 3.0],
      "trained_lpips": "AlexNet",
      "clip_size": "400x300",
    },
  }


@pytest.fixture
def run_dir(tmp_path):
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 255, (3, 48, 48, 3), dtype=np.uint8)
  figures.write_comparison(tmp_path / "heldout.mp4", [(k, p, p // 2) for k, p in enumerate(pictures)], 12)
  write_video(tmp_path / "evaluation" / "sweep.mp4", pictures, 12)
  figures.write_sheet(tmp_path / "evaluation" / "worst.png", [figures.comparison(pictures[0], pictures[1])], 1)
  figures.write_sheet(tmp_path / "evaluation" / "views.png", [pictures[0]] * 6, 3)
  curve = {f"{part}_{who}": [0.1, None, 0.2] for part in ("lips", "lids") for who in ("truth", "avatar")} | {"index": [1, 2, 3]}
  (tmp_path / "evaluation" / "curves.json").write_text(json.dumps({"follow": {"heldout_tail": curve}}))
  (tmp_path / "train").mkdir()
  lines = [json.dumps({"step": step, "loss": 1 / (step + 1), "psnr": 20 + step, "seconds": step}) for step in range(8)]
  lines.insert(0, json.dumps({"event": "compile", "step": 0, "loss": 99.0}))
  (tmp_path / "train" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 8, "lo')
  (tmp_path / "metrics.json").write_text(json.dumps(made_up_metrics()))
  return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
  """A run of no steps: what training would leave on disk, without its compile time."""
  rig = open_head.load()[0]
  sequence = synthetic_sequence(rig, frames=30, size=64)
  root = tmp_path_factory.mktemp("run")
  config = ExperimentConfig(model=SilkyConfig(uv_size=40, residual="none"))
  (root / "train").mkdir()
  write_config(root / "train", config)
  experiment = build(config)
  state = create_state(experiment.avatar.init(jax.random.key(0), rig, sequence.subject), experiment.optimizer, seed=0)
  camera = jax.tree.map(lambda a: a[0], sequence.all_frames.camera)
  store = Store(root / "train")
  store.save(state, family="silky", rig_name=rig.name, rig_hash=rig_hash(rig), capacity=24576, camera=camera, fps=25.0)
  store.close()
  return root, sequence, player.open_avatar(root / "train")
