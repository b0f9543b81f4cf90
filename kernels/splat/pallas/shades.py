"""The channels of a splat inside a tile's program: few of them one by one, many of them as one vector.

Up to 8 channels each is a number that all threads load, and a vector of 64 pixels that it is added to. More are loaded together, a few by
each thread, and added to one array [64, c]: fewer loads and, in the gradient, fewer sums across threads, for a change of layout per splat.
Both kinds have the same functions; `none`, `add` and so on take and give tuples of arrays, the state of a loop.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array
from silky_kernels.splat.pallas.layout import FEATURES, TILE, Layout
from silky_kernels.triton import load, store

__all__ = ["Few", "Many", "shades_of"]

_PIXELS = TILE**2
Values = tuple[Array, ...]


class Few(NamedTuple):
  """Channel by channel."""

  layout: Layout
  group: Array

  def _numbers(self) -> range:
    return range(self.layout.group_channels)

  def fetch(self, records: Any, splat: Array) -> Values:
    """The features of a splat."""
    return tuple(load(records, splat * self.layout.record + FEATURES + k) for k in self._numbers())

  def none(self) -> Values:
    """Pixels without colour."""
    return (jnp.zeros(_PIXELS, jnp.float32),) * self.layout.group_channels

  def add(self, colors: Values, weight: Array, shade: Values) -> Values:
    """Pixels with a splat's features on them."""
    return tuple(color + weight * one for color, one in zip(colors, shade, strict=True))

  def along(self, cotangents: Values, shade: Values) -> Array:
    """[64] <cotangent, features>."""
    return sum((cotangent * one for cotangent, one in zip(cotangents, shade, strict=True)), start=jnp.zeros(_PIXELS, jnp.float32))

  def pixels(self, array: Any, at: Array, mask: Array) -> Values:
    """Of a picture [pixels, channels], numbered by `at`."""
    return tuple(load(array, at * self.layout.channels + k, mask) for k in self._numbers())

  def paint(self, image: Any, at: Array, mask: Array, colors: Values) -> None:
    """Writes them."""
    for k, color in zip(self._numbers(), colors, strict=True):
      store(image, at * self.layout.channels + k, color, mask)

  def behind(self, background: Any, picture: Array) -> Values:
    """The background of a picture."""
    return tuple(load(background, picture * self.layout.channels + k) for k in self._numbers())

  def note(self, states: Any, place: Array, local: Array, colors: Values) -> None:
    """Writes a state."""
    for k, color in enumerate(colors):
      store(states, place + k * _PIXELS + local, color)

  def recall(self, states: Any, place: Array, local: Array, mask: Array) -> Values:
    """Reads it; 0 where the mask is false."""
    return tuple(load(states, place + k * _PIXELS + local, mask) for k in self._numbers())

  def write_row(self, rows: Any, at: Array, live: Array, moments: list[Array], weight: Array, cotangents: Values) -> None:
    """One row of the gradient: what is summed over the tile's pixels."""
    lanes = 1 << (self.layout.first_feature + self.layout.group_channels - 1).bit_length()
    lane = lax.iota(jnp.int32, lanes)
    row = jnp.zeros(lanes, jnp.float32)
    for k, value in enumerate([*moments, *(jnp.sum(weight * cotangent) for cotangent in cotangents)]):
      row = jnp.where(lane == k, value, row)
    store(rows, at + lane, row, live & (lane < self.layout.first_feature + self.layout.group_channels))


class Many(NamedTuple):
  """All of a group in one array, whose rows are pixels."""

  layout: Layout
  group: Array

  def _lane(self) -> tuple[Array, Array | None]:
    """[1, c] the number of each channel, and whether there is one (None: surely)."""
    count = self.layout.group_channels
    number = self.group * count + lax.broadcasted_iota(jnp.int32, (1, count), 1)
    return number, number < self.layout.channels if self.layout.groups * count > self.layout.channels else None

  def fetch(self, records: Any, splat: Array) -> Values:
    number, there = self._lane()
    return (load(records, splat * self.layout.record + FEATURES + number, there),)

  def none(self) -> Values:
    return (jnp.zeros((_PIXELS, self.layout.group_channels), jnp.float32),)

  def add(self, colors: Values, weight: Array, shade: Values) -> Values:
    return (colors[0] + weight[:, None] * shade[0],)

  def along(self, cotangents: Values, shade: Values) -> Array:
    return jnp.sum(cotangents[0] * shade[0], axis=1)

  def _place(self, at: Array, mask: Array) -> tuple[Array, Array]:
    number, there = self._lane()
    return at[:, None] * self.layout.channels + number, mask[:, None] if there is None else mask[:, None] & there

  def pixels(self, array: Any, at: Array, mask: Array) -> Values:
    return (load(array, *self._place(at, mask)),)

  def paint(self, image: Any, at: Array, mask: Array, colors: Values) -> None:
    place, shown = self._place(at, mask)
    store(image, place, colors[0], shown)

  def behind(self, background: Any, picture: Array) -> Values:
    number, there = self._lane()
    return (load(background, picture * self.layout.channels + number, there),)

  def _state(self, place: Array, local: Array) -> Array:
    count = self.layout.group_channels
    return place + local[:, None] * count + lax.broadcasted_iota(jnp.int32, (1, count), 1)

  def note(self, states: Any, place: Array, local: Array, colors: Values) -> None:
    store(states, self._state(place, local), colors[0])

  def recall(self, states: Any, place: Array, local: Array, mask: Array) -> Values:
    at = self._state(place, local)
    return (load(states, at, mask[:, None] & (at >= 0)),)

  def write_row(self, rows: Any, at: Array, live: Array, moments: list[Array], weight: Array, cotangents: Values) -> None:
    first = self.layout.first_feature  # 8
    lane = lax.iota(jnp.int32, first)
    row = jnp.zeros(first, jnp.float32)
    for k, value in enumerate(moments):
      row = jnp.where(lane == k, value, row)
    store(rows, at + lane, row, live & (lane < first))
    number = lax.iota(jnp.int32, self.layout.group_channels)
    store(rows, at + first + number, jnp.sum(weight[:, None] * cotangents[0], axis=0), live & (number >= 0))


def shades_of(layout: Layout, group: Array) -> Few | Many:
  """How the channels of a group are handled."""
  return Many(layout, group) if layout.many else Few(layout, group)
