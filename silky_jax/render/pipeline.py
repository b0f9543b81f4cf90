"""render(): project, splat, assemble."""

import bisect
import dataclasses
import logging

from jax import lax
from jaxtyping import Array, Float
from silky_kernels import Backend, splat

from silky_jax.render.project import project
from silky_jax.types import Camera, Gaussians, Render

__all__ = ["CAPACITIES", "RenderConfig", "capacity_for", "grow", "next_capacity", "render"]

_LOGGER = logging.getLogger(__name__)

# Every capacity a run may use: 2^k and 3 * 2^(k - 1). A short fixed list, so that programs are shared between runs by a compile cache.
CAPACITIES: tuple[int, ...] = tuple(sorted([2**k for k in range(10, 27)] + [3 * 2**k for k in range(9, 25)]))
_HEADROOM = 1.5  # a capacity is chosen for this many times the pairs seen: motion and training move the count


@dataclasses.dataclass(frozen=True)
class RenderConfig:
  """Static settings of the renderer: another value is another compile."""

  tile: int = 8  # px, where the backend is "xla"; 8 is faster than 16 (kernels/README.md)
  capacity: int = 196_608  # tile pairs, where the backend is "xla"; see `capacity_for` and `grow`
  near: float = 0.01  # metres; heads come close to the camera, 3D Gaussian splatting's 0.2 m would cut them
  low_pass: float = 0.3  # px^2 added to the diagonal of the 2D covariance
  backend: Backend | None = None  # None: the best available


def render(
  gaussians: Gaussians, camera: Camera, background: Float[Array, "c"], *, config: RenderConfig, probe: Float[Array, "n 2"] | None = None
) -> Render:
  """Picture of Gaussians seen by a camera. One view: `jax.vmap` over Gaussians, cameras or both for more.

  Equations: `render.project.project` and `silky_kernels.rasterize_tiles`. Under `vmap` the "cpu" backend makes all pictures in one call.

  Args:
    gaussians: means [n, 3] m, covariances [n, 3, 3] m^2, opacities [n], features [n, c]; n >= 1.
    camera: one camera; its size is the picture's.
    background: colour behind everything.
    config: static settings.
    probe: zeros [n, 2] added to the projected means: its gradient is the screen-space gradient that densification wants, px^-1.

  Returns:
    Render with image [h, w, c], alpha [h, w], depth [h, w] m, radii [n] px (0 = not drawn), overflow [] and pairs [] int32. Where
    overflow > 0 the farthest Gaussians are missing from the picture: raise the capacity with `grow`. Both are 0 where the backend needs
    no capacity.
    Reverse-mode differentiable once in means, covariances, opacities, features, background, probe and the camera's matrices, through
    image, alpha and depth. The gradient is zero for culled Gaussians; thresholds and boxes are constants.

  Raises:
    ValueError: arrays that do not fit each other.
    NotImplementedError: a backend that cannot run here.
  """
  if background.shape[-1] != gaussians.features.shape[-1]:
    raise ValueError(f"background: expected [{gaussians.features.shape[-1]}] like the features, got {background.shape}")
  splats, boxes = project(gaussians, camera, near=config.near, low_pass=config.low_pass, backend=config.backend)
  if probe is not None:
    splats = dataclasses.replace(splats, means2d=splats.means2d + probe)
  picture = splat(
    splats.means2d,
    boxes,
    splats.depths,
    splats.conics,
    splats.opacities,
    gaussians.features,  # not the masked ones: `splat` does not look at those of culled splats
    background.astype(gaussians.features.dtype),
    width=camera.width,
    height=camera.height,
    tile=config.tile,
    capacity=config.capacity,
    backend=config.backend,
  )
  return Render(
    image=picture.image,
    alpha=picture.alpha,
    depth=picture.depth,
    radii=lax.stop_gradient(splats.radii),
    overflow=picture.overflow,
    pairs=picture.wanted,
  )


def next_capacity(wanted: int) -> int:
  """The smallest of CAPACITIES with room for 1.5 times `wanted` tile pairs.

  Raises:
    ValueError: more than the largest capacity.
  """
  place = bisect.bisect_left(CAPACITIES, _HEADROOM * int(wanted))
  if place == len(CAPACITIES):
    raise ValueError(f"wanted: {wanted} tile pairs exceed the largest capacity {CAPACITIES[-1]}; are the Gaussians far too large?")
  return CAPACITIES[place]


def capacity_for(n: int, width: int, height: int, tile: int = 8) -> int:
  """A first guess of the capacity for `n` Gaussians that cover most of a picture.

  A surface of n Gaussians that just close it has a pixel spacing s = sqrt(width height / n); a box of 3 deviations to each side, with
  a deviation of s, is 6 s wide and touches (6 s / tile + 1)^2 tiles. On the head scene of the benches this is 15 to 22 % below the
  count, which the headroom covers.

  Args:
    n: Gaussians.
    width: px.
    height: px.
    tile: px.

  Returns:
    One of CAPACITIES.
  """
  touched = (6 * (width * height / n) ** 0.5 / tile + 1) ** 2
  tiles = -(-width // tile) * -(-height // tile)
  return next_capacity(int(n * min(touched, tiles)))


def grow(config: RenderConfig, wanted: int) -> RenderConfig:
  """A config with room for `wanted` pairs, for the loop that saw `Render.overflow` > 0 (`wanted` is the largest `Render.pairs` seen).

  Host side. Each growth is a new compile and is logged; with the headroom of `next_capacity` a run should need at most two.

  Args:
    config: the config in use.
    wanted: tile pairs asked for; a Python number.

  Returns:
    The same config where the capacity suffices, else one with the next capacity.

  Raises:
    ValueError: more than the largest capacity.
  """
  if wanted <= config.capacity:
    return config
  capacity = next_capacity(wanted)
  _LOGGER.warning("tile pairs: %d wanted, capacity %d; growing to %d and compiling again", wanted, config.capacity, capacity)
  return dataclasses.replace(config, capacity=capacity)
