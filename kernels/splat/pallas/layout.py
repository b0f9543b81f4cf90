"""Static sizes of a batch of pictures, and how splats lie in memory. Pictures of a batch are one problem: their splats, tiles and pairs
are numbered through."""

from typing import NamedTuple

from jaxtyping import Array
from silky_kernels.triton import load

__all__ = ["FEATURES", "LINE", "MOMENTS", "STATES", "TILE", "Layout", "Splat", "load_splat"]

TILE = 8  # px; a tile is one warp, two pixels a thread
LINE = 8  # numbers per splat that lists are made from: `Splat`
STATES = 3  # numbers of a pixel before its channels, as the picture notes them: transmittance, alpha, depth
MOMENTS = 7  # numbers of a row before channels: six moments, depth
FEATURES = 7  # numbers per splat before its features: mean, conic in powers of two, opacity, depth
_FEW = 8  # channels that are handled one by one (shades.py)
_MOST = 16  # channels of one program; more are done by further ones
_MOST_BACK = 32  # of a program of the backward pass, which either sums along channels or over pixels


class Layout(NamedTuple):
  """Static sizes."""

  width: int
  height: int
  batch: int
  n: int  # splats per picture
  channels: int
  capacity: int  # pairs, all pictures together
  interpret: bool

  @property
  def columns(self) -> int:
    """Tiles of 8 px side by side."""
    return -(-self.width // TILE)

  @property
  def tiles(self) -> int:
    """Per picture."""
    return self.columns * -(-self.height // TILE)

  @property
  def many(self) -> bool:
    """Whether the channels of a program are one vector."""
    return self.channels > _FEW

  @property
  def groups(self) -> int:
    """Programs that share a tile, each with some of the channels."""
    return -(-self.channels // self.group_channels)

  @property
  def group_channels(self) -> int:
    """Of one program; where they are a vector a power of two, and the last group's may be short."""
    return min(_MOST, 1 << (self.channels - 1).bit_length()) if self.many else self.channels

  @property
  def blocks(self) -> int:
    """As `groups`, of the backward pass."""
    return -(-self.channels // self.block_channels) if self.many else 1

  @property
  def block_channels(self) -> int:
    """Of one program of the backward pass; where they are a vector a power of two, and the last block's may be short."""
    return min(_MOST_BACK, 1 << (self.channels - 1).bit_length()) if self.many else self.channels

  @property
  def record(self) -> int:
    """Numbers per splat that tiles are made from. A power of two: then all of them are loaded from one address."""
    return 1 << (FEATURES + self.channels - 1).bit_length()

  @property
  def segment(self) -> int:
    """Pairs of a tile's list that one program of the backward pass walks."""
    return 128 if self.many else 64

  @property
  def segments(self) -> int:
    """As many as there can be: each tile's last may be short."""
    return self.capacity // self.segment + self.batch * self.tiles

  @property
  def row(self) -> int:
    """Numbers per pair in the backward pass: six moments, depth, and channels where they are few; a multiple of 16 bytes."""
    return MOMENTS + 1 if self.many else -(-(MOMENTS + self.channels) // 4) * 4

  def largest(self) -> dict[str, int]:
    """Numbers in the arrays that an index could be too short for."""
    states = self.groups * self.segments * (STATES + self.group_channels) * TILE**2
    splats = self.batch * self.n * self.record
    image = self.batch * self.width * self.height * self.channels
    rows = self.blocks * self.capacity * max(self.row, self.block_channels)
    return {"capacity": rows, "capacity (states)": states, "splats": splats, "image": image}


class Splat(NamedTuple):
  """One splat, or a vector of them, as the kernels see it."""

  mean_x: Array
  mean_y: Array
  a: Array  # conic, px^-2
  b: Array
  c: Array
  opacity: Array
  box_x: Array  # px
  box_y: Array


def load_splat(lines: object, index: Array, mask: Array | None = None) -> Splat:
  """The splats at a vector of indices."""
  return Splat(*(load(lines, index * LINE + k, mask) for k in range(LINE)))
