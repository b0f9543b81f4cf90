"""Times the whole renderer: quaternions and deviations to covariances, projection, bins, compositing, and all gradients back.

Question: how long does one view take inside a train step, per size? Run:

    python -m experiments.bench_render --output=experiments/results/rasterize_cpu_xla.json

Gradients go to means, quaternions, deviations, opacities, colours and background, and all of them are waited for; every repeat gets other
inputs. Written down: the smallest wall time, the median, and the smallest processor time of all threads together, which other
work on the machine disturbs least.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from silky_kernels.rasterize.arg_specs import ARG_SPECS, ArgSpec
from silky_kernels.rasterize.bench import machine, time_calls

from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.geometry import camera as cameras
from silky_jax.render.pipeline import RenderConfig, next_capacity, render
from silky_jax.types import Camera, Gaussians

_SPECS = flags.DEFINE_list("specs", ["demo", "paper", "gaussian_head", "video"], "names of silky_kernels.rasterize.arg_specs.ARG_SPECS")
_BACKEND = flags.DEFINE_string("backend", "xla", "backend of the kernels")
_REPEATS = flags.DEFINE_integer("repeats", 15, "timed calls")
_COMMIT = flags.DEFINE_string("commit", "", "of the code that is measured; written down")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file")


def head_scene(spec: ArgSpec, seed: int = 0) -> tuple[dict[str, jax.Array], Camera]:
  """Gaussians on an ellipsoid shell the size of a head that just close it, and a camera four head radii away."""
  rng = np.random.default_rng(seed)
  directions = rng.normal(size=(spec.n, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  scene = {
    "means": directions * [0.09, 0.12, 0.102] + rng.normal(size=(spec.n, 3)) * 0.0036,
    "quaternions": rng.normal(size=(spec.n, 4)),
    "deviations": 0.12 * np.sqrt(4 * np.pi * 0.75 / spec.n) * 0.9 * np.exp(rng.normal(size=(spec.n, 3)) * 0.5),
    "opacities": 1 / (1 + np.exp(-(rng.normal(size=spec.n) * 1.5 + 1))),
    "colours": rng.uniform(size=(spec.n, spec.channels)),
    "background": np.full(spec.channels, 0.5),
  }
  pose = cameras.look_at(0.408 * jnp.asarray([np.sin(0.3), 0.0, np.cos(0.3)], jnp.float32), jnp.zeros(3))
  camera = cameras.from_focal(pose, 1.1 * max(spec.width, spec.height), width=spec.width, height=spec.height)
  return {name: jnp.asarray(value, jnp.float32) for name, value in scene.items()}, camera


def measure(spec: ArgSpec, backend: str, repeats: int) -> dict[str, float | int | str]:
  """One row of the result."""
  scene, camera = head_scene(spec)

  def forward(scene, camera, config):
    covariances = covariance_from_axes(scene["quaternions"], scene["deviations"])
    gaussians = Gaussians(scene["means"], covariances, scene["opacities"], scene["colours"])
    return render(gaussians, camera, scene["background"], config=config)

  def loss(scene, camera, cotangents, config):
    out = forward(scene, camera, config)
    return sum(jnp.sum(a * b) for a, b in zip((out.image, out.alpha, out.depth), cotangents, strict=True))

  config = RenderConfig(tile=spec.tile, capacity=1024, backend=backend)
  pairs = int(jax.jit(forward, static_argnums=2)(scene, camera, config).pairs)
  config = RenderConfig(tile=spec.tile, capacity=next_capacity(pairs), backend=backend)
  rng = np.random.default_rng(1)
  shapes = ((spec.height, spec.width, spec.channels), (spec.height, spec.width), (spec.height, spec.width))
  inputs = []
  for _ in range(repeats):
    moved = scene | {"means": scene["means"] + jnp.asarray(rng.normal(size=3) * 1e-3, jnp.float32)}
    inputs.append((moved, camera, tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)))
  forward_times = time_calls(jax.jit(lambda s, c: forward(s, c, config)), [arguments[:2] for arguments in inputs])
  both_times = time_calls(jax.jit(jax.value_and_grad(lambda s, c, g: loss(s, c, g, config))), inputs)
  row = {"n": spec.n, "width": spec.width, "height": spec.height, "channels": spec.channels, "backend": backend}
  row |= forward_times.named("forward") | both_times.named("forward_backward")
  return row | {"tile": spec.tile, "pairs": pairs, "capacity": config.capacity}


def main(_) -> None:
  rows = []
  for name in _SPECS.value:
    rows.append(measure(ARG_SPECS[name], _BACKEND.value, _REPEATS.value))
    print(json.dumps(rows[-1]), flush=True)
  if _OUTPUT.value:
    Path(_OUTPUT.value).write_text(json.dumps({"machine": machine(), "commit": _COMMIT.value, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
  app.run(main)
