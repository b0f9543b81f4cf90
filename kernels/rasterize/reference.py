"""rasterize_tiles in plain JAX, fast enough to train with on a CPU.

Same values and gradients as `definition.py`, organised as blocks of tiles with similar work. A block walks its tiles' lists together, a
chunk of splats at a time, and stops when every pixel in it is opaque or every list has ended: dynamic trip counts, so spare pair
capacity costs nothing. Inside a chunk all sums over pixels, splats and channels are small matrix products.

The gradient is written by hand. It walks front to back like the picture did, so transmittances come out bit-equal and only the picture
is saved. With q_i = <cotangent, features_i> and S_i = sum_{j > i} w_j q_j (the saved total less the running sum),

    d loss / d alpha_i = T_i q_i - S_i / (1 - alpha_i),

and with g = alpha * d loss / d alpha, the gradients of mean, conic and opacity follow from the six moments of g over the tile's pixels:
sum g, g x, g y, g x^2, g x y, g y^2, in coordinates about the tile's centre. Features ride along as rows [features, 1, depth], so that
alpha, depth and background need no case of their own.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Bool, Float, Int
from silky_kernels.rasterize.definition import LARGEST_ALPHA, SMALLEST_ALPHA, STOP_TRANSMITTANCE

__all__ = ["Layout", "rasterize"]

# Pixels per block and splats per chunk: their product is the size of every array inside the loops. Measured: README.md.
_BLOCK_PIXELS = 4096
_CHUNK = 16

_LOG_STOP = math.log(STOP_TRANSMITTANCE)
_ENDED = -1e9  # log transmittance of a tile whose list has ended: below any real one

_dot = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


class Layout(NamedTuple):
  """Static sizes of a picture and its tiles, px."""

  width: int
  height: int
  tile: int

  @property
  def columns(self) -> int:
    return -(-self.width // self.tile)

  @property
  def rows(self) -> int:
    return -(-self.height // self.tile)

  @property
  def block(self) -> int:
    """Tiles per block."""
    return max(1, min(_BLOCK_PIXELS // self.tile**2, self.columns * self.rows))

  def pixels(self, dtype: jnp.dtype) -> tuple[Float[Array, "p"], Float[Array, "p"]]:
    """x and y of a tile's pixel centres about the tile's centre."""
    line = jnp.arange(self.tile, dtype=dtype) + 0.5 - 0.5 * self.tile
    return jnp.tile(line, self.tile), jnp.repeat(line, self.tile)

  def cut(self, image: Float[Array, "h w f"]) -> Float[Array, "t f p"]:
    """Picture to tiles, padded with zeros."""
    padded = jnp.pad(image, ((0, self.rows * self.tile - self.height), (0, self.columns * self.tile - self.width), (0, 0)))
    grid = padded.reshape(self.rows, self.tile, self.columns, self.tile, -1)
    return grid.transpose(0, 2, 4, 1, 3).reshape(self.rows * self.columns, -1, self.tile**2)

  def join(self, tiles: Float[Array, "t f p"]) -> Float[Array, "h w f"]:
    """Tiles to picture, padding removed."""
    grid = tiles.reshape(self.rows, self.columns, -1, self.tile, self.tile).transpose(0, 3, 1, 4, 2)
    return grid.reshape(self.rows * self.tile, self.columns * self.tile, -1)[: self.height, : self.width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rasterize(
  layout: Layout,
  means2d: Float[Array, "n 2"],
  conics: Float[Array, "n 3"],
  features: Float[Array, "n c"],
  opacities: Float[Array, "n"],
  depths: Float[Array, "n"],
  pairs: Int[Array, "p"],
  tile_starts: Int[Array, "q"],
  background: Float[Array, "c"],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"], Float[Array, "h w"]]:
  """See `api.rasterize_tiles`; returns (image, alpha, depth). Under vmap the pictures are made one after another."""
  return _rasterize_fwd(layout, means2d, conics, features, opacities, depths, pairs, tile_starts, background)[0]


def _rasterize_fwd(layout, means2d, conics, features, opacities, depths, pairs, tile_starts, background):
  splats = jnp.concatenate([means2d, conics, opacities[:, None], features, jnp.ones_like(opacities)[:, None], depths[:, None]], axis=1)
  composited = layout.join(sequential_vmap(functools.partial(_composite, layout))(splats, pairs, tile_starts))
  alpha, depth = composited[..., -2], composited[..., -1]
  image = composited[..., :-2] + (1 - alpha)[..., None] * background
  return (image, alpha, depth), (splats, pairs, tile_starts, background, composited)


def _rasterize_bwd(layout, residuals, cotangents):
  splats, pairs, tile_starts, background, composited = residuals
  to_image, to_alpha, to_depth = cotangents
  to_alpha = to_alpha - _dot("hwc,c->hw", to_image, background)
  cotangent = jnp.concatenate([to_image, to_alpha[..., None], to_depth[..., None]], axis=-1)
  total = jnp.sum(cotangent * composited, axis=-1, keepdims=True)
  walk = sequential_vmap(functools.partial(_composite_transposed, layout))
  gradient = walk(splats, pairs, tile_starts, layout.cut(cotangent), layout.cut(total)[:, 0])
  to_background = _dot("hwc,hw->c", to_image, 1 - composited[..., -2])
  return (gradient[:, :2], gradient[:, 2:5], gradient[:, 6:-2], gradient[:, 5], gradient[:, -1], None, None, to_background)


rasterize.defvjp(_rasterize_fwd, _rasterize_bwd)


class _Blocks(NamedTuple):
  """Tiles in order of falling list length, so that the tiles of a block end together."""

  tiles: Int[Array, "m"]  # padded to whole blocks
  starts: Int[Array, "m"]
  counts: Int[Array, "m"]
  slots: Int[Array, "t"]  # where each tile stands in that order
  used: Int[Array, ""]  # blocks that hold any pair

  def take(self, block: Int[Array, ""], size: int) -> tuple[Int[Array, "g"], Int[Array, "g"], Int[Array, "g"]]:
    return tuple(lax.dynamic_slice_in_dim(array, block * size, size) for array in (self.tiles, self.starts, self.counts))


def _blocks(layout: Layout, tile_starts: Int[Array, "q"]) -> _Blocks:
  counts = tile_starts[1:] - tile_starts[:-1]
  order = jnp.argsort(-counts).astype(jnp.int32)
  slots = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0], dtype=jnp.int32))
  pad = (0, -order.shape[0] % layout.block)
  used = (jnp.sum(counts > 0) + layout.block - 1) // layout.block
  return _Blocks(jnp.pad(order, pad), jnp.pad(tile_starts[order], pad), jnp.pad(counts[order], pad), slots, used.astype(jnp.int32))


class _Chunk(NamedTuple):
  """The next splats of every tile of a block (g tiles, k splats, p pixels) and what they do there."""

  ids: Int[Array, "g k"]
  valid: Bool[Array, "g k"]
  rows: Float[Array, "g k f"]  # offset of the mean from the tile's centre (2), conic (3), opacity, carried features
  alpha: Float[Array, "g k p"]
  free: Bool[Array, "g k p"]  # alpha not clamped
  before: Float[Array, "g k p"]  # transmittance in front of the splat
  weights: Float[Array, "g k p"]
  after: Float[Array, "g p"]  # log transmittance behind the chunk


def _chunk(layout: Layout, splats, pairs, block, step, log_transmittance) -> _Chunk:
  tiles, starts, counts = block
  within = step * _CHUNK + jnp.arange(_CHUNK, dtype=jnp.int32)
  valid = within < counts[:, None]
  ids = pairs[jnp.minimum(starts[:, None] + within, pairs.shape[0] - 1)]
  centres = (jnp.stack([tiles % layout.columns, tiles // layout.columns], axis=-1) + 0.5) * layout.tile
  rows = splats[ids].at[..., :2].add(-centres[:, None].astype(splats.dtype))
  mean_x, mean_y, a, b, c, opacity = (rows[..., i, None] for i in range(6))
  pixel_x, pixel_y = layout.pixels(splats.dtype)
  x, y = pixel_x - mean_x, pixel_y - mean_y
  power = -0.5 * (a * x * x + c * y * y) - b * x * y
  raw = opacity * jnp.exp(power)
  visible = (raw >= SMALLEST_ALPHA) & (power <= 0) & valid[..., None]
  alpha = jnp.where(visible, jnp.minimum(raw, LARGEST_ALPHA), 0)
  log_passed = jnp.log(1 - alpha)
  behind = _running_sum(log_passed) + log_transmittance[:, None]
  before = jnp.exp(behind - log_passed)
  weights = jnp.where(behind > _LOG_STOP, alpha * before, 0)
  after = jnp.where((step + 1) * _CHUNK < counts[:, None], behind[:, -1], _ENDED)
  return _Chunk(ids, valid, rows, alpha, raw <= LARGEST_ALPHA, before, weights, after)


def _running_sum(values: Float[Array, "g k p"]) -> Float[Array, "g k p"]:
  """Inclusive sum along the splats, as a product with a triangle of ones."""
  triangle = jnp.tril(jnp.ones((_CHUNK, _CHUNK), values.dtype))
  return _dot("gjk,gkp->gjp", jnp.broadcast_to(triangle, (values.shape[0], _CHUNK, _CHUNK)), values)


def _unfinished(log_transmittance: Float[Array, "g p"]) -> Bool[Array, ""]:
  return jnp.any(log_transmittance > _LOG_STOP)


def _composite(layout: Layout, splats: Float[Array, "n f"], pairs: Int[Array, "p"], tile_starts: Int[Array, "q"]) -> Array:
  """Weighted sums of the carried features: [tiles, features, pixels of a tile]."""
  blocks, size, area, carried = _blocks(layout, tile_starts), layout.block, layout.tile**2, splats.shape[1] - 6

  def one_block(index, tiles):
    block = blocks.take(index, size)

    def body(state):
      step, log_transmittance, sums = state
      chunk = _chunk(layout, splats, pairs, block, step, log_transmittance)
      return step + 1, chunk.after, sums + _dot("gkf,gkp->gfp", chunk.rows[..., 6:], chunk.weights)

    start = (jnp.int32(0), _first_transmittance(block, area, splats.dtype), jnp.zeros((size, carried, area), splats.dtype))
    sums = lax.while_loop(lambda state: _unfinished(state[1]), body, start)[2]
    return lax.dynamic_update_slice_in_dim(tiles, sums, index * size, axis=0)

  tiles = jnp.zeros((blocks.tiles.shape[0], carried, area), splats.dtype)
  return lax.fori_loop(jnp.int32(0), blocks.used, one_block, tiles)[blocks.slots]


def _first_transmittance(block, area: int, dtype: jnp.dtype) -> Float[Array, "g p"]:
  counts = block[2]
  return jnp.broadcast_to(jnp.where(counts > 0, 0.0, _ENDED).astype(dtype)[:, None], (counts.shape[0], area))


def _composite_transposed(
  layout: Layout,
  splats: Float[Array, "n f"],
  pairs: Int[Array, "p"],
  tile_starts: Int[Array, "q"],
  cotangent: Float[Array, "t f2 p2"],
  total: Float[Array, "t p2"],
) -> Float[Array, "n f"]:
  """Gradient of <cotangent, _composite(splats)> with respect to splats; `total` is that product per pixel."""
  blocks, size = _blocks(layout, tile_starts), layout.block
  pixel_x, pixel_y = layout.pixels(splats.dtype)
  basis = jnp.stack([jnp.ones_like(pixel_x), pixel_x, pixel_y, pixel_x**2, pixel_x * pixel_y, pixel_y**2], axis=-1)

  def one_block(index, gradient):
    block = blocks.take(index, size)
    here, remaining = cotangent[block[0]], total[block[0]]

    def body(state):
      step, log_transmittance, remaining, gradient = state
      chunk = _chunk(layout, splats, pairs, block, step, log_transmittance)
      along = _dot("gkf,gfp->gkp", chunk.rows[..., 6:], here)
      remaining = remaining[:, None] - _running_sum(chunk.weights * along)
      to_alpha = chunk.before * along - remaining / (1 - chunk.alpha)
      to_power = jnp.where((chunk.weights > 0) & chunk.free, chunk.alpha * to_alpha, 0)
      moments = _dot("gkp,pm->gkm", to_power, basis)
      rows = jnp.concatenate([_from_moments(chunk.rows, moments), _dot("gkp,gfp->gkf", chunk.weights, here)], axis=-1)
      gradient = gradient.at[jnp.where(chunk.valid, chunk.ids, gradient.shape[0])].add(rows, mode="drop")
      return step + 1, chunk.after, remaining[:, -1], gradient

    start = (jnp.int32(0), _first_transmittance(block, layout.tile**2, splats.dtype), remaining, gradient)
    return lax.while_loop(lambda state: _unfinished(state[1]), body, start)[3]

  return lax.fori_loop(jnp.int32(0), blocks.used, one_block, jnp.zeros_like(splats))


def _from_moments(rows: Float[Array, "g k f"], moments: Float[Array, "g k 6"]) -> Float[Array, "g k 6"]:
  """Gradients of (mean, conic, opacity) from the moments of d loss / d power about the tile's centre."""
  mean_x, mean_y, a, b, c, opacity = (rows[..., i] for i in range(6))
  one, x, y, xx, xy, yy = (moments[..., i] for i in range(6))
  about_x, about_y = x - mean_x * one, y - mean_y * one
  about_xx = xx - 2 * mean_x * x + mean_x * mean_x * one
  about_xy = xy - mean_x * y - mean_y * x + mean_x * mean_y * one
  about_yy = yy - 2 * mean_y * y + mean_y * mean_y * one
  # d power / d mean = conic d; a splat with any moment has an opacity of at least SMALLEST_ALPHA.
  to_opacity = one / jnp.maximum(opacity, SMALLEST_ALPHA)
  return jnp.stack([a * about_x + b * about_y, b * about_x + c * about_y, -0.5 * about_xx, -about_xy, -0.5 * about_yy, to_opacity], axis=-1)
