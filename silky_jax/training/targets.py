"""What LPIPS' network sees in the training pictures, computed once a run. Only where the background is fixed: else every step has others.

It is kept in bfloat16: of activations of unit length the last place is 1/256 of each, whose square is far below any distance that
training reaches.
"""

import math

import jax
import jax.numpy as jnp

from silky_jax.config import UserError
from silky_jax.data.clips import Draw
from silky_jax.data.resident import Film, gather
from silky_jax.losses import perceptual
from silky_jax.progress import Progress
from silky_jax.training.objective import StepConfig, exact_products, truth
from silky_jax.types import Frame

__all__ = ["look_up", "make_table"]

_GIB = 2**30


def make_table(config: StepConfig, weights: perceptual.Weights, film: Film, *, free: int | None) -> perceptual.Taps:
  """The taps of every training picture, as the step compares it.

  Args:
    config: static settings of a step with LPIPS; its background is a colour.
    weights: from `perceptual.load` or `cast`.
    film: on the device.
    free: bytes free on the device; None: not known.

  Returns:
    bfloat16 [n, y, x, c] per tapped layer, on the device.

  Raises:
    UserError: there is no room for it.
  """
  if config.background is None:
    raise ValueError("config.background: expected a colour, got None, which is another one every step")
  color = jnp.asarray(config.background, jnp.float32)[None]
  count = len(film.parts)

  def look(weights: perceptual.Weights, film: Film, row: jax.Array) -> perceptual.Taps:
    draw = Draw(row[None, None], jnp.ones((1, 1), bool), jnp.zeros((1, 1), jnp.int32))
    frame: Frame = jax.tree.map(lambda leaf: leaf[0], gather(film, draw).target)
    return perceptual.taps(weights, truth(config, frame, color)[0], precision=config.precision)

  def fill(table: perceptual.Taps, weights: perceptual.Weights, film: Film, row: jax.Array) -> perceptual.Taps:
    with exact_products():
      found = look(weights, film, row)
    return tuple(all_.at[row].set(one[0].astype(all_.dtype)) for all_, one in zip(table, found, strict=True))

  shapes = [(count, *one.shape[1:]) for one in jax.eval_shape(look, weights, film, jnp.zeros((), jnp.int32))]
  size = sum(2 * math.prod(shape) for shape in shapes)
  if free is not None and size > 0.9 * free:
    raise UserError(
      f"losses.cache_targets: {count} training pictures take {size / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free on the device; "
      "give --config.losses.cache_targets=False or --config.losses.perceptual_net=alexnet"
    )
  table = tuple(jnp.zeros(shape, jnp.bfloat16) for shape in shapes)
  one_more = jax.jit(fill, donate_argnums=0)
  with Progress("what LPIPS sees", count, "pictures") as progress:
    for row in range(count):
      table = one_more(table, weights, film, jnp.asarray(row, jnp.int32))
      if row % 16 == 15 or row == count - 1:
        jax.block_until_ready(table)
        progress.to(row + 1)
  return table


def look_up(table: perceptual.Taps, draw: Draw) -> perceptual.Taps:
  """The taps of a draw's rendered frames, [b r, y, x, c] each, as the objective compares them. Pure."""
  wanted = jnp.take_along_axis(jnp.asarray(draw.frames), jnp.asarray(draw.rendered), axis=1).ravel()
  return tuple(layer.at[wanted].get(mode="promise_in_bounds") for layer in table)
