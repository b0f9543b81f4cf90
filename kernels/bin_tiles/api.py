"""bin_tiles: which splats touch which tile, front to back."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int
from silky_kernels.backend import Backend, choose
from silky_kernels.bin_tiles import reference

__all__ = ["TileBins", "bin_tiles"]


class TileBins(NamedTuple):
  """Splats sorted by tile, then by depth."""

  pairs: Int[Array, "p"]  # splat of each (tile, splat) pair; entries from tile_starts[-1] on are filler (0)
  tile_starts: Int[Array, "q"]  # first pair of each tile, row by row, and the number of pairs kept; q = tiles + 1
  overflow: Int[Array, ""]  # pairs dropped because `capacity` was too small
  wanted: Int[Array, ""]  # pairs kept + dropped, saturating at 2^30 - 1


def bin_tiles(
  means2d: Float[Array, "n 2"],
  radii: Float[Array, "n 2"],
  depths: Float[Array, "n"],
  *,
  width: int,
  height: int,
  tile: int,
  capacity: int,
  backend: Backend | None = None,
) -> TileBins:
  """Lists, for every tile of the picture, the splats whose box covers a pixel centre of it, nearest first.

  The box of a splat is exact: it covers the pixel centres c with |c - mean| <= radii on both axes, and the pairs are the tiles that
  hold at least one of them. Ties in depth keep the order of the input. Deterministic.

  Overflow: pairs are handed out front to back, so a capacity that is too small loses the pairs of the farthest splats, in row-major
  order of their tiles for the one splat that is cut in the middle. `overflow` says how many were lost.

  Args:
    means2d: box centres, px.
    radii: half widths of the boxes along x and y, px; 0 on either axis, or anything not finite, is a culled splat.
    depths: sort key; must be >= 0 for splats that are not culled.
    width: px of the picture; any size, the last tiles may hang over.
    height: px.
    tile: px of a tile's side.
    capacity: most pairs that can be held (static).
    backend: "xla", or None for the best available.

  Returns:
    TileBins. Not differentiable: all outputs are integers.

  Raises:
    ValueError: sizes that are not positive, no splats.
    NotImplementedError: a backend that cannot run here.
  """
  for name, value in (("width", width), ("height", height), ("tile", tile), ("capacity", capacity), ("n", means2d.shape[0])):
    if value < 1:
      raise ValueError(f"{name}: expected at least 1, got {value}")
  choose("bin_tiles", backend)
  return TileBins(*reference.bin_tiles(means2d, radii, depths, width, height, tile, capacity))
