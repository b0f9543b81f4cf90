"""What a float32 gradient of bench_gsplat's scenes is worth: ours on a CPU against float64 -> experiments/results/gradient_judge.json.

    python -m experiments.gradient_judge

Beside it, what explains the differences of two float32 renderers. `transmittance_error`: how well float32 alpha says what passes a pixel
(1 - alpha), which is where a gradient starts that walks back to front. `swapped`: of the pixels that differ by more than 1e-3, the share
with two splats nearby whose float32 depths are equal or in another order than in float64.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.bench_gsplat import CASES, cotangent, head_scene, shifts
from experiments.record import write_record
from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.render.pipeline import RenderConfig, render
from silky_jax.types import Camera, Gaussians

_SCENES = flags.DEFINE_list("scenes", ["14k", "200k"], "Of bench_gsplat.")
_JSON = flags.DEFINE_string("json", "experiments/results/gradient_judge.json", "Where the figures go.")
_NAMES = ("means", "quaternions", "deviations", "opacities", "colours")
_CAPACITY = 6_000_000
_APART, _NEAR, _OPAQUE = 1e-3, 10, 0.5  # of a picture; px; transmittance


def _both(scene: dict[str, np.ndarray], dtype: Any, backend: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
  """Picture, alpha and gradients."""
  size = int(scene["size"])
  camera = Camera(jnp.asarray(scene["world_to_camera"], dtype), jnp.asarray(scene["intrinsics"], dtype), width=size, height=size)
  moved, nothing = jnp.asarray(shifts(1)[0], dtype), jnp.zeros(scene["colours"].shape[1], dtype)

  def draw(given: Any) -> Any:
    means, quaternions, deviations, opacities, colours = given
    gaussians = Gaussians(means + moved, covariance_from_axes(quaternions, deviations), opacities, colours)
    made = render(gaussians, camera, nothing, config=RenderConfig(backend=backend, capacity=_CAPACITY))
    return made.image, made.alpha

  (image, alpha), pull = jax.vjp(draw, tuple(jnp.asarray(scene[name], dtype) for name in _NAMES))
  along = jnp.asarray(cotangent(scene), dtype)
  return np.asarray(image), np.asarray(alpha), [np.asarray(x) for x in pull((along, jnp.zeros_like(alpha)))[0]]


def _swapped(scene: dict[str, np.ndarray], pixels: np.ndarray) -> float | None:
  """Share of the pixels near which float32 does not tell two depths apart, or turns them round."""
  pose = scene["world_to_camera"]
  single = ((scene["means"] + shifts(1)[0]) @ pose[:3, :3].T + pose[:3, 3])[:, 2]
  exact = (scene["means"].astype(np.float64) + shifts(1)[0]) @ pose[:3, :3].T.astype(np.float64) + pose[:3, 3]
  places = exact @ scene["intrinsics"].T.astype(np.float64)
  places = places[:, :2] / places[:, 2:]
  found = []
  for y, x in pixels:
    near = np.flatnonzero((np.abs(places - [x + 0.5, y + 0.5]) < _NEAR).all(axis=1))
    found.append(bool((np.diff(single[near[np.argsort(exact[near, 2], kind="stable")]]) <= 0).any()))
  return float(np.mean(found)) if found else None


def _row(name: str) -> dict[str, Any]:
  scene = head_scene(*CASES[name])
  image, alpha, gradients = _both(scene, jnp.float32, "cpu")
  exact, exact_alpha, exact_gradients = _both(scene, jnp.float64, "xla")
  difference = np.abs(image - exact).max(axis=-1)
  passed = 1 - exact_alpha
  rounded = (np.float32(1) - exact_alpha.astype(np.float32)).astype(np.float64)
  opaque = passed < _OPAQUE
  errors = {
    f"{k}_gradient_error": float(np.linalg.norm(a - b) / np.linalg.norm(b))
    for k, a, b in zip(_NAMES, gradients, exact_gradients, strict=True)
  }
  return {
    "scene": name,
    "image_largest_error": float(difference.max()),
    "alpha_largest_error": float(np.abs(alpha - exact_alpha).max()),
    **errors,
    "transmittance_error": float(np.sqrt(np.mean(((rounded - passed) / passed)[opaque] ** 2))),
    "pixels_apart": int(np.sum(difference > _APART)),
    "swapped": _swapped(scene, np.argwhere(difference > _APART)),
  }


def main(_: list[str]) -> None:
  """Command line."""
  if jax.default_backend() != "cpu":
    raise SystemExit("gradient_judge: our compiled CPU renderer is what is judged; say JAX_PLATFORMS=cpu")
  jax.config.update("jax_enable_x64", True)
  rows = []
  for name in _SCENES.value:
    rows.append(_row(name))
    print(rows[-1], flush=True)
  write_record(_JSON.value, {"rows": rows}, command="python -m experiments.gradient_judge", packages=("jax", "jaxlib", "numpy"))


if __name__ == "__main__":
  app.run(main)
