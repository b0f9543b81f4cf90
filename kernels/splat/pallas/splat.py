"""splat on a GPU: Pallas kernels through Triton, forward and backward. A batch, however nested, is one set of launches."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from silky_kernels.rasterize.definition import SMALLEST_ALPHA
from silky_kernels.splat.pallas.bins import Lists, list_pairs
from silky_kernels.splat.pallas.layout import LINE, Layout
from silky_kernels.splat.pallas.pack import pack
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


_PICTURES = 7  # place of the first picture among the arguments of `_pull`


def _layout(settings, features):
  width, height, capacity, interpret = settings
  batch, n, channels = features.shape
  layout = Layout(width, height, batch, n, channels, batch * capacity, interpret)
  for name, size in layout.largest().items():
    if size >= 2**31:
      raise ValueError(f"{name}: {batch} pictures of capacity {capacity} want {size} numbers, more than 2^31 - 1; lower capacity or batch")
  return layout


def _draw(settings, *arrays):
  return _draw_and_keep(settings, *arrays, keep=False)


def _draw_and_keep(settings, means2d, boxes, depths, conics, opacities, features, background, *, keep=True):
  layout = _layout(settings, features)
  lines, records, keys = pack(layout, means2d, boxes, depths, conics, opacities, features)
  lists = list_pairs(layout, lines, keys)
  pictures, kept = composite(layout, lists, records, background, keep=keep)
  drawn = lists.starts[layout.tiles :: layout.tiles] - lists.starts[: -1 : layout.tiles]
  # Only where room was missing: the kernels that count and fill may round differently, which is no overflow.
  short = jnp.sum(lists.wanted.astype(jnp.float32)) > layout.capacity
  found = (*pictures, jnp.where(short, lists.wanted - drawn, 0), lists.wanted)
  if not keep:
    return found
  parts = (lines, records, *lists[:2], lists.starts[:-1], lists.starts[1:], *lists[3:-1], *kept)
  return (*found, *(array.reshape(layout.batch, -1) for array in parts))


def _pull(settings, means2d, boxes, depths, conics, opacities, features, background, image, alpha, depth, *rest):
  *cotangents, lines, records, splats, slots, first, last, order, ends, tiles, segments, stops, states = rest
  layout = _layout(settings, features)
  starts = jnp.append(first.reshape(-1), last.reshape(-1)[-1])
  flat = (array.reshape(-1) for array in (splats, slots, starts, order, ends, tiles, segments))
  lists = Lists(*flat, wanted=jnp.zeros(layout.batch, jnp.int32))
  made, kept = (image, alpha, depth), [stops, states]
  moments, to_depths, to_features = composite_transposed(
    layout, lists, records.reshape(-1, layout.record), background, made, kept, tuple(cotangents)
  )
  one, x, y, xx, xy, yy = jnp.moveaxis(moments.reshape(layout.batch, layout.n, 6), -1, 0)
  # From the lines: what is not finite is 0 there. A splat with any moment has an opacity of at least SMALLEST_ALPHA.
  a, b, c, opacity = jnp.moveaxis(lines.reshape(layout.batch, layout.n, LINE), -1, 0)[2:6]
  to_means = jnp.stack([a * x + b * y, b * x + c * y], axis=-1)
  to_conics = jnp.stack([-0.5 * xx, -xy, -0.5 * yy], axis=-1)
  to_opacities = one / jnp.maximum(opacity, SMALLEST_ALPHA)
  to_background = jnp.einsum("bhwc,bhw->bc", cotangents[0], 1.0 - alpha, precision=jax.lax.Precision.HIGHEST)
  shape = (layout.batch, layout.n)
  return to_means, to_depths.reshape(shape), to_conics, to_opacities, to_features.reshape(*shape, -1), to_background
