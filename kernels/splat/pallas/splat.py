"""splat on a GPU: Pallas kernels through Triton, forward and backward. A batch, however nested, is one set of launches."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from silky_kernels.rasterize.definition import SMALLEST_ALPHA
from silky_kernels.splat.pallas.bins import Lists, list_pairs
from silky_kernels.splat.pallas.layout import FEATURES, LINE, Layout
from silky_kernels.splat.pallas.tiles import composite, composite_transposed
from silky_kernels.triton import interpreted, merge_batches

__all__ = ["splat"]


def splat(
  means2d: Float[Array, "n 2"],
  boxes: Float[Array, "n 2"],
  depths: Float[Array, "n"],
  conics: Float[Array, "n 3"],
  opacities: Float[Array, "n"],
  features: Float[Array, "n c"],
  background: Float[Array, "c"],
  width: int,
  height: int,
  capacity: int,
) -> tuple[Array, Array, Array, Array, Array]:
  """See `api.splat`; returns (image, alpha, depth, overflow, wanted)."""
  settings = (width, height, capacity, interpreted())
  batch_of_one = (array[None] for array in (means2d, boxes, depths, conics, opacities, features, background))
  made: Any = _splat(settings, *batch_of_one)
  return tuple(array[0] for array in made)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _splat(settings, *arrays):
  return _by_batch(settings, _draw)(*arrays)


def _forward(settings, *arrays):
  image, alpha, depth, overflow, wanted, *kept = _by_batch(settings, _draw_and_keep)(*arrays)
  return (image, alpha, depth, overflow, wanted), (arrays, (image, alpha, depth), kept)


def _backward(settings, residuals, cotangents):
  arrays, pictures, kept = residuals
  gradients = _by_batch(settings, _pull)(*arrays, *pictures, *cotangents[:3], *kept)
  to_means, to_depths, to_conics, to_opacities, to_features, to_background = gradients
  return to_means, jnp.zeros_like(arrays[1]), to_depths, to_conics, to_opacities, to_features, to_background


_splat.defvjp(_forward, _backward)


def _by_batch(settings, function):
  """`function(settings, *arrays)` of arrays [b, ...] whose batches, under vmap, become one longer batch."""

  # One picture, many cotangents: its lists are numbered for it alone.
  shared = (lambda batched: not batched[_PICTURES]) if function is _pull else None
  return merge_batches(functools.partial(function, settings), one_by_one=shared)


_LOG2_E = 1.4426950408889634
_PICTURES = 7  # place of the first picture among the arguments of `_pull`


def _prepared(settings, means2d, boxes, depths, conics, opacities, features):
  """Layout, and the splats of all pictures in one: lines, depths, records (layout.py)."""
  width, height, capacity, interpret = settings
  batch, n, channels = features.shape
  layout = Layout(width, height, batch, n, channels, batch * capacity, interpret)
  for name, size in layout.largest().items():
    if size >= 2**31:
      raise ValueError(f"{name}: {batch} pictures of capacity {capacity} want {size} numbers, more than 2^31 - 1; lower capacity or batch")
  numbers = jnp.concatenate([means2d, boxes, depths[..., None], conics, opacities[..., None]], axis=-1)
  sound = (jnp.isfinite(numbers).all(axis=-1) & jnp.isfinite(features).all(axis=-1) & (boxes > 0).all(axis=-1))[..., None]
  lines = jnp.where(sound, jnp.concatenate([means2d, conics, opacities[..., None], boxes], axis=-1), 0.0)
  depths = jnp.where(sound, depths[..., None], 0.0)
  padding = jnp.zeros((batch, n, layout.record - FEATURES - channels), jnp.float32)
  scaled = jnp.asarray([1, 1, -0.5 * _LOG2_E, -_LOG2_E, -0.5 * _LOG2_E, 1], jnp.float32) * lines[..., :6]
  # Also the features: a turn's spare places look at splat 0, with weight 0, and 0 times what is not finite is not 0.
  records = jnp.concatenate([scaled, depths, jnp.where(sound, features, 0.0), padding], axis=-1)
  return layout, lines.reshape(-1, LINE), depths.reshape(-1), records.reshape(batch * n, -1)


def _draw(settings, *arrays):
  return _draw_and_keep(settings, *arrays, keep=False)


def _draw_and_keep(settings, means2d, boxes, depths, conics, opacities, features, background, *, keep=True):
  layout, lines, far, records = _prepared(settings, means2d, boxes, depths, conics, opacities, features)
  lists = list_pairs(layout, lines, far)
  pictures, kept = composite(layout, lists, records, background, keep=keep)
  drawn = lists.starts[layout.tiles :: layout.tiles] - lists.starts[: -1 : layout.tiles]
  # Only where room was missing: the kernels that count and fill may round differently, which is no overflow.
  short = jnp.sum(lists.wanted.astype(jnp.float32)) > layout.capacity
  found = (*pictures, jnp.where(short, lists.wanted - drawn, 0), lists.wanted)
  if not keep:
    return found
  parts = (*lists[:2], lists.starts[:-1], lists.starts[1:], *lists[3:-1], *kept)
  return (*found, *(array.reshape(layout.batch, -1) for array in parts))


def _pull(settings, means2d, boxes, depths, conics, opacities, features, background, image, alpha, depth, *rest):
  *cotangents, splats, slots, first, last, order, ends, tiles, segments, stops, states = rest
  layout, lines, _, records = _prepared(settings, means2d, boxes, depths, conics, opacities, features)
  starts = jnp.append(first.reshape(-1), last.reshape(-1)[-1])
  flat = (array.reshape(-1) for array in (splats, slots, starts, order, ends, tiles, segments))
  lists = Lists(*flat, wanted=jnp.zeros(layout.batch, jnp.int32))
  made, kept = (image, alpha, depth), [stops, states]
  moments, to_depths, to_features = composite_transposed(layout, lists, records, background, made, kept, tuple(cotangents))
  one, x, y, xx, xy, yy = jnp.moveaxis(moments.reshape(layout.batch, layout.n, 6), -1, 0)
  # From the lines: what is not finite is 0 there. A splat with any moment has an opacity of at least SMALLEST_ALPHA.
  a, b, c, opacity = jnp.moveaxis(lines.reshape(layout.batch, layout.n, LINE), -1, 0)[2:6]
  to_means = jnp.stack([a * x + b * y, b * x + c * y], axis=-1)
  to_conics = jnp.stack([-0.5 * xx, -xy, -0.5 * yy], axis=-1)
  to_opacities = one / jnp.maximum(opacity, SMALLEST_ALPHA)
  to_background = jnp.einsum("bhwc,bhw->bc", cotangents[0], 1.0 - alpha, precision=jax.lax.Precision.HIGHEST)
  shape = (layout.batch, layout.n)
  return to_means, to_depths.reshape(shape), to_conics, to_opacities, to_features.reshape(*shape, -1), to_background
