"""A convolutional network over a UV map whose texels share one condition: the "UV splatter image" of the Silky release.

After Splatter Image (Szymanowicz et al. 2024), in UV: a map goes in, one Gaussian's numbers come out per texel (the spec, 2.5 a). What the
convolutions add to an MLP over the same texels is that a texel sees its surroundings.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from silky_jax.nets.mlp import Network, Params, Precision

__all__ = ["LEVELS", "conditioned_unet"]

LEVELS = 4
_COARSEST = 2**LEVELS  # texels of the map per side of a texel where the condition's map begins
_CONDITION_WIDTHS = (2, 4, 2, 1)  # channels of the condition's map, from its coarsest level on, in eighths of the network's width


def conditioned_unet(*, size: int, channels: int, condition: int, width: int, outputs: int, precision: Precision = "float32") -> Network:
  """A U-Net over a square map, with features made from the condition joined to its decoder.

  Four levels of `width`, 2, 4 and 8 times `width` channels; two 3x3 convolutions with ReLU each, no normalisation (a batch is one frame);
  maximum pooling down, nearest texels up, the encoder's level joined on the way up. The condition makes a map of size / 16 texels, which
  four 2x2 transposed convolutions with stride 2 double; it joins the decoder at its three levels. The last layer starts at zero, so that
  a new network changes nothing.

  Args:
    size: texels per side, a multiple of 16.
    channels: of the map.
    condition: width of the condition.
    width: channels of the finest level, a multiple of 8.
    outputs: channels of the output.
    precision: of the convolutions' factors, as of `mlp.conditioned_mlp`.

  Returns:
    Network: `apply(params, map [size, size, channels], condition [q]) -> [size, size, outputs]`.

  Raises:
    ValueError: a size or width that does not divide.
  """
  if size % _COARSEST or size < _COARSEST:
    raise ValueError(f"size: expected a multiple of {_COARSEST} texels, got {size}")
  if width % 8 or width < 8:
    raise ValueError(f"width: expected a multiple of 8 channels, got {width}")
  module = _ConditionedUnet(width=width, outputs=outputs, precision=precision)

  def init(key: jax.Array) -> Params:
    return module.init(key, jnp.zeros((size, size, channels)), jnp.zeros(condition))["params"]

  def apply(params: Params, texels: Float[Array, "h w c"], shared: Float[Array, "q"]) -> Float[Array, "h w o"]:
    return module.apply({"params": params}, texels, shared)

  return Network(init, apply)


def _factors(precision: Precision) -> dict[str, Any]:
  """Of a convolution."""
  if precision == "bfloat16":
    return {"dtype": jnp.bfloat16, "precision": lax.Precision.DEFAULT}
  return {"precision": lax.Precision.HIGHEST if precision == "float32" else lax.Precision.DEFAULT}


class _ConditionedUnet(nn.Module):
  width: int
  outputs: int
  precision: Precision

  @nn.compact
  def __call__(self, texels, shared):
    start, factors = nn.initializers.he_normal(), _factors(self.precision)

    def twice(x, channels, name):
      for k in range(2):
        x = nn.relu(nn.Conv(channels, (3, 3), kernel_init=start, name=f"{name}_{k}", **factors)(x))
      return x

    steps, x = [], texels
    for level in range(LEVELS):
      if level:
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
      x = twice(x, self.width << level, f"down_{level}")
      steps.append(x)
    told = self._condition_maps(texels.shape[0], shared, factors)
    for level in reversed(range(LEVELS - 1)):
      x = jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)
      x = twice(jnp.concatenate([x, steps[level], told[level]], axis=-1), self.width << level, f"up_{level}")
    last = nn.Conv(self.outputs, (1, 1), kernel_init=nn.initializers.zeros, name="output", **factors)
    return last(x).astype(jnp.float32)

  def _condition_maps(self, size, shared, factors):
    """Level -> what the condition says there."""
    unit, side = self.width // 8, size // _COARSEST
    x = nn.Dense(side * side * unit, name="condition", precision=lax.Precision.HIGHEST)(shared)
    x, told = nn.relu(x).reshape(side, side, unit), {}
    for k, channels in enumerate(_CONDITION_WIDTHS):
      x = nn.relu(nn.ConvTranspose(channels * unit, (2, 2), strides=(2, 2), name=f"condition_{k}", **factors)(x))
      told[LEVELS - 1 - k] = x
    return told
