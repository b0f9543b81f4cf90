"""Real spherical harmonics to degree 3, in the order and signs of 3D Gaussian splatting's files.

Y_lm = sqrt(2) N_lm P_l^|m|(cos t) (sin |m|p for m < 0, cos mp for m > 0), N_l0 P_l^0 for m = 0, with the Condon-Shortley phase (-1)^m
inside P; ordered l = 0, 1, 2, 3 and m = -l .. l within each. Orthonormal on the sphere.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.math import safe

__all__ = ["CONSTANT", "MAX_DEGREE", "basis", "evaluate"]

MAX_DEGREE = 3
CONSTANT = 0.5 / math.sqrt(math.pi)  # Y_00

_C1 = math.sqrt(3 / (4 * math.pi))
_C2 = math.sqrt(15 / (4 * math.pi))
_C2_ZZ = math.sqrt(5 / (16 * math.pi))
_C3_3 = math.sqrt(35 / (32 * math.pi))
_C3_2 = math.sqrt(105 / (4 * math.pi))
_C3_1 = math.sqrt(21 / (32 * math.pi))
_C3_0 = math.sqrt(7 / (16 * math.pi))


def basis(degree: int, directions: Float[Array, "*b 3"]) -> Float[Array, "*b k"]:
  """Values of the first k = (degree + 1)^2 harmonics.

  Args:
    degree: 0..3.
    directions: (x, y, z), any length; the zero vector gives the harmonics' polynomials at 0, with gradient 0.

  Returns:
    One value per harmonic.

  Raises:
    ValueError: degree outside 0..3.
  """
  if not 0 <= degree <= MAX_DEGREE:
    raise ValueError(f"degree: expected 0..{MAX_DEGREE}, got {degree}")
  unit = safe.normalise(directions)
  x, y, z = unit[..., 0], unit[..., 1], unit[..., 2]
  xx, yy, zz = x * x, y * y, z * z
  values = [jnp.full_like(x, CONSTANT)]
  if degree >= 1:
    values += [-_C1 * y, _C1 * z, -_C1 * x]
  if degree >= 2:
    values += [_C2 * x * y, -_C2 * y * z, _C2_ZZ * (2 * zz - xx - yy), -_C2 * x * z, 0.5 * _C2 * (xx - yy)]
  if degree >= 3:
    values += [-_C3_3 * y * (3 * xx - yy), _C3_2 * x * y * z, -_C3_1 * y * (4 * zz - xx - yy), _C3_0 * z * (2 * zz - 3 * xx - 3 * yy)]
    values += [-_C3_1 * x * (4 * zz - xx - yy), 0.5 * _C3_2 * z * (xx - yy), -_C3_3 * x * (xx - 3 * yy)]
  return jnp.stack(values, axis=-1)


def evaluate(degree: int, coefficients: Float[Array, "*b n k 3"], directions: Float[Array, "*b n 3"]) -> Float[Array, "*b n 3"]:
  """Sum of harmonics per colour channel.

  3D Gaussian splatting makes a colour of it as max(evaluate(...) + 0.5, 0).

  Args:
    degree: 0..3, the degree in use; coefficients of higher degrees are ignored and get no gradient.
    coefficients: k >= (degree + 1)^2 per channel.
    directions: from the camera to the Gaussian, world axes, any length but 0.

  Returns:
    One value per channel.

  Raises:
    ValueError: degree outside 0..3, or too few coefficients for it.
  """
  count = (degree + 1) ** 2
  if coefficients.shape[-2] < count:
    raise ValueError(f"coefficients: expected at least {count} for degree {degree}, got {coefficients.shape}")
  values = basis(degree, directions)
  total = values[..., :1] * coefficients[..., 0, :]
  for k in range(1, count):
    total = total + values[..., k : k + 1] * coefficients[..., k, :]
  return total
