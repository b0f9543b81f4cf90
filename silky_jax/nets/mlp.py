"""A network over many points that share one condition, and the encoding of the points.

Linen stays inside this room: the rest sees `init(key) -> dict` and `apply(dict, ...) -> array`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["Network", "Precision", "conditioned_mlp", "encode_positions", "encoded_size"]

Params = dict[str, Any]
Precision = Literal["float32", "tf32", "bfloat16"]


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


def conditioned_mlp(*, points: int, condition: int, width: int, depth: int, outputs: int, precision: Precision = "float32") -> Network:
  """An MLP of (point, condition) where all points share the condition: h = relu(W_p p + (W_c c + b)), then plain layers.

  The same function as an MLP of the concatenated input, but the condition's product is made once and not per point: for 12 000 points
  and 120 conditions that is half of the arithmetic. The last layer starts at zero, so that a new network changes nothing.

  Args:
    points: width of a point's encoding.
    condition: width of the condition.
    width: hidden units.
    depth: hidden layers, at least 1.
    outputs: width of the output.
    precision: of the points' products, forward and backward. "tf32" rounds their factors to 11 bits on a GPU that has it, and is "float32"
      elsewhere; "bfloat16" rounds them to 8 bits. Sums, biases, parameters, the condition's product and what is returned are float32.

  Raises:
    ValueError: depth below 1.
  """
  if depth < 1:
    raise ValueError(f"depth: expected at least one hidden layer, got {depth}")
  module = _ConditionedMlp(width=width, depth=depth, outputs=outputs, precision=precision)

  def init(key: jax.Array) -> Params:
    return module.init(key, jnp.zeros((1, points)), jnp.zeros(condition))["params"]

  def apply(params: Params, encoded: Float[Array, "n p"], shared: Float[Array, "q"]) -> Float[Array, "n o"]:
    return module.apply({"params": params}, encoded, shared)

  return Network(init, apply)


def _product(precision: lax.Precision) -> Callable[..., Array]:
  """Matrix product of floats, by factors as the device rounds them."""
  return lambda x, kernel: jnp.matmul(x, kernel, precision=precision)


@jax.custom_vjp
def _half_product(x: Float[Array, "n i"], kernel: Float[Array, "i o"]) -> Float[Array, "n o"]:
  """Matrix product of float32 by factors of 8 bits, summed in float32."""
  return _half(x, kernel, 1, 0)


def _half(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
  left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
  over = (((left_axis,), (right_axis,)), ((), ()))
  return lax.dot_general(left, right, over, precision=lax.Precision.DEFAULT, preferred_element_type=jnp.float32)


def _half_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
  return _half_product(x, kernel), (x.astype(jnp.bfloat16), kernel)


def _half_backward(kept: tuple[Array, Array], pulled: Array) -> tuple[Array, Array]:
  # By hand: the derivative that JAX makes multiplies float32 by bfloat16, which no tensor core does.
  x, kernel = kept
  return _half(pulled, kernel, 1, 1), _half(x, pulled, 0, 0)


_half_product.defvjp(_half_forward, _half_backward)

_PRODUCTS: dict[Precision, Callable[..., Array]] = {
  "float32": _product(lax.Precision.HIGHEST),
  "tf32": _product(lax.Precision.DEFAULT),
  "bfloat16": _half_product,
}


class _ConditionedMlp(nn.Module):
  width: int
  depth: int
  outputs: int
  precision: Precision

  @nn.compact
  def __call__(self, encoded, shared):
    # Together the two parts are one layer of `p + q` inputs, so they share its variance.
    total = encoded.shape[-1] + shared.shape[-1]
    spread = lambda value: nn.initializers.variance_scaling(2.0 * value.shape[-1] / total, "fan_in", "normal")
    product = _PRODUCTS[self.precision]

    def layer(name: str, width: int, start: Any, bias: bool = True) -> nn.Dense:
      by = lambda x, kernel, *_, **__: product(x, kernel)
      return nn.Dense(width, use_bias=bias, kernel_init=start, name=name, dot_general=by)

    once = nn.Dense(self.width, kernel_init=spread(shared), name="condition", precision=lax.Precision.HIGHEST)
    x = layer("point", self.width, spread(encoded), bias=False)(encoded) + once(shared)
    for i in range(1, self.depth):
      x = layer(f"hidden_{i}", self.width, nn.initializers.he_normal())(nn.relu(x))
    return layer("output", self.outputs, nn.initializers.zeros)(nn.relu(x))
