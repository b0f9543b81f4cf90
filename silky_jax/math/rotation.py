"""Rotations of space: axis-angle, quaternion (wxyz), matrix, and the 6D form, each differentiable everywhere it is defined.

Matrices act on column vectors, y = R x. `matrix_from_axis_angle` is exp: so(3) -> SO(3), `axis_angle_from_matrix` is log.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from silky_jax.math import safe
from silky_jax.math.precision import exact

__all__ = [
  "axis_angle_from_matrix",
  "axis_angle_from_quaternion",
  "matrix_from_axis_angle",
  "matrix_from_quaternion",
  "matrix_from_sixd",
  "quaternion_conjugate",
  "quaternion_from_axis_angle",
  "quaternion_from_matrix",
  "quaternion_multiply",
  "rotation_rows",
  "sixd_from_matrix",
  "skew",
]

# Below this squared angle the Taylor series takes over: five terms are exact to 3e-18 there, and their derivatives do not cancel.
_SMALL = 1e-2


def _sinc(square: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """sin(x) / x as a function of x^2, smooth at 0."""
  small = square < _SMALL
  root = jnp.sqrt(jnp.where(small, 1, square))
  series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
  return jnp.where(small, series, jnp.sin(root) / root)


def skew(vector: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
  """Cross-product matrix: skew(a) b = a x b.

  Args:
    vector: [*b, 3].

  Returns:
    [*b, 3, 3], antisymmetric.
  """
  x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
  zero = jnp.zeros_like(x)
  return jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape[:-1], 3, 3)


@exact
def matrix_from_axis_angle(vector: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
  """Exponential map of SO(3), Rodrigues: R = I + sin(t)/t K + (1 - cos t)/t^2 K^2, K = skew(vector), t = |vector|.

  Args:
    vector: [*b, 3] axis times angle, radians.

  Returns:
    [*b, 3, 3] rotation matrices. Smooth everywhere, also at 0, where the derivative is `skew`.
  """
  square = jnp.sum(vector * vector, axis=-1)[..., None, None]
  cross = skew(vector)
  half = _sinc(square / 4)
  return jnp.eye(3, dtype=vector.dtype) + _sinc(square) * cross + 0.5 * half * half * (cross @ cross)


def axis_angle_from_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3"]:
  """Logarithm of SO(3).

  Args:
    matrix: [*b, 3, 3] rotation matrices.

  Returns:
    [*b, 3] axis times angle, radians, angle in [0, pi]. At angle pi both signs of the axis are right and one is returned; the value
    jumps there, its gradient is finite.
  """
  return axis_angle_from_quaternion(quaternion_from_matrix(matrix))


def matrix_from_quaternion(quaternion: Float[Array, "*b 4"]) -> Float[Array, "*b 3 3"]:
  """Rotation matrix of a quaternion that need not be normalised.

  Args:
    quaternion: [*b, 4] wxyz, any length. The zero quaternion gives the identity with gradient 0.

  Returns:
    [*b, 3, 3] rotation matrices. Not differentiable at the zero quaternion (gradient 0 is returned).
  """
  rows = rotation_rows(*jnp.moveaxis(quaternion, -1, 0))
  return jnp.stack([entry for row in rows for entry in row], axis=-1).reshape(*quaternion.shape[:-1], 3, 3)


def rotation_rows(
  w: Float[Array, "*b"], x: Float[Array, "*b"], y: Float[Array, "*b"], z: Float[Array, "*b"]
) -> list[list[Float[Array, "*b"]]]:
  """The entries of `matrix_from_quaternion`, row by row, each an array of its own: what compiles well on CPU.

  Args:
    w: the real part.
    x: first imaginary part.
    y: second.
    z: third.

  Returns:
    Three lists of three arrays.
  """
  square = w * w + x * x + y * y + z * z
  double = safe.divide(jnp.full_like(square, 2), square)
  wx, wy, wz, xx, xy, xz, yy, yz, zz = (double * a * b for a, b in ((w, x), (w, y), (w, z), (x, x), (x, y), (x, z), (y, y), (y, z), (z, z)))
  return [[1 - yy - zz, xy - wz, xz + wy], [xy + wz, 1 - xx - zz, yz - wx], [xz - wy, yz + wx, 1 - xx - yy]]


def quaternion_from_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 4"]:
  """Unit quaternion of a rotation matrix (Shepperd 1978: divide by the largest of the four components).

  Args:
    matrix: [*b, 3, 3] rotation matrices.

  Returns:
    [*b, 4] wxyz with w >= 0. Gradients are finite for every rotation; at angle pi the sign jumps.
  """
  m = matrix
  xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
  squares = 0.25 * jnp.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], axis=-1)
  wx, wy, wz = (m[..., 2, 1] - m[..., 1, 2]) / 4, (m[..., 0, 2] - m[..., 2, 0]) / 4, (m[..., 1, 0] - m[..., 0, 1]) / 4
  xy, xz, yz = (m[..., 0, 1] + m[..., 1, 0]) / 4, (m[..., 0, 2] + m[..., 2, 0]) / 4, (m[..., 1, 2] + m[..., 2, 1]) / 4
  w2, x2, y2, z2 = (squares[..., i] for i in range(4))
  products = jnp.stack([w2, wx, wy, wz, wx, x2, xy, xz, wy, xy, y2, yz, wz, xz, yz, z2], axis=-1).reshape(*m.shape[:-2], 4, 4)
  largest = jnp.argmax(squares, axis=-1)
  row = jnp.take_along_axis(products, largest[..., None, None], axis=-2)[..., 0, :]
  square = jnp.take_along_axis(squares, largest[..., None], axis=-1)
  quaternion = row / jnp.sqrt(jnp.maximum(square, 0.1))
  return jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_from_axis_angle(vector: Float[Array, "*b 3"]) -> Float[Array, "*b 4"]:
  """Unit quaternion of an axis-angle vector: (cos t/2, sin(t/2)/t vector).

  Args:
    vector: [*b, 3] axis times angle, radians.

  Returns:
    [*b, 4] wxyz, of length 1 (w may be negative for angles beyond pi). Smooth everywhere.
  """
  square = jnp.sum(vector * vector, axis=-1, keepdims=True) / 4
  small = square < _SMALL
  cosine = jnp.cos(jnp.sqrt(jnp.where(small, 1, square)))
  series = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90))))
  return jnp.concatenate([jnp.where(small, series, cosine), 0.5 * _sinc(square) * vector], axis=-1)


def axis_angle_from_quaternion(quaternion: Float[Array, "*b 4"]) -> Float[Array, "*b 3"]:
  """Axis-angle vector of a quaternion that need not be normalised: 2 atan2(|v|, w) v / |v|.

  Args:
    quaternion: [*b, 4] wxyz, not zero.

  Returns:
    [*b, 3] axis times angle, radians, angle in [0, pi]. Gradients are finite at angle 0 and pi; the value jumps at pi.
  """
  quaternion = jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)
  w, vector = quaternion[..., :1], quaternion[..., 1:]
  square = jnp.sum(vector * vector, axis=-1, keepdims=True)
  tangent_square = square / jnp.where(w > 0, w * w, 1)
  small = (tangent_square < 1e-4) & (w > 0)
  length = jnp.sqrt(jnp.where(small, 1, square))
  t = jnp.where(small, tangent_square, 0)
  series = 2 / jnp.where(small, w, 1) * (1 - t * (1 / 3 - t * (1 / 5 - t * (1 / 7 - t / 9))))
  return jnp.where(small, series, 2 * jnp.arctan2(length, jnp.where(small, 1, w)) / length) * vector


def quaternion_multiply(left: Float[Array, "*b 4"], right: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
  """Hamilton product: R(left right) = R(left) R(right).

  Args:
    left: [*b, 4] wxyz.
    right: [*b, 4] wxyz.

  Returns:
    [*b, 4] wxyz.
  """
  w1, v1 = left[..., :1], left[..., 1:]
  w2, v2 = right[..., :1], right[..., 1:]
  real = w1 * w2 - jnp.sum(v1 * v2, axis=-1, keepdims=True)
  return jnp.concatenate([real, w1 * v2 + w2 * v1 + jnp.cross(v1, v2)], axis=-1)


def quaternion_conjugate(quaternion: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
  """Conjugate: the inverse rotation for a unit quaternion.

  Args:
    quaternion: [*b, 4] wxyz.

  Returns:
    [*b, 4] (w, -x, -y, -z).
  """
  return quaternion * jnp.asarray([1, -1, -1, -1], quaternion.dtype)


def sixd_from_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 6"]:
  """The 6D form in the rows convention of PyTorch3D: the first two rows of R.

  Args:
    matrix: [*b, 3, 3] rotation matrices.

  Returns:
    [*b, 6]; the identity is (1, 0, 0, 0, 1, 0), Rz(90 deg) is (0, -1, 0, 1, 0, 0).
  """
  return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def matrix_from_sixd(sixd: Float[Array, "*b 6"]) -> Float[Array, "*b 3 3"]:
  """Gram-Schmidt on two 3-vectors, stacked as rows with their cross product (Zhou et al. 2019, with rows for columns).

  Args:
    sixd: [*b, 6] two vectors that are not parallel.

  Returns:
    [*b, 3, 3] rotation matrices. Parallel or zero vectors have no rotation: rows of zeros with finite gradients come back.
  """
  first, second = sixd[..., :3], sixd[..., 3:]
  x = safe.normalise(first)
  y = safe.normalise(second - jnp.sum(x * second, axis=-1, keepdims=True) * x)
  return jnp.stack([x, y, jnp.cross(x, y)], axis=-2)
