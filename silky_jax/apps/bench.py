"""`bench rasterize`: how long one view takes, forward and with all gradients, on made-up heads and on a trained one.

Gaussians on an ellipsoid shell the size of a head that just close it (log-normal sizes, mostly opaque), seen from four head radii
away; or those of a trained avatar at rest. Timed under `jit`, inputs as arguments that differ per repeat, all outputs and gradients
(means, covariances through quaternions and deviations, opacities, colours, background) waited for; medians of wall time.

"forward" begins at quaternions and deviations, "render" at covariances (what `render()` is given), "splat" at projected splats; the
stages of the op `splat` are timed on one thread, in C++.

The floor is what the arithmetic alone takes: (splat, 4 x 4 px block) meetings x 16 lanes x (24 + 2 channels flops at the peak of 512-bit
FMA + one exponential), and three times that for the gradient; rates measured on two Zen 5 cores (547 GFLOP/s, 40.3 G exponentials a second
on both). The op `splat` alone is compared with it.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from silky_kernels import native
from silky_kernels.backend import Backend, choose
from silky_kernels.rasterize.bench import machine
from silky_kernels.splat import cpu
from silky_kernels.splat.api import splat

from silky_jax.apps.player import open_avatar, stand
from silky_jax.config import UserError
from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.geometry import camera as cameras
from silky_jax.render.pipeline import RenderConfig, next_capacity, render
from silky_jax.render.project import project
from silky_jax.types import Camera, Gaussians

__all__ = ["SIZES", "bench_rasterize", "front_camera", "head_scene", "write_rows"]

SIZES: dict[str, tuple[int, int, int]] = {  # Gaussians, px, channels
  "5k_128": (5_000, 128, 3),
  "14k_256": (14_000, 256, 3),
  "14k_512": (14_000, 512, 3),
  "50k_512": (50_000, 512, 3),
  "14k_256_32": (14_000, 256, 32),
}
_GIGAFLOPS, _GIGAEXPONENTIALS = {1: 273.5, 2: 547.0}, {1: 20.15, 2: 40.3}  # by threads


class Scene(NamedTuple):
  """What is rendered."""

  name: str
  parameters: dict[str, jax.Array]  # means, opacities, colours, background; quaternions and deviations, or covariances
  camera: Camera


def head_scene(name: str, seed: int = 0) -> Scene:
  """A made-up head of one of SIZES."""
  n, size, channels = SIZES[name]
  rng = np.random.default_rng(seed)
  directions = rng.normal(size=(n, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  parameters = {
    "means": directions * [0.09, 0.12, 0.102] + rng.normal(size=(n, 3)) * 0.0036,
    "quaternions": rng.normal(size=(n, 4)),
    "deviations": 0.12 * np.sqrt(4 * np.pi * 0.75 / n) * 0.9 * np.exp(rng.normal(size=(n, 3)) * 0.5),
    "opacities": 1 / (1 + np.exp(-(rng.normal(size=n) * 1.5 + 1))),
    "colours": rng.uniform(size=(n, channels)),
    "background": np.full(channels, 0.5),
  }
  pose = cameras.look_at(0.408 * jnp.asarray([np.sin(0.3), 0.0, np.cos(0.3)], jnp.float32), jnp.zeros(3))
  camera = cameras.from_focal(pose, 1.1 * size, width=size, height=size)
  return Scene(name, {key: jnp.asarray(value, jnp.float32) for key, value in parameters.items()}, camera)


def trained_scene(checkpoint: Path | str, size: int = 256) -> Scene:
  """The Gaussians of a trained avatar at rest, filling a picture as in its views."""
  from silky_jax.apps.editor import AvatarEditor

  player = open_avatar(checkpoint)
  gaussians = player.gaussians(jax.tree.map(lambda a: np.asarray(a)[0], AvatarEditor(player).frame()))
  camera = front_camera(np.asarray(gaussians.means), size)
  parameters = {"means": gaussians.means, "covariances": gaussians.covariances, "opacities": gaussians.opacities}
  return Scene("trained", {**parameters, "colours": gaussians.features, "background": jnp.full(3, 0.5)}, camera)


def front_camera(means: Float[np.ndarray, "n 3"], size: int) -> Camera:
  """In front of a head of Gaussians (world, metres), which fills a picture of `size` px as in an avatar's views."""
  where = stand(means.min(axis=0), means.max(axis=0), distance=0.6)
  pose = cameras.look_at(jnp.asarray(where.centre) + jnp.asarray([0.0, 0.0, where.distance]), jnp.asarray(where.centre))
  return cameras.from_focal(pose, where.focal * size, width=size, height=size)


