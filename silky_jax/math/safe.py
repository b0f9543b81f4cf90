"""Square root, norm, arc cosine, division and normalisation whose gradients stay finite at the bad point.

The pattern is the double `where`: the bad point is replaced *before* the function is called, so that the branch not taken cannot
send a NaN or an infinity through the backward pass.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

__all__ = ["acos", "divide", "norm", "normalise", "sqrt"]


def sqrt(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """Square root, 0 for x <= 0.

  Args:
    x: any shape.

  Returns:
    sqrt(max(x, 0)). The gradient is 1 / (2 sqrt(x)) for x > 0 and 0 for x <= 0.
  """
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def norm(x: Float[Array, "*b n"], *, keepdims: bool = False) -> Float[Array, "*c"]:
  """Euclidean norm over the last axis, with gradient 0 at the zero vector.

  Args:
    x: [*b, n].
    keepdims: keep the last axis with length 1.

  Returns:
    [*b] or [*b, 1], in the unit of x. The gradient is x / |x|, and 0 at x = 0.
  """
  return sqrt(jnp.sum(x * x, axis=-1, keepdims=keepdims))


def divide(numerator: Float[Array, "*a"], denominator: Float[Array, "*b"]) -> Float[Array, "*c"]:
  """Quotient, 0 where the denominator is exactly 0.

  Args:
    numerator: any shape.
    denominator: a shape that broadcasts with it.

  Returns:
    numerator / denominator; 0 with gradient 0 in both arguments where denominator == 0.
  """
  good = denominator != 0
  return jnp.where(good, numerator / jnp.where(good, denominator, 1), 0)


def normalise(x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
  """Unit vector along x, and 0 for the zero vector.

  Args:
    x: [*b, n]. Vectors shorter than 1e-15 (float32; its square underflows) count as zero.

  Returns:
    x / |x|. The gradient is (I - u u^T) / |x|, and 0 at x = 0.
  """
  return divide(x, norm(x, keepdims=True))


def acos(x: Float[Array, "*b"], *, margin: float = 1e-6) -> Float[Array, "*b"]:
  """Arc cosine in radians, with finite gradient at and beyond -1 and 1.

  Args:
    x: any shape; clipped to [-1, 1].
    margin: within this distance of the ends the gradient is 0 (the value is exact there up to rounding).

  Returns:
    acos(x) in [0, pi]. Prefer `atan2` forms where an angle near 0 or pi carries information.
  """
  inside = jnp.abs(x) < 1 - margin
  # At the ends acos(1 - d) = sqrt(2 d) (1 + O(d)): exact to 1e-9 for d <= 1e-6.
  rest = sqrt(2 * jnp.clip(1 - jnp.abs(x), 0, margin))
  rest = jnp.where(x > 0, rest, jnp.pi - rest)
  return jnp.where(inside, jnp.arccos(jnp.where(inside, x, 0)), lax.stop_gradient(rest))
