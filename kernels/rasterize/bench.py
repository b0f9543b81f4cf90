"""Times bin_tiles + rasterize_tiles, forward and with all gradients, on a head-sized cloud of splats.

    python -m silky_kernels.rasterize.bench --specs demo paper --repeats 10 --output result.json

Every repeat gets other inputs and all outputs and gradients are waited for. Written down: the smallest wall time, the median,
and the smallest processor time, which other work on the machine disturbs least.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from silky_kernels.backend import available_backends
from silky_kernels.bin_tiles.api import bin_tiles
from silky_kernels.rasterize.api import rasterize_tiles
from silky_kernels.rasterize.arg_specs import ARG_SPECS, ArgSpec

__all__ = ["Timing", "head_splats", "machine", "measure", "processor", "time_calls"]

_TRAINED = ("means2d", "conics", "features", "opacities", "depths", "background")


def head_splats(n: int, width: int, height: int, channels: int, seed: int = 0) -> dict[str, np.ndarray]:
  """Splats of n Gaussians spread over an ellipsoid shell the size of a head, seen from four head radii away.

  Sizes are log-normal about the spacing that closes the shell; opacities are mostly high. Same statistics as the scene that the
  design was measured on, so that figures can be put side by side.

  Returns:
    Arguments of `bin_tiles` and `rasterize_tiles` by name, float32: means2d, radii, conics, features, opacities, depths, background.
  """
  rng = np.random.default_rng(seed)
  directions = rng.normal(size=(n, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  means = directions * [0.09, 0.12, 0.102] + rng.normal(size=(n, 3)) * 0.0036
  deviations = 0.12 * np.sqrt(4 * np.pi * 0.75 / n) * 0.9 * np.exp(rng.normal(size=(n, 3)) * 0.5)
  turns = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
  opacities = 1 / (1 + np.exp(-(rng.normal(size=n) * 1.5 + 1)))

  depths = means[:, 2] + 0.408
  focal = 1.1 * max(width, height)
  slopes = means[:, :2] / depths[:, None]
  jacobian = np.zeros((n, 2, 3))
  jacobian[:, 0, 0] = jacobian[:, 1, 1] = focal / depths
  jacobian[:, :, 2] = -focal * slopes / depths[:, None]
  scaled = jacobian @ (turns * deviations[:, None, :])
  covariances = scaled @ scaled.transpose(0, 2, 1) + 0.3 * np.eye(2)
  inverses = np.linalg.inv(covariances)
  reach = np.sqrt(2 * np.log(np.maximum(255 * opacities, 1)))
  arguments = {
    "means2d": focal * slopes + [0.5 * width, 0.5 * height],
    "radii": reach[:, None] * np.sqrt(covariances[:, [0, 1], [0, 1]]) * 1.001,
    "conics": inverses[:, [0, 0, 1], [0, 1, 1]],
    "features": rng.uniform(size=(n, channels)),
    "opacities": opacities,
    "depths": depths,
    "background": np.full(channels, 0.5),
  }
  return {name: value.astype(np.float32) for name, value in arguments.items()}


class Timing(NamedTuple):
  """Milliseconds of one call."""

  smallest: float  # wall time of the fastest repeat
  median: float  # wall time
  processor: float  # processor time of the fastest repeat, all threads: what remains true on a machine that others use too

  def named(self, name: str) -> dict[str, float]:
    """Columns of a result row."""
    return {f"{name}_ms": round(self.smallest, 1), f"{name}_median_ms": round(self.median, 1), f"{name}_cpu_ms": round(self.processor, 1)}


def time_calls(function: Callable, inputs: Sequence) -> Timing:
  """Times `function(*arguments)` over the given argument tuples, compiled and warmed up before."""
  inputs = jax.block_until_ready(list(inputs))
  for arguments in inputs[:2]:
    jax.block_until_ready(function(*arguments))
  wall, processor = [], []
  for arguments in inputs:
    start, start_processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(function(*arguments))
    wall.append(1e3 * (time.perf_counter() - start))
    processor.append(1e3 * (time.process_time() - start_processor))
  return Timing(min(wall), statistics.median(wall), min(processor))


def measure(spec: ArgSpec, backend: str, repeats: int) -> dict[str, float | int | str]:
  """One row of the result: times of one backend on one spec."""
  splats = {k: jnp.asarray(v) for k, v in head_splats(spec.n, spec.width, spec.height, spec.channels).items()}
  sizes = {"width": spec.width, "height": spec.height, "tile": spec.tile}
  boxes = (splats["means2d"], splats.pop("radii"), splats["depths"])
  wanted = int(bin_tiles(*boxes, capacity=1024, **sizes).wanted)
  capacity = -(-int(1.25 * wanted) // 1024) * 1024

  def forward(splats, boxes):
    bins = bin_tiles(*boxes, capacity=capacity, **sizes)
    means2d, conics, features, opacities, depths, background = (splats[name] for name in _TRAINED)
    return rasterize_tiles(means2d, conics, features, opacities, depths, bins.pairs, bins.tile_starts, background, backend=backend, **sizes)

  def loss(splats, boxes, cotangents):
    return sum(jnp.sum(a * b) for a, b in zip(forward(splats, boxes), cotangents, strict=True))

  rng = np.random.default_rng(1)
  inputs = []
  for _ in range(repeats):
    shifted = splats | {"means2d": splats["means2d"] + jnp.asarray(rng.uniform(-0.5, 0.5, 2), jnp.float32)}
    shapes = ((spec.height, spec.width, spec.channels), (spec.height, spec.width), (spec.height, spec.width))
    inputs.append((shifted, (shifted["means2d"], *boxes[1:]), tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)))
  forward_times = time_calls(jax.jit(forward), [arguments[:2] for arguments in inputs])
  both_times = time_calls(jax.jit(jax.value_and_grad(loss)), inputs)
  row = {"n": spec.n, "width": spec.width, "height": spec.height, "channels": spec.channels, "backend": backend}
  return row | forward_times.named("forward") | both_times.named("forward_backward") | {"tile": spec.tile, "pairs": wanted}


def machine() -> dict[str, str | int | float]:
  """What the figures were measured on."""
  device = jax.devices()[0]
  name = device.device_kind if device.platform != "cpu" else processor()
  cores = os.cpu_count() or 0
  versions = {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": metadata.version("jaxlib")}
  return {"device": name, "cores": cores, "load_average": round(os.getloadavg()[0], 1)} | versions


def processor() -> str:
  """The processor's name."""
  for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
    if line.startswith("model name"):
      return line.split(":", 1)[1].strip()
  return platform.processor() or platform.machine()


def main() -> None:
  """Command line: see the module's docstring."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--specs", nargs="+", default=["demo", "paper", "gaussian_head", "video"], choices=list(ARG_SPECS))
  parser.add_argument("--backends", nargs="+", default=list(available_backends("rasterize_tiles")))
  parser.add_argument("--repeats", type=int, default=10)
  parser.add_argument("--commit", default="", help="of the code that is measured; written down")
  parser.add_argument("--output", type=Path)
  flags = parser.parse_args()
  rows = []
  for spec in flags.specs:
    for backend in flags.backends:
      rows.append(measure(ARG_SPECS[spec], backend, flags.repeats))
      print(json.dumps(rows[-1]), flush=True)
  if flags.output:
    flags.output.write_text(json.dumps({"machine": machine(), "commit": flags.commit, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
  main()
