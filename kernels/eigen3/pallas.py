"""eigen3 on a GPU: one launch, a matrix per thread, where plain JAX launches four kernels for each sweep."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float
from silky_kernels.eigen3 import reference
from silky_kernels.triton import interpreted, launch, load, merge_batches, store

__all__ = ["decompose"]

_BLOCK = 128


def decompose(matrices: Float[Array, "n 9"]) -> tuple[Array, Array]:
  """Values [n, 3] and vectors [n, 9]; see `api.eigen3`."""
  return merge_batches(_launch)(matrices)


def _launch(matrices):
  count = matrices.shape[0]

  def kernel(matrices: Any, values: Any, vectors: Any) -> None:
    index = pl.program_id(0) * _BLOCK + lax.iota(jnp.int32, _BLOCK)
    real = index < count
    found, columns = reference.decompose({(i, j): load(matrices, index * 9 + 3 * i + j, real) for i, j in reference.UPPER})
    for i in range(3):
      store(values, index * 3 + i, found[i], real)
      for j in range(3):
        store(vectors, index * 9 + 3 * i + j, columns[i][j], real)

  outputs = [(count * 3, jnp.float32), (count * 9, jnp.float32)]
  grid = (-(-count // _BLOCK),)
  values, vectors = launch(kernel, grid, outputs, [matrices], warps=4, interpret=interpreted(), name="silky_eigen3")
  return values.reshape(count, 3), vectors.reshape(count, 9)
