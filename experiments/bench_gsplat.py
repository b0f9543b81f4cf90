"""gsplat and ours on the same scene, in the same run, on the same GPU: wall time, GPU time, pictures, gradients.

    python -m experiments.bench_gsplat --output experiments/results/rasterize_h200.json

Whole calls, from means, quaternions, deviations, opacities and colours to the picture, and with all their gradients. The scene is a
head-sized shell of Gaussians, seed 0; every repeat shifts the means. gsplat (`rasterization(packed=False, tile_size=16)`, PyTorch) runs in
a process of its own, before ours; both on an otherwise idle GPU.

`*_ms`: median of 30 calls, each waited for, by CUDA events for gsplat and by the clock for ours, whose first tick is before Python's call;
`*_queued_ms`: 50 calls issued back to back, one wait. `*_busy_ms`: sum of the kernels' times (CUPTI, in a pass of its own).
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.gpu_busy import busy

CASES = {  # Gaussians, channels, px
  "14k": (14_000, 3, 512),
  "50k": (50_000, 3, 512),
  "100k": (100_000, 3, 512),
  "200k": (200_000, 3, 512),
  "100k_32": (100_000, 32, 512),
  "100k_1024": (100_000, 3, 1024),
}
_NAMES = ("means", "quaternions", "deviations", "opacities", "colours")
_OUTPUT = flags.DEFINE_string("output", "", "JSON file to write")
_CASES = flags.DEFINE_list("cases", list(CASES), "which scenes")
_GAUSSIANS = flags.DEFINE_string("gaussians", "", "an .npz with the Gaussians of a trained avatar and its camera, as one more scene")
_PEER = flags.DEFINE_string("peer", "", "internal: run gsplat and write its figures into this folder")
_REPEATS, _QUEUED = 30, 50


def head_scene(n: int, channels: int, size: int) -> dict[str, np.ndarray]:
  """The scene of the figures that were known before: a shell of three radii, seen from 3.4 units away, 0.3 rad to the side."""
  rng = np.random.default_rng(0)
  directions = rng.normal(size=(n, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  means = directions * [0.75, 1.0, 0.85] + rng.normal(size=(n, 3)) * 0.03
  deviations = np.sqrt(4 * np.pi * 0.75 / n) * 0.9 * np.exp(rng.normal(size=(n, 3)) * 0.5)
  quaternions = rng.normal(size=(n, 4))
  quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
  opacities = 1 / (1 + np.exp(-(rng.normal(size=n) * 1.5 + 1.0)))
  cosine, sine = np.cos(0.3), np.sin(0.3)
  pose = np.eye(4)
  pose[:3, :3], pose[2, 3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], 3.4
  intrinsics = np.array([[1.1 * size, 0, size / 2], [0, 1.1 * size, size / 2], [0, 0, 1]])
  scene = {"means": means, "quaternions": quaternions, "deviations": deviations, "opacities": opacities}
  scene |= {"colours": rng.uniform(size=(n, channels)), "world_to_camera": pose, "intrinsics": intrinsics}
  return {name: value.astype(np.float32) for name, value in scene.items()} | {"size": np.int32(size)}


def scenes(names: list[str], trained: str) -> dict[str, dict[str, np.ndarray]]:
  """By name, the trained one last."""
  found = {name: head_scene(*CASES[name]) for name in names}
  if trained:
    found["trained"] = dict(np.load(trained))
  return found


def shifts(count: int) -> np.ndarray:
  """What each repeat adds to the means: [count, 3]."""
  return (np.random.default_rng(1).normal(size=(count, 3)) * 1e-3).astype(np.float32)


def cotangent(scene: dict[str, np.ndarray]) -> np.ndarray:
  """Of the picture: [h, w, c]."""
  size = int(scene["size"])
  return np.random.default_rng(2).normal(size=(size, size, scene["colours"].shape[1])).astype(np.float32)


# ---- gsplat


def run_peer(folder: Path, names: list[str], trained: str) -> None:
  """gsplat's figures, pictures and gradients into a folder."""
  import gsplat
  import torch

  rows = []
  for name, scene in scenes(names, trained).items():
    row, arrays = _peer_row(scene)
    rows.append({"scene": name, **row})
    np.savez(folder / f"{name}.npz", **arrays)
    print(json.dumps(rows[-1]), flush=True)
  (folder / "rows.json").write_text(json.dumps({"rows": rows, "gsplat": gsplat.__version__, "torch": torch.__version__}))


