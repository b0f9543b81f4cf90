"""eigen3: eigenvalues and eigenvectors of symmetric 3x3 matrices."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from silky_kernels.backend import Backend, choose
from silky_kernels.eigen3 import reference

__all__ = ["eigen3"]


@functools.partial(jax.jit, static_argnames="backend")  # so that a call outside of any program compiles once
def eigen3(matrix: Float[Array, "*b 3 3"], *, backend: Backend | None = None) -> tuple[Float[Array, "*b 3"], Float[Array, "*b 3 3"]]:
  """By cyclic Jacobi rotations, all matrices at once (Golub and Van Loan 2013, section 8.5).

  Args:
    matrix: symmetric; the lower triangle is not read.
    backend: "pallas" (NVIDIA GPUs, float32), "xla", or None for the best available.

  Returns:
    values: ascending, in the unit of the matrix; accurate to rounding of the largest.
    vectors: in columns, orthonormal to rounding; of equal eigenvalues any of the possible ones.
    Derivatives are the caller's (`silky_jax.math.symmetric3`).

  Raises:
    NotImplementedError: a backend that cannot run here.
  """
  if not math.prod(matrix.shape[:-2]) or choose("eigen3", backend, exact=matrix.dtype != jnp.float32) == "xla":
    entries = {(i, j): matrix[..., i, j] for i, j in reference.UPPER}
    values, vectors = reference.decompose(entries)
    return jnp.stack(values, axis=-1), jnp.stack([jnp.stack(row, axis=-1) for row in vectors], axis=-2)
  from silky_kernels.eigen3.pallas import decompose  # pulls Pallas in: only when somebody uses it

  values, vectors = decompose(matrix.reshape(-1, 9))
  return values.reshape(matrix.shape[:-1]), vectors.reshape(matrix.shape)
