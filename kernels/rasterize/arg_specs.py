"""Named argument shapes of rasterize_tiles, shared by tests and benches, and the splats that fill them."""

from typing import NamedTuple

import numpy as np

__all__ = ["ARG_SPECS", "ArgSpec", "random_splats"]


class ArgSpec(NamedTuple):
  """One realistic call."""

  n: int
  width: int
  height: int
  tile: int
  channels: int
  ci: bool  # small enough for the fast test tier


ARG_SPECS: dict[str, ArgSpec] = {
  "smoke": ArgSpec(n=40, width=32, height=32, tile=8, channels=3, ci=True),
  "large_tile": ArgSpec(n=200, width=45, height=29, tile=16, channels=1, ci=True),
  "features": ArgSpec(n=60, width=24, height=17, tile=8, channels=33, ci=True),
  "demo": ArgSpec(n=12_000, width=192, height=192, tile=8, channels=3, ci=False),
  "paper": ArgSpec(n=14_000, width=256, height=256, tile=8, channels=3, ci=False),
  "gaussian_head": ArgSpec(n=14_000, width=256, height=256, tile=8, channels=32, ci=False),
  "video": ArgSpec(n=14_000, width=512, height=512, tile=8, channels=3, ci=False),
  "dense": ArgSpec(n=50_000, width=512, height=512, tile=8, channels=3, ci=False),
}


def random_splats(spec: ArgSpec, seed: int = 0) -> dict[str, np.ndarray]:
  """Splats all over a picture and beyond its border: float32 arguments of `bin_tiles` and `rasterize_tiles`.

  Args:
    spec: sizes.
    seed: another seed, other splats.

  Returns:
    means2d, conics, features, opacities, depths, background, and radii (half widths of the boxes where alpha reaches 1/255).
  """
  rng = np.random.default_rng(seed)
  size = np.array([spec.width, spec.height])
  deviations = np.exp(rng.normal(size=(spec.n, 2)) * 0.6 + 0.8)
  angles = rng.uniform(0, np.pi, spec.n)
  turn = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=-1).reshape(-1, 2, 2)
  covariances = turn @ (deviations[:, :, None] ** 2 * turn.transpose(0, 2, 1))
  inverses = np.linalg.inv(covariances)
  opacities = rng.uniform(0.02, 1.0, spec.n)
  reach = np.sqrt(2 * np.log(255 * opacities))[:, None]
  arguments = {
    "means2d": rng.uniform(-0.1, 1.1, (spec.n, 2)) * size,
    "conics": np.stack([inverses[:, 0, 0], inverses[:, 0, 1], inverses[:, 1, 1]], axis=-1),
    "features": rng.uniform(size=(spec.n, spec.channels)),
    "opacities": opacities,
    "depths": rng.uniform(1.0, 3.0, spec.n),
    "background": rng.uniform(size=spec.channels),
    "radii": 1.001 * reach * np.sqrt(np.stack([covariances[:, 0, 0], covariances[:, 1, 1]], axis=-1)) + 1e-3,
  }
  return {name: value.astype(np.float32) for name, value in arguments.items()}
