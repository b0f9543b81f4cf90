"""Which splats touch which tile, on a GPU: counts, one prefix sum, one stable sort of tile numbers. Nothing is searched one by one.

A splat touches a tile where the tile holds a pixel centre that lies in the splat's box and, row of tiles by row of tiles, between the
leftmost and the rightmost point of the ellipse on which alpha is 1/255. That is exact but for rounding, which errs outwards.

    order    splats of all pictures by depth: by counting which are nearer, kernel `_ranks`, where they are few; else one sort of (bits of
             the depth, number)
    counts   tiles per splat: kernel `_count`
    ends     prefix sum of the counts in that order: the slots of a splat lie side by side, nearest splat first
    tiles    kernel `_expand`: the splat of each slot by bisection in `ends`, then its tile; no splat is too large for that
    lists    stable sort of (tile, slot) by tile alone: the depth order remains. 16-bit keys, two passes, where the tiles are few enough

The backward pass writes one row of gradients per slot, where the rows of a splat lie side by side again.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int, UInt32
from silky_kernels.rasterize.definition import SMALLEST_ALPHA
from silky_kernels.splat.pallas.layout import TILE, Layout, Splat, load_splat
from silky_kernels.triton import launch, load, store

__all__ = ["Lists", "bisect", "list_pairs"]

_COUNT_BLOCK = 128
_RANKED = 2**14  # splats, at most, that are ordered by counting. XLA sorts no more than these by passes of its own, a dozen launches
_RANK_OWN, _RANK_OTHERS = 32, 128  # splats of a program, and those that it compares them with in a turn
_EXPAND_BLOCK = 256
_SATURATED = 2**30 - 1  # pairs; more are not told apart
_SLACK = 1e-3  # px, and part of the half width: rounding of the roots


class Lists(NamedTuple):
  """Pairs by tile, and where the pairs of a splat lie. p: capacity, m: splats, q: tiles + 1; of all pictures."""

  splats: Int[Array, "p"]  # of each pair, sorted by tile, then by depth
  slots: Int[Array, "p"]  # of each pair, in the same order
  starts: Int[Array, "q"]  # first pair of each tile; last: pairs kept
  order: Int[Array, "m"]  # splats by depth
  ends: Int[Array, "m"]  # one past the last slot of each splat, in that order
  tiles: Array  # [p] tile of each slot; the number of tiles where the slot is empty
  segments: Int[Array, "t"]  # one past the last segment of each tile: its list is cut into pieces of `layout.segment` pairs
  wanted: Int[Array, "b"]  # pairs per picture, saturating at 2^30 - 1


def list_pairs(layout: Layout, lines: Float[Array, "m 8"], keys: UInt32[Array, "m"]) -> Lists:
  """See the module's text. Where there are more pairs than slots, those of the farthest splats are left out.

  Args:
    layout: sizes; m = batch * n.
    lines: from `pack`, all finite; a box of 0 on either axis is a culled splat.
    keys: likewise; they ascend with the depth.
  """
  order = _by_depth(layout, keys)
  counts = _counts(layout, lines)
  ends, wanted = _ends(layout, counts, order)
  tiles, owners = _expand(layout, lines, order, ends)
  sorted_tiles, slots = lax.sort((tiles, jnp.arange(layout.capacity, dtype=jnp.uint32)), num_keys=1, is_stable=True)
  slots = slots.astype(jnp.int32)
  starts = _starts(layout, sorted_tiles)
  segments = jnp.cumsum(-((starts[:-1] - starts[1:]) // layout.segment), dtype=jnp.int32)
  return Lists(owners[slots], slots, starts, order, ends, tiles, segments, wanted)


def _ends(layout: Layout, counts: Int[Array, "m"], order: Int[Array, "m"]) -> tuple[Int[Array, "m"], Int[Array, "b"]]:
  by_picture = counts.reshape(layout.batch, layout.n)
  ends = jnp.cumsum(counts[order], dtype=jnp.int32)
  if layout.batch * layout.n * layout.tiles < _SATURATED:
    return ends, jnp.sum(by_picture, axis=1, dtype=jnp.int32)
  # The sums in floats are rough but cannot wrap: they say where the integers can be trusted.
  rough = jnp.cumsum(counts[order].astype(jnp.float32))
  wanted = jnp.minimum(jnp.sum(by_picture.astype(jnp.float32), axis=1), _SATURATED)
  return jnp.where(rough < _SATURATED, ends, _SATURATED), wanted.astype(jnp.int32)


# ---- the ellipse of a splat, row of tiles by row of tiles; all on vectors of splats


class _Ellipse(NamedTuple):
  """What its rows share."""

  first_row: Array  # of tiles
  rows: Array  # 0: touches nothing
  first_pixel: Array  # topmost and bottommost row of pixels
  last_pixel: Array
  half_height: Array  # px
  turn: Array  # px, height of the rightmost point over the mean
  reach: Array  # 2 ln(255 opacity)
  determinant: Array
  slack: Array  # px
  is_box: Array  # no ellipse: only the box counts


def _ellipse(layout: Layout, splat: Splat) -> _Ellipse:
  determinant = splat.a * splat.c - splat.b * splat.b
  is_box = ~((splat.a > 0) & (splat.c > 0) & (determinant > 0))
  determinant = jnp.where(is_box, 1.0, determinant)
  reach = 2 * jnp.log(jnp.maximum(splat.opacity / SMALLEST_ALPHA, 1.0))
  half_width = jnp.sqrt(reach * splat.c / determinant)
  half_height = jnp.sqrt(reach * splat.a / determinant)
  # The determinant is a difference: of a needle it is good to this part only.
  rounding = 1e-6 * splat.a * splat.c / determinant
  slack = (_SLACK + rounding) * half_width + _SLACK
  tall = jnp.where(is_box, splat.box_y, jnp.minimum(splat.box_y, (1 + _SLACK + rounding) * half_height + _SLACK))
  first, last = _pixels(splat.mean_y - tall, splat.mean_y + tall, layout.height)
  live = (splat.box_x > 0) & (splat.box_y > 0) & (splat.opacity >= SMALLEST_ALPHA) & (last >= first)
  first_row = first // TILE
  rows = jnp.where(live, last // TILE - first_row + 1, 0)
  turn = -splat.b / jnp.where(is_box, 1.0, splat.c) * half_width
  return _Ellipse(first_row, rows, first, last, half_height, turn, reach, determinant, slack, is_box)


def _pixels(low: Array, high: Array, size: int) -> tuple[Array, Array]:
  """First and last pixel whose centre lies in an interval and in the picture; last < first: none."""
  first = jnp.clip(jnp.ceil(low - 0.5), 0.0, float(size))
  last = jnp.clip(jnp.floor(high - 0.5), -1.0, float(size - 1))
  return first.astype(jnp.int32), last.astype(jnp.int32)


def _columns(layout: Layout, splat: Splat, ellipse: _Ellipse, row: Array) -> tuple[Array, Array]:
  """First tile that a splat touches in a row of tiles, and how many."""
  top = jnp.maximum(row * TILE, ellipse.first_pixel).astype(jnp.float32) + 0.5 - splat.mean_y
  bottom = jnp.minimum(row * TILE + TILE - 1, ellipse.last_pixel).astype(jnp.float32) + 0.5 - splat.mean_y
  top = jnp.clip(top, -ellipse.half_height, ellipse.half_height)
  bottom = jnp.clip(bottom, -ellipse.half_height, ellipse.half_height)

  def side(height: Array, sign: float) -> Array:
    """Where the ellipse ends at a height over the mean."""
    root = jnp.sqrt(jnp.maximum(splat.a * ellipse.reach - ellipse.determinant * height * height, 0.0))
    return (sign * root - splat.b * height) / jnp.where(ellipse.is_box, 1.0, splat.a)

  right = side(jnp.clip(ellipse.turn, top, bottom), 1.0) + ellipse.slack
  left = side(jnp.clip(-ellipse.turn, top, bottom), -1.0) - ellipse.slack
  right = jnp.where(ellipse.is_box, splat.box_x, jnp.minimum(right, splat.box_x))
  left = jnp.where(ellipse.is_box, -splat.box_x, jnp.maximum(left, -splat.box_x))
  first, last = _pixels(splat.mean_x + left, splat.mean_x + right, layout.width)
  return first // TILE, jnp.where(last >= first, last // TILE - first // TILE + 1, 0)


# ---- kernels


def _by_depth(layout: Layout, keys: UInt32[Array, "m"]) -> Int[Array, "m"]:
  """Splats by ascending key; of equal ones the first comes first."""
  count = keys.shape[0]
  if count > _RANKED:
    _, order = lax.sort((keys, jnp.arange(count, dtype=jnp.uint32)), num_keys=1, is_stable=True)
    return order.astype(jnp.int32)
  return _ranks(layout, lax.bitcast_convert_type(keys, jnp.int32))  # bits of what is not negative: the same order


def _ranks(layout: Layout, keys: Int[Array, "m"]) -> Int[Array, "m"]:
  """The order by counting: a splat's place is how many keys are smaller, or equal and before it."""
  count, last = keys.shape[0], 2**31 - 1

  def kernel(keys: Any, order: Any) -> None:
    first = pl.program_id(0) * _RANK_OWN
    own = first + lax.broadcasted_iota(jnp.int32, (_RANK_OWN, 1), 0)
    mine = load(keys, own, own < count)

    def others(turn: Array) -> tuple[Array, Array]:
      other = turn * _RANK_OTHERS + lax.broadcasted_iota(jnp.int32, (1, _RANK_OTHERS), 1)
      return other, jnp.where(other < count, load(keys, other, other < count), last)

    here = first // _RANK_OTHERS  # the turn in which a program meets its own

    def step(turn: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
      total, theirs = state
      ahead = others(turn + 1)[1]
      # The sign of a difference of what is not negative. Equal keys count where they come before: of whole turns, by one less.
      difference = theirs - (turn < here).astype(jnp.int32) - mine
      return total + lax.shift_right_logical(difference, 31), ahead

    nothing = jnp.zeros((_RANK_OWN, _RANK_OTHERS), jnp.int32)
    total, _ = lax.fori_loop(0, -(-count // _RANK_OTHERS), step, (nothing, others(jnp.int32(0))[1]))
    other, theirs = others(here)
    total = total + ((theirs == mine) & (other < own)).astype(jnp.int32)
    store(order, jnp.sum(total, axis=1, keepdims=True), own, own < count)  # each place is one splat's alone

  grid = (-(-count // _RANK_OWN),)
  return launch(kernel, grid, [(count, jnp.int32)], [keys], warps=4, interpret=layout.interpret, name="silky_rank")[0]


def _counts(layout: Layout, lines: Float[Array, "m 8"]) -> Int[Array, "m"]:
  """Tiles that each splat touches."""
  count = lines.shape[0]

  def kernel(lines: Any, counts: Any) -> None:
    index = pl.program_id(0) * _COUNT_BLOCK + lax.iota(jnp.int32, _COUNT_BLOCK)
    real = index < count
    splat = load_splat(lines, index, real)
    ellipse = _ellipse(layout, splat)

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
      row, total = state
      _, touched = _columns(layout, splat, ellipse, ellipse.first_row + row)
      return row + 1, total + jnp.where(row < ellipse.rows, touched, 0)

    most = jnp.max(ellipse.rows)
    _, total = lax.while_loop(lambda state: state[0] < most, step, (jnp.int32(0), jnp.zeros(_COUNT_BLOCK, jnp.int32)))
    store(counts, index, total, real)

  grid = (-(-count // _COUNT_BLOCK),)
  return launch(kernel, grid, [(count, jnp.int32)], [lines], warps=4, interpret=layout.interpret, name="silky_count")[0]


def _expand(layout: Layout, lines: Float[Array, "m 8"], order: Int[Array, "m"], ends: Int[Array, "m"]) -> tuple[Array, Int[Array, "p"]]:
  """Tile and splat of each slot; past the last pair the number of tiles, and any splat."""
  count, every = order.shape[0], layout.batch * layout.tiles
  keys = jnp.uint16 if every < 2**16 - 1 else jnp.uint32

  def kernel(lines: Any, order: Any, ends: Any, tiles: Any, owners: Any) -> None:
    slot = pl.program_id(0) * _EXPAND_BLOCK + lax.iota(jnp.int32, _EXPAND_BLOCK)
    rank = bisect(ends, slot, count)
    used = rank < count
    rank = jnp.minimum(rank, count - 1)
    local = slot - jnp.where(rank > 0, load(ends, jnp.maximum(rank - 1, 0)), 0)
    index = load(order, rank)
    splat = load_splat(lines, index)
    ellipse = _ellipse(layout, splat)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
      turn, left, place = state
      row = ellipse.first_row + turn
      first, touched = _columns(layout, splat, ellipse, row)
      here = (left >= 0) & (left < touched) & (turn < ellipse.rows)
      place = jnp.where(here, row * layout.columns + first + left, place)
      return turn + 1, jnp.where(here, -1, jnp.where(left >= 0, left - touched, left)), place

    most = jnp.max(jnp.where(used, ellipse.rows, 0))
    nowhere = jnp.full(_EXPAND_BLOCK, layout.tiles, jnp.int32)
    start = (jnp.int32(0), local, nowhere)
    _, _, place = lax.while_loop(lambda state: (state[0] < most) & (jnp.max(state[1]) >= 0), step, start)
    tile = jnp.where(used & (place < layout.tiles), index // layout.n * layout.tiles + place, every)
    inside = slot < layout.capacity
    store(tiles, slot, tile.astype(keys), inside)
    store(owners, slot, index, inside)

  grid = (-(-layout.capacity // _EXPAND_BLOCK),)
  outputs = [(layout.capacity, keys), (layout.capacity, jnp.int32)]
  found = launch(kernel, grid, outputs, [lines, order, ends], warps=4, interpret=layout.interpret, name="silky_expand")
  return found[0], found[1]


def _starts(layout: Layout, sorted_tiles: Array) -> Int[Array, "q"]:
  """First pair of each tile, then the number of pairs."""
  count = layout.batch * layout.tiles + 1

  def kernel(sorted_tiles: Any, starts: Any) -> None:
    tile = pl.program_id(0) * _COUNT_BLOCK + lax.iota(jnp.int32, _COUNT_BLOCK)
    store(starts, tile, bisect(sorted_tiles, tile - 1, layout.capacity), tile < count)

  grid = (-(-count // _COUNT_BLOCK),)
  return launch(kernel, grid, [(count, jnp.int32)], [sorted_tiles], warps=4, interpret=layout.interpret, name="silky_starts")[0]


def bisect(ends: Any, number: Array, count: int) -> Array:
  """The first place in a sorted array with a number above `number`; `count` where there is none."""

  def halve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    turns, low, high = state
    middle = (low + high) // 2
    above = load(ends, jnp.minimum(middle, count - 1)).astype(jnp.int32) > number
    undecided = low < high
    return turns - 1, jnp.where(undecided & ~above, middle + 1, low), jnp.where(undecided & above, middle, high)

  nothing = load(ends, jnp.int32(count - 1)).astype(jnp.int32) <= jnp.min(number)  # spare room costs no search
  # Counted down: a loop that counts up to a number found at run time is lowered to one that does not verify (jax 0.10).
  turns = jnp.where(nothing, 0, jnp.int32(count.bit_length()))
  _, low, _ = lax.while_loop(lambda state: state[0] > 0, halve, (turns, jnp.zeros_like(number), jnp.full_like(number, count)))
  return jnp.where(nothing, count, low)