def write_rows(path: Path | str, rows: list[dict[str, Any]]) -> None:
  """Rows as JSON, with the machine."""
  Path(path).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def bench_rasterize(
  *,
  backend: Backend | None = None,
  checkpoint: Path | str | None = None,
  sizes: Sequence[str] = tuple(SIZES),
  repeats: int = 15,
  json_path: Path | str | None = None,
  say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
  """Measure; print a line per scene; write JSON.

  Args:
    backend: None takes the best.
    checkpoint: a run whose avatar is measured too.
    sizes: names of SIZES.
    repeats: timed calls of each program.
    json_path: where the rows go, with the machine.
    say: prints a line.

  Raises:
    UserError: an unknown size, or no such run.
    NotImplementedError: a backend that cannot run here.
  """
  unknown = [name for name in sizes if name not in SIZES]
  if unknown or repeats < 1:
    raise UserError(f"bench: wanted sizes of {', '.join(SIZES)} and at least one repeat, found {', '.join(unknown) or repeats}")
  chosen = choose("splat", backend)
  scenes = [head_scene(name) for name in sizes] + ([trained_scene(checkpoint)] if checkpoint is not None else [])
  rows = []
  for scene in scenes:
    rows.append(_row(scene, chosen, repeats))
    say(json.dumps(rows[-1]))
  if json_path is not None:
    write_rows(json_path, rows)
  return rows


def _row(scene: Scene, backend: Backend, repeats: int) -> dict[str, Any]:
  height, width, channels = scene.camera.height, scene.camera.width, scene.parameters["colours"].shape[1]
  threads = min(len(os.sched_getaffinity(0)), os.cpu_count() or 1)
  config = RenderConfig(backend=backend, capacity=_capacity(scene))
  whole = _whole(scene, config, repeats)
  reference = whole if backend == "xla" else _whole(scene, RenderConfig(backend="xla", capacity=config.capacity), max(3, repeats // 5))
  drawn, alone = _whole(_with_covariances(scene), config, repeats), _alone(scene, config, repeats)
  row = {"scene": scene.name, "n": scene.parameters["means"].shape[0], "width": width, "height": height, "channels": channels}
  row |= {"backend": backend, "simd": native.best_simd() if backend == "cpu" else "", "threads": threads}
  row |= {"forward_ms": whole[0], "forward_backward_ms": whole[1], "render_forward_ms": drawn[0], "render_forward_backward_ms": drawn[1]}
  row |= {"splat_forward_ms": alone[0], "splat_forward_backward_ms": alone[1]}
  eight = _eight(scene, config, max(3, repeats // 3))
  row |= {"eight_forward_backward_ms": eight, "eight_ratio": eight / (8 * drawn[1])}
  row |= {"reference_forward_ms": reference[0], "reference_forward_backward_ms": reference[1]}
  row["speedup_over_reference"] = reference[1] / whole[1]
  if native.why_not() is None and threads in _GIGAFLOPS:
    stages = cpu.stages({name: np.asarray(value) for name, value in _splats(scene).items()}, width, height)
    lanes = 16 * round(stages.pop("meetings"))
    floor = 1e-6 * lanes * ((24 + 2 * channels) / _GIGAFLOPS[threads] + 1 / _GIGAEXPONENTIALS[threads])
    row |= {"lanes": lanes, "floor_ms": 4 * floor, "floor_ratio": alone[1] / (4 * floor), "floor_ratio_forward": alone[0] / floor}
    if backend == "cpu":
      row |= {f"stage_{name}_ms": value for name, value in stages.items()}
  return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def _gaussians(parameters: dict[str, jax.Array]) -> Gaussians:
  covariances = parameters.get("covariances")
  if covariances is None:
    covariances = covariance_from_axes(parameters["quaternions"], parameters["deviations"])
  return Gaussians(parameters["means"], covariances, parameters["opacities"], parameters["colours"])


def _splats(scene: Scene) -> dict[str, jax.Array]:
  """Arguments of `splat`."""
  config = RenderConfig()
  splats, boxes = jax.jit(lambda g: project(g, scene.camera, near=config.near, low_pass=config.low_pass))(_gaussians(scene.parameters))
  names = ("means2d", "depths", "conics", "opacities", "features")
  return {name: getattr(splats, name) for name in names} | {"boxes": boxes, "background": scene.parameters["background"]}


def _capacity(scene: Scene) -> int:
  draw = jax.jit(lambda p: render(_gaussians(p), scene.camera, p["background"], config=RenderConfig(backend="xla", capacity=1024)).pairs)
  return next_capacity(int(draw(scene.parameters)))


def _with_covariances(scene: Scene) -> Scene:
  kept = {name: value for name, value in scene.parameters.items() if name not in ("quaternions", "deviations")}
  return scene._replace(parameters=kept | {"covariances": _gaussians(scene.parameters).covariances})


def _cotangents(scene: Scene, rng: np.random.Generator) -> tuple[jax.Array, ...]:
  size = (scene.camera.height, scene.camera.width)
  shapes = ((*size, scene.parameters["colours"].shape[1]), size, size)
  return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def _whole(scene: Scene, config: RenderConfig, repeats: int) -> tuple[float, float]:
  """The renderer: covariances, projection, splat."""

  def draw(parameters):
    out = render(_gaussians(parameters), scene.camera, parameters["background"], config=config)
    return out.image, out.alpha, out.depth

  return _times(draw, scene.parameters, scene, "means", 1e-3, repeats)


def _eight(scene: Scene, config: RenderConfig, repeats: int) -> float:
  """Milliseconds of eight pictures of eight sets of Gaussians, and all gradients, in one program."""

  def one(parameters):
    out = render(_gaussians(parameters), scene.camera, parameters["background"], config=config)
    return out.image, out.alpha, out.depth

  def both(parameters, cotangents):
    made, pull = jax.vjp(jax.vmap(one), parameters)
    return made, pull(cotangents)

  rng, inputs = np.random.default_rng(2), []
  parameters = _with_covariances(scene).parameters
  for _ in range(repeats):
    stacked = {name: jnp.stack([value] * 8) for name, value in parameters.items()}
    stacked["means"] += jnp.asarray(rng.normal(size=(8, 1, 3)) * 1e-3, jnp.float32)
    inputs.append((stacked, jax.tree.map(lambda *parts: jnp.stack(parts), *(_cotangents(scene, rng) for _ in range(8)))))
  return _median(jax.jit(both), inputs)


def _alone(scene: Scene, config: RenderConfig, repeats: int) -> tuple[float, float]:
  """The op `splat`."""
  sizes = {"width": scene.camera.width, "height": scene.camera.height, "capacity": config.capacity, "backend": config.backend}
  names = ("means2d", "boxes", "depths", "conics", "opacities", "features", "background")
  draw = lambda given: tuple(splat(*(given[name] for name in names), **sizes)[:3])
  return _times(draw, _splats(scene), scene, "means2d", 0.3, repeats)


def _times(draw: Callable, given: dict[str, jax.Array], scene: Scene, moved: str, by: float, repeats: int) -> tuple[float, float]:
  """Median milliseconds of `draw`, and of it with all gradients; `given[moved]` is shifted in every repeat."""
  rng = np.random.default_rng(1)
  width = given[moved].shape[1]
  inputs = [
    (given | {moved: given[moved] + jnp.asarray(rng.normal(size=width) * by, jnp.float32)}, _cotangents(scene, rng)) for _ in range(repeats)
  ]

  def both(given, cotangents):
    made, pull = jax.vjp(draw, given)
    return made, pull(cotangents)

  return _median(jax.jit(lambda given, _: draw(given)), inputs), _median(jax.jit(both), inputs)


def _median(function: Callable, inputs: list[tuple]) -> float:
  inputs = jax.block_until_ready(inputs)
  for arguments in inputs[:2]:
    jax.block_until_ready(function(*arguments))
  spent = []
  for arguments in inputs:
    begun = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    spent.append(1e3 * (time.perf_counter() - begun))
  return statistics.median(spent)
