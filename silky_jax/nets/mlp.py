"""A network over many points that share one condition, and the encoding of the points.

Linen stays inside this room: the rest sees `init(key) -> dict` and `apply(dict, ...) -> array`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Network", "conditioned_mlp", "encode_positions", "encoded_size"]

Params = dict[str, Any]


class Network(NamedTuple):
  """A network as two pure functions; sizes are closed over, arrays never are."""

  init: Callable[[jax.Array], Params]  # key -> params
  apply: Callable[..., Float[Array, "n o"]]  # (params, points [n, p], condition [q]) -> [n, o]


def encode_positions(points: Float[Array, "*b 3"], *, frequencies: int, scale: float = 1.0) -> Float[Array, "*b d"]:
  """gamma(x) = [x, sin(2^k x), cos(2^k x)] for k = 0 .. frequencies - 1, without pi, the input included (the spec, 2.3).

  Args:
    points: any unit.
    frequencies: how many octaves; the width is 3 + 6 frequencies.
    scale: multiplies the points first. With metres and 10, the head spans about -1..1 and the finest wave of 6 octaves is 20 mm long.

  Returns:
    The encoding, points first.
  """
  scaled = points * scale
  if not frequencies:
    return scaled
  waves = scaled[..., None, :] * 2.0 ** jnp.arange(frequencies, dtype=points.dtype)[:, None]
  waves = waves.reshape(*points.shape[:-1], -1)
  return jnp.concatenate([scaled, jnp.sin(waves), jnp.cos(waves)], axis=-1)


def encoded_size(frequencies: int) -> int:
  """Width of `encode_positions`."""
  return 3 + 6 * frequencies


def conditioned_mlp(*, points: int, condition: int, width: int, depth: int, outputs: int) -> Network:
  """An MLP of (point, condition) where all points share the condition: h = relu(W_p p + (W_c c + b)), then plain layers.

  The same function as an MLP of the concatenated input, but the condition's product is made once and not per point: for 12 000 points
  and 120 conditions that is half of the arithmetic. The last layer starts at zero, so that a new network changes nothing.

  Args:
    points: width of a point's encoding.
    condition: width of the condition.
    width: hidden units.
    depth: hidden layers, at least 1.
    outputs: width of the output.

  Raises:
    ValueError: depth below 1.
  """
  if depth < 1:
    raise ValueError(f"depth: expected at least one hidden layer, got {depth}")
  module = _ConditionedMlp(width=width, depth=depth, outputs=outputs)

  def init(key: jax.Array) -> Params:
    return module.init(key, jnp.zeros((1, points)), jnp.zeros(condition))["params"]

  def apply(params: Params, encoded: Float[Array, "n p"], shared: Float[Array, "q"]) -> Float[Array, "n o"]:
    return module.apply({"params": params}, encoded, shared)

  return Network(init, apply)


class _ConditionedMlp(nn.Module):
  width: int
  depth: int
  outputs: int

  @nn.compact
  def __call__(self, encoded, shared):
    # Together the two parts are one layer of `p + q` inputs, so they share its variance.
    total = encoded.shape[-1] + shared.shape[-1]
    parts: Sequence[tuple[str, Any, bool]] = (("point", encoded, False), ("condition", shared, True))
    x = 0.0
    for name, value, bias in parts:
      spread = nn.initializers.variance_scaling(2.0 * value.shape[-1] / total, "fan_in", "normal")
      x = x + nn.Dense(self.width, use_bias=bias, kernel_init=spread, name=name)(value)
    for i in range(1, self.depth):
      x = nn.Dense(self.width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(nn.relu(x))
    return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros, name="output")(nn.relu(x))
