"""rasterize_tiles: composites binned splats into a picture, differentiable in everything but the bins."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int
from silky_kernels.backend import Backend, choose
from silky_kernels.rasterize import reference

__all__ = ["RasterOutput", "rasterize_tiles"]


class RasterOutput(NamedTuple):
  """A composited picture."""

  image: Float[Array, "h w c"]  # over the background
  alpha: Float[Array, "h w"]  # sum of weights
  depth: Float[Array, "h w"]  # sum of weight * depth, no background


def rasterize_tiles(
  means2d: Float[Array, "n 2"],
  conics: Float[Array, "n 3"],
  features: Float[Array, "n c"],
  opacities: Float[Array, "n"],
  depths: Float[Array, "n"],
  pairs: Int[Array, "p"],
  tile_starts: Int[Array, "q"],
  background: Float[Array, "c"],
  *,
  width: int,
  height: int,
  tile: int = 8,
  backend: Backend | None = None,
) -> RasterOutput:
  """Composites splats front to back, in the order of `pairs` within each tile.

  For a pixel centre x (at half integers) and the splats i of its tile in order, with d = x - mean_i and conic (a, b, c):

      alpha_i = min(0.999, opacity_i exp(-(a d_x^2 + 2 b d_x d_y + c d_y^2) / 2)), skipped below 1/255
      T_i = prod_{j < i} (1 - alpha_j), and compositing ends at the first i with T_i (1 - alpha_i) <= 1e-4
      image = sum_i alpha_i T_i features_i + (1 - sum_i alpha_i T_i) background

  which is the compositing of 3D Gaussian splatting (Kerbl et al. 2023) with its thresholds, but for the clamp of 0.999.

  Args:
    means2d: px.
    conics: px^-2, inverse covariance as (xx, xy, yy).
    features: any channels, at least 1.
    opacities: 0..1; must be finite, like everything above, also for splats that no pair names.
    depths: metres, or anything: only summed, the order comes from `pairs`.
    pairs: splat index per (tile, splat) pair, as `bin_tiles` returns them.
    tile_starts: first pair of each tile, row by row, then the number of pairs; q = tiles + 1.
    background: colour behind everything.
    width: px; any size.
    height: px.
    tile: px of a tile's side, the one `pairs` were made with.
    backend: "xla", or None for the best available.

  Returns:
    RasterOutput. Reverse-mode differentiable once, with respect to means2d, conics, features, opacities, depths and background;
    the thresholds are treated as constants, so a splat that a pixel skips gets no gradient from it.

  Raises:
    ValueError: array sizes that do not fit each other.
    NotImplementedError: a backend that cannot run here.
  """
  tiles = -(-width // tile) * -(-height // tile)
  if tile_starts.shape[0] != tiles + 1:
    raise ValueError(f"tile_starts: expected [{tiles + 1}] for {width}x{height} px in tiles of {tile}, got {tile_starts.shape}")
  if background.shape[0] != features.shape[1]:
    raise ValueError(f"background: expected [{features.shape[1]}] like features, got {background.shape}")
  choose("rasterize_tiles", backend)
  layout = reference.Layout(width, height, tile)
  return RasterOutput(*reference.rasterize(layout, means2d, conics, features, opacities, depths, pairs, tile_starts, background))
