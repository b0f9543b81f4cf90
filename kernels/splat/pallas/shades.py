"""The channels of a splat inside a tile's program: one by one, or as one vector.

One by one, each is a number that all threads load, and a vector of 64 pixels that it is added to or summed with along the channels: no
thread has to tell another anything. As a vector they are loaded together, a few by each thread, and added to one array [64, c], or summed
over its pixels: fewer loads and fewer sums across threads. So pictures of more than 8 channels are made from vectors, and their gradient in
two kernels: what sums along channels takes them one by one, what sums over pixels as a vector.
What both kinds do has the same names; `none`, `add` and so on take and give tuples of arrays, the state of a loop.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array
from silky_kernels.splat.pallas.layout import FEATURES, STATES, TILE, Layout
from silky_kernels.triton import load, store

__all__ = ["Few", "Many", "shades_of", "state_place", "write_numbers"]

_PIXELS = TILE**2
Values = tuple[Array, ...]


class Few(NamedTuple):
  """Channel by channel: all of them, or a block of `width`."""

  layout: Layout
  group: Array
  width: int

  def _numbers(self) -> list[tuple[Array | int, Array | bool | None]]:
    """Each channel's number, and whether there is one (None: surely)."""
    if not self.layout.many:
      return [(k, None) for k in range(self.width)]
    numbers = [self.group * self.width + k for k in range(self.width)]
    return [(number, number < self.layout.channels if self.layout.channels % self.width else None) for number in numbers]

  def fetch(self, records: Any, splat: Array) -> Values:
    """The features of a splat."""
    return tuple(load(records, splat * self.layout.record + FEATURES + number, there) for number, there in self._numbers())

  def none(self) -> Values:
    """Pixels without colour."""
    return (jnp.zeros(_PIXELS, jnp.float32),) * self.width

  def add(self, colors: Values, weight: Array, shade: Values) -> Values:
    """Pixels with a splat's features on them."""
    return tuple(color + weight * one for color, one in zip(colors, shade, strict=True))

  def along(self, cotangents: Values, shade: Values) -> Array:
    """[64] <cotangent, features>."""
    return sum((cotangent * one for cotangent, one in zip(cotangents, shade, strict=True)), start=jnp.zeros(_PIXELS, jnp.float32))

  def pixels(self, array: Any, at: Array, mask: Array) -> Values:
    """Of a picture [pixels, channels], numbered by `at`."""
    return tuple(load(array, at * self.layout.channels + number, _and(mask, there)) for number, there in self._numbers())

  def paint(self, image: Any, at: Array, mask: Array, colors: Values) -> None:
    """Writes them."""
    for (number, there), color in zip(self._numbers(), colors, strict=True):
      store(image, at * self.layout.channels + number, color, _and(mask, there))

  def behind(self, background: Any, picture: Array) -> Values:
    """The background of a picture."""
    return tuple(load(background, picture * self.layout.channels + number, there) for number, there in self._numbers())

  def note(self, states: Any, segment: Array, local: Array, colors: Values) -> None:
    """Writes what pixels have before a segment."""
    for (number, _), color in zip(self._numbers(), colors, strict=True):
      store(states, _noted_at(self.layout, number, segment, local), color)

  def recall(self, states: Any, segment: Array, local: Array, mask: Array) -> Values:
    """Reads it; 0 where the mask is false."""
    return tuple(load(states, _noted_at(self.layout, number, segment, local), _and(mask, there)) for number, there in self._numbers())


class Many(NamedTuple):
  """Some of the channels in one array, whose rows are pixels."""

  layout: Layout
  group: Array
  width: int  # channels, a power of two

  def _lane(self) -> tuple[Array, Array | None]:
    """[1, c] the number of each channel, and whether there is one (None: surely)."""
    number = self.group * self.width + lax.broadcasted_iota(jnp.int32, (1, self.width), 1)
    return number, number < self.layout.channels if self.layout.channels % self.width else None

  def fetch(self, records: Any, splat: Array) -> Values:
    number, there = self._lane()
    return (load(records, splat * self.layout.record + FEATURES + number, there),)

  def none(self) -> Values:
    return (jnp.zeros((_PIXELS, self.width), jnp.float32),)

  def add(self, colors: Values, weight: Array, shade: Values) -> Values:
    return (colors[0] + weight[:, None] * shade[0],)

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

  def note(self, states: Any, segment: Array, local: Array, colors: Values) -> None:
    store(states, _noted_at(self.layout, self._lane()[0], segment, local[:, None]), colors[0])

  def write_sums(self, rows: Any, slot: Array, live: Array, weight: Array, cotangents: Values) -> None:
    """A row of the features' gradient: what is summed over the tile's pixels."""
    lane = lax.iota(jnp.int32, self.width)
    place = (self.group * self.layout.capacity + slot) * self.width + lane
    store(rows, place, jnp.sum(weight[:, None] * cotangents[0], axis=0), live & (lane >= 0))


def state_place(layout: Layout, group: Array | int, segment: Array) -> Array:
  """Where the state of a segment begins, as a group of the picture's programs notes it."""
  return (group * layout.segments + segment) * ((STATES + layout.group_channels) * _PIXELS)


def _noted_at(layout: Layout, number: Array | int, segment: Array, local: Array) -> Array:
  """Where a channel of pixels is noted: channel by channel, or pixel by pixel where they are many."""
  if not layout.many:
    return state_place(layout, 0, segment) + (STATES + number) * _PIXELS + local
  each = layout.group_channels
  return state_place(layout, number // each, segment) + STATES * _PIXELS + local * each + number % each


def _and(mask: Array, there: Array | None) -> Array:
  return mask if there is None else mask & there


def write_numbers(rows: Any, at: Array, live: Array, numbers: list[Array]) -> None:
  """Numbers side by side, in one store."""
  lanes = 1 << (len(numbers) - 1).bit_length()
  lane = lax.iota(jnp.int32, lanes)
  row = jnp.zeros(lanes, jnp.float32)
  for k, value in enumerate(numbers):
    row = jnp.where(lane == k, value, row)
  store(rows, at + lane, row, live & (lane < len(numbers)))


def shades_of(layout: Layout, group: Array) -> Few | Many:
  """How the picture's programs handle the channels of a group."""
  return Many(layout, group, layout.group_channels) if layout.many else Few(layout, group, layout.channels)