def _peer_row(scene: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  import gsplat
  import torch

  size = int(scene["size"])
  given = [torch.tensor(scene[key]).cuda().requires_grad_(True) for key in _NAMES]
  pose, intrinsics = (torch.tensor(scene[key]).cuda()[None] for key in ("world_to_camera", "intrinsics"))
  along, moved = torch.tensor(cotangent(scene)).cuda(), torch.tensor(shifts(_QUEUED)).cuda()

  def draw(i: int) -> Any:
    means, *rest = given
    return gsplat.rasterization(means + moved[i], *rest, pose, intrinsics, size, size, packed=False, tile_size=16)

  def forward(i: int) -> Any:
    with torch.no_grad():
      return draw(i)

  def both(i: int) -> Any:
    for leaf in given:
      leaf.grad = None
    image = draw(i)[0]
    (image[0] * along).sum().backward()
    return image

  _, _, meta = draw(0)
  image = both(0)[0].detach().cpu().numpy()
  arrays = {"image": image, **{k: leaf.grad.cpu().numpy() for k, leaf in zip(_NAMES, given, strict=True)}}
  row: dict[str, Any] = {"pairs": int(meta["tiles_per_gauss"].sum())}
  for label, function in (("forward", forward), ("forward_backward", both)):
    row[f"{label}_ms"], row[f"{label}_queued_ms"] = _torch_times(function)
  for label, function in (("forward", forward), ("forward_backward", both)):
    row[f"{label}_busy_ms"] = busy(lambda i, f=function: (f(i), torch.cuda.synchronize())).ms
  return row, arrays


def _torch_times(function: Callable[[int], Any]) -> tuple[float, float]:
  import torch

  for i in range(8):
    function(i)
  torch.cuda.synchronize()
  spent = []
  for i in range(_REPEATS):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    function(i)
    end.record()
    torch.cuda.synchronize()
    spent.append(begin.elapsed_time(end))
  begun = time.perf_counter()
  for i in range(_QUEUED):
    function(i)
  torch.cuda.synchronize()
  return statistics.median(spent), 1e3 * (time.perf_counter() - begun) / _QUEUED


# ---- ours


def run_ours(folder: Path, names: list[str], trained: str) -> list[dict[str, Any]]:
  """Our figures beside gsplat's."""
  peer = {row["scene"]: row for row in json.loads((folder / "rows.json").read_text())["rows"]}
  rows = []
  for name, scene in scenes(names, trained).items():
    row = {"scene": name, "n": len(scene["means"]), "width": int(scene["size"]), "channels": scene["colours"].shape[1], "backend": "pallas"}
    row |= _our_row(scene, peer[name], dict(np.load(folder / f"{name}.npz")))
    rows.append({key: round(value, 9 if "error" in key else 4) if isinstance(value, float) else value for key, value in row.items()})
    print(json.dumps(rows[-1]), flush=True)
  return rows


def _our_row(scene: dict[str, np.ndarray], peer: dict[str, Any], theirs: dict[str, np.ndarray]) -> dict[str, Any]:
  import jax

  forward, backward, row = _our_functions(scene)
  row |= {"gsplat_pairs": peer["pairs"]}
  for label, function in (("forward", forward), ("forward_backward", backward)):
    row[f"{label}_ms"], row[f"{label}_queued_ms"] = _jax_times(function)
  for label in ("forward", "forward_backward"):
    row[f"{label}_over_gsplat"] = row[f"{label}_ms"] / peer[f"{label}_ms"]
    row[f"{label}_queued_over_gsplat"] = row[f"{label}_queued_ms"] / peer[f"{label}_queued_ms"]
  first, again = backward(0), backward(0)
  row |= _differences(first, theirs)
  row["same_bits_again"] = all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
  for label, function in (("forward", forward), ("forward_backward", backward)):
    found = busy(lambda i, f=function: jax.block_until_ready(f(i)))
    row[f"{label}_busy_ms"], row[f"{label}_launches"] = found.ms, found.launches
    row[f"{label}_kernels_us"] = {k[:60]: round(1e3 * t, 1) for k, t in list(found.kernels.items())[:12]}
  return row | {f"gsplat_{key}": value for key, value in peer.items() if key.endswith("_ms")}


def _our_functions(scene: dict[str, np.ndarray]) -> tuple[Callable[[int], Any], Callable[[int], Any], dict[str, Any]]:
  """Picture, picture and gradients of repeat i; pairs and capacity."""
  import jax
  import jax.numpy as jnp

  from silky_jax.gaussians.covariance import covariance_from_axes
  from silky_jax.render.pipeline import RenderConfig, next_capacity, render
  from silky_jax.types import Camera, Gaussians

  size, channels = int(scene["size"]), scene["colours"].shape[1]
  given = tuple(jnp.asarray(scene[key]) for key in _NAMES)
  where = jnp.asarray(scene["world_to_camera"]), jnp.asarray(scene["intrinsics"])
  moved, along = [jnp.asarray(s) for s in shifts(_QUEUED)], jnp.asarray(cotangent(scene))

  def draw(given: Any, where: Any, moved: Any, capacity: int) -> Any:
    means, quaternions, deviations, opacities, colours = given
    gaussians = Gaussians(means + moved, covariance_from_axes(quaternions, deviations), opacities, colours)
    camera = Camera(*where, width=size, height=size)
    return render(gaussians, camera, jnp.zeros(channels), config=RenderConfig(backend="pallas", capacity=capacity))

  pairs = int(jax.jit(draw, static_argnums=3)(given, where, moved[0], 1024).pairs)
  capacity = next_capacity(pairs)

  @jax.jit
  def picture(given: Any, where: Any, moved: Any) -> Any:
    return draw(given, where, moved, capacity).image

  @jax.jit
  def both(given: Any, where: Any, moved: Any, along: Any) -> Any:
    image, pull = jax.vjp(lambda given: picture(given, where, moved), given)
    return image, *pull(along)[0]

  row = {"pairs": pairs, "capacity": capacity}
  return lambda i: picture(given, where, moved[i]), lambda i: both(given, where, moved[i], along), row


def _jax_times(function: Callable[[int], Any]) -> tuple[float, float]:
  import jax

  for i in range(8):
    jax.block_until_ready(function(i))
  spent = []
  for i in range(_REPEATS):
    begun = time.perf_counter()
    jax.block_until_ready(function(i))
    spent.append(1e3 * (time.perf_counter() - begun))
  begun = time.perf_counter()
  for i in range(_QUEUED):
    last = function(i)
  jax.block_until_ready(last)
  return statistics.median(spent), 1e3 * (time.perf_counter() - begun) / _QUEUED


def _differences(ours: Any, peer: Any) -> dict[str, float]:
  image, *gradients = (np.asarray(array, np.float64) for array in ours)
  apart = np.abs(image - peer["image"])
  found = {"image_mean_error": float(apart.mean()), "image_largest_error": float(apart.max())}
  for name, gradient in zip(_NAMES, gradients, strict=True):
    found[f"{name}_gradient_error"] = float(np.linalg.norm(gradient - peer[name]) / np.linalg.norm(peer[name]))
  return found


def main(_: list[str]) -> None:
  """Command line."""
  if _PEER.value:
    run_peer(Path(_PEER.value), _CASES.value, _GAUSSIANS.value)
    return
  from experiments.record import words, write_record

  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "experiments.bench_gsplat", f"--peer={folder}", f"--cases={','.join(_CASES.value)}"]
    subprocess.run([*command, f"--gaussians={_GAUSSIANS.value}"], check=True)
    peer = json.loads((Path(folder) / "rows.json").read_text())
    rows = run_ours(Path(folder), _CASES.value, _GAUSSIANS.value)
  if _OUTPUT.value:
    content = {"gsplat": peer["gsplat"], "torch": peer["torch"], "rows": rows}
    command = " ".join(["python -m experiments.bench_gsplat", *words(without=("output", "gaussians"))])
    write_record(_OUTPUT.value, content, command=command, packages=("jax", "jaxlib", "numpy"))


if __name__ == "__main__":
  app.run(main)
