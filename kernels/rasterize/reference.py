"""rasterize_tiles in plain JAX, fast enough to train with on a CPU.

Same values and gradients as `definition.py`, organised as lanes that work side by side. A lane walks the list of one tile, a chunk of
splats per step, until the list ends or every pixel of the tile is opaque; then it takes the next tile from a queue. The loop ends when the
queue is empty, so spare pair capacity costs nothing. Inside a step all sums over pixels, splats and channels are small matrix products.

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

# Pixels of all lanes together, and splats per step: their product is the size of the arrays inside the loop. Measured: README.md.
_LANE_PIXELS = 4096
_CHUNK = 16

_LOG_STOP = math.log(STOP_TRANSMITTANCE)

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
  def lanes(self) -> int:
    """Tiles that are worked on at once."""
    return max(1, min(_LANE_PIXELS // self.tile**2, self.columns * self.rows))

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


class _Lanes(NamedTuple):
  """What each of g lanes is busy with. A lane walks one tile's list at a time and takes the next tile when that is done."""

  tiles: Int[Array, "g"]  # number of tiles = idle
  steps: Int[Array, "g"]  # chunks done
  log_transmittance: Float[Array, "g p"]
  taken: Int[Array, ""]  # tiles handed out


class _Queue(NamedTuple):
  """Tiles to do, longest list first, so that no long one is left over at the end."""

  order: Int[Array, "t"]
  starts: Int[Array, "q"]
  counts: Int[Array, "q"]  # 0 for the idle tile at the end
  used: Int[Array, ""]  # tiles whose list is not empty

  def first(self, lanes: int, area: int, dtype: jnp.dtype) -> _Lanes:
    places = jnp.arange(lanes, dtype=jnp.int32)
    return _Lanes(self._tile(places), jnp.zeros_like(places), jnp.zeros((lanes, area), dtype), jnp.int32(lanes))

  def advance(self, lanes: _Lanes, after: Float[Array, "g p"]) -> tuple[_Lanes, Bool[Array, "g"]]:
    """The lanes after a step that left `after` as log transmittance, and which of them have finished their tile with it."""
    ended = (lanes.steps + 1) * _CHUNK >= self.counts[lanes.tiles]
    finished = ended | ~jnp.any(after > _LOG_STOP, axis=1)
    places = lanes.taken + jnp.cumsum(finished, dtype=jnp.int32) - 1
    tiles = jnp.where(finished, self._tile(places), lanes.tiles)
    steps = jnp.where(finished, 0, lanes.steps + 1)
    return _Lanes(tiles, steps, jnp.where(finished[:, None], 0, after), lanes.taken + jnp.sum(finished, dtype=jnp.int32)), finished

  def busy(self, lanes: _Lanes) -> Bool[Array, ""]:
    return jnp.any(lanes.tiles < self.order.shape[0])

  def _tile(self, places: Int[Array, "g"]) -> Int[Array, "g"]:
    count = self.order.shape[0]
    return jnp.where(places < self.used, self.order[jnp.minimum(places, count - 1)], count)


def _queue(tile_starts: Int[Array, "q"]) -> _Queue:
  counts = tile_starts[1:] - tile_starts[:-1]
  order = jnp.argsort(-counts).astype(jnp.int32)
  return _Queue(order, tile_starts, jnp.append(counts, 0), jnp.sum(counts > 0, dtype=jnp.int32))


def _take(array: Array, indices: Int[Array, "*k"]) -> Array:
  """Rows of an array; an index past the end (idle lanes, filler) reads the last row, and what comes of it is dropped."""
  return array.at[indices].get(mode="clip")


class _Chunk(NamedTuple):
  """The next k splats of every lane and what they do to the p pixels of its tile."""

  ids: Int[Array, "g k"]
  valid: Bool[Array, "g k"]
  rows: Float[Array, "g k f"]  # offset of the mean from the tile's centre (2), conic (3), opacity, carried features
  alpha: Float[Array, "g k p"]
  free: Bool[Array, "g k p"]  # alpha not clamped
  before: Float[Array, "g k p"]  # transmittance in front of the splat
  weights: Float[Array, "g k p"]
  after: Float[Array, "g p"]  # log transmittance behind the chunk


def _chunk(layout: Layout, splats, pairs, queue: _Queue, lanes: _Lanes) -> _Chunk:
  within = lanes.steps[:, None] * _CHUNK + jnp.arange(_CHUNK, dtype=jnp.int32)
  valid = within < queue.counts[lanes.tiles][:, None]
  ids = _take(pairs, queue.starts[lanes.tiles][:, None] + within)
  centres = (jnp.stack([lanes.tiles % layout.columns, lanes.tiles // layout.columns], axis=-1) + 0.5) * layout.tile
  rows = _take(splats, ids).at[..., :2].add(-centres[:, None].astype(splats.dtype))
  mean_x, mean_y, a, b, c, opacity = (rows[..., i, None] for i in range(6))
  pixel_x, pixel_y = layout.pixels(splats.dtype)
  x, y = pixel_x - mean_x, pixel_y - mean_y
  power = -0.5 * (a * x * x + c * y * y) - b * x * y
  raw = opacity * jnp.exp(power)
  visible = (raw >= SMALLEST_ALPHA) & (power <= 0) & valid[..., None]
  alpha = jnp.where(visible, jnp.minimum(raw, LARGEST_ALPHA), 0)
  log_passed = jnp.log(1 - alpha)
  behind = _running_sum(log_passed) + lanes.log_transmittance[:, None]
  before = jnp.exp(behind - log_passed)
  weights = jnp.where(behind > _LOG_STOP, alpha * before, 0)
  return _Chunk(ids, valid, rows, alpha, raw <= LARGEST_ALPHA, before, weights, behind[:, -1])


def _running_sum(values: Float[Array, "g k p"]) -> Float[Array, "g k p"]:
  """Inclusive sum along the splats, as a product with a triangle of ones."""
  triangle = jnp.tril(jnp.ones((_CHUNK, _CHUNK), values.dtype))
  return _dot("gjk,gkp->gjp", jnp.broadcast_to(triangle, (values.shape[0], _CHUNK, _CHUNK)), values)


def _composite(layout: Layout, splats: Float[Array, "n f"], pairs: Int[Array, "p"], tile_starts: Int[Array, "q"]) -> Array:
  """Weighted sums of the carried features: [tiles, features, pixels of a tile]."""
  queue, count, carried = _queue(tile_starts), tile_starts.shape[0] - 1, splats.shape[1] - 6

  def body(state):
    lanes, sums, tiles = state
    chunk = _chunk(layout, splats, pairs, queue, lanes)
    sums = sums + _dot("gkf,gkp->gfp", chunk.rows[..., 6:], chunk.weights)
    following, finished = queue.advance(lanes, chunk.after)
    tiles = tiles.at[jnp.where(finished, lanes.tiles, count)].set(sums, mode="drop")
    return following, jnp.where(finished[:, None, None], 0, sums), tiles

  shape = (carried, layout.tile**2)
  sums, tiles = jnp.zeros((layout.lanes, *shape), splats.dtype), jnp.zeros((count, *shape), splats.dtype)
  start = (queue.first(layout.lanes, shape[1], splats.dtype), sums, tiles)
  return lax.while_loop(lambda state: queue.busy(state[0]), body, start)[2]


def _composite_transposed(
  layout: Layout,
  splats: Float[Array, "n f"],
  pairs: Int[Array, "p"],
  tile_starts: Int[Array, "q"],
  cotangent: Float[Array, "t f2 p2"],
  total: Float[Array, "t p2"],
) -> Float[Array, "n f"]:
  """Gradient of <cotangent, _composite(splats)> with respect to splats; `total` is that product per pixel."""
  queue = _queue(tile_starts)
  pixel_x, pixel_y = layout.pixels(splats.dtype)
  basis = jnp.stack([jnp.ones_like(pixel_x), pixel_x, pixel_y, pixel_x**2, pixel_x * pixel_y, pixel_y**2], axis=-1)

  def body(state):
    lanes, remaining, gradient = state
    chunk = _chunk(layout, splats, pairs, queue, lanes)
    here = _take(cotangent, lanes.tiles)
    along = _dot("gkf,gfp->gkp", chunk.rows[..., 6:], here)
    left = remaining[:, None] - _running_sum(chunk.weights * along)
    to_alpha = chunk.before * along - left / (1 - chunk.alpha)
    to_power = jnp.where((chunk.weights > 0) & chunk.free, chunk.alpha * to_alpha, 0)
    moments = _dot("gkp,pm->gkm", to_power, basis)
    rows = jnp.concatenate([_from_moments(chunk.rows, moments), _dot("gkp,gfp->gkf", chunk.weights, here)], axis=-1)
    gradient = gradient.at[jnp.where(chunk.valid, chunk.ids, gradient.shape[0])].add(rows, mode="drop")
    lanes, finished = queue.advance(lanes, chunk.after)
    return lanes, jnp.where(finished[:, None], _take(total, lanes.tiles), left[:, -1]), gradient

  lanes = queue.first(layout.lanes, layout.tile**2, splats.dtype)
  start = (lanes, _take(total, lanes.tiles), jnp.zeros_like(splats))
  return lax.while_loop(lambda state: queue.busy(state[0]), body, start)[2]


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
