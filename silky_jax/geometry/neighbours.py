"""Exact k nearest neighbours by brute force in chunks: no tree, no approximation, runs anywhere JAX does."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

__all__ = ["mean_squared_distance", "nearest"]


def nearest(
  queries: Float[Array, "m 3"], points: Float[Array, "n 3"], k: int, *, exclude_self: bool = False, chunk: int = 512
) -> tuple[Float[Array, "m k"], Int[Array, "m k"]]:
  """The k points nearest to every query, nearest first; ties go to the lower index.

  Time m n, memory chunk n. Distances are sums of squared differences, so that close points keep their digits.

  Args:
    queries: any unit.
    points: the same unit; n >= k (n > k with `exclude_self`).
    k: neighbours per query.
    exclude_self: leave point i out of the neighbours of query i: for queries that are the points themselves.
    chunk: queries handled at once.

  Returns:
    squared: squared distances, ascending; differentiable in queries and points (the choice of neighbours is held fixed).
    indices: into `points`.

  Raises:
    ValueError: fewer points than neighbours asked for; `exclude_self` with queries that cannot be the points.
  """
  if not 1 <= k <= points.shape[0] - exclude_self:
    raise ValueError(f"k: expected 1..{points.shape[0] - exclude_self} for {points.shape[0]} points, got {k}")
  if exclude_self and queries.shape != points.shape:
    raise ValueError(f"queries: expected the points' shape {points.shape} with exclude_self, got {queries.shape}")
  frozen = lax.stop_gradient(points)

  def one(query: Float[Array, "3"], index: Int[Array, ""]) -> Int[Array, "k"]:
    x, y, z = (query[axis] - frozen[:, axis] for axis in range(3))
    squared = x * x + y * y + z * z
    if exclude_self:
      squared = squared.at[index].set(jnp.inf)
    return lax.top_k(-squared, k)[1]

  numbers = jnp.arange(queries.shape[0], dtype=jnp.int32)
  indices = lax.map(lambda pair: one(*pair), (lax.stop_gradient(queries), numbers), batch_size=min(chunk, queries.shape[0]))
  x, y, z = (queries[:, None, axis] - points[indices, axis] for axis in range(3))
  return x * x + y * y + z * z, indices


def mean_squared_distance(points: Float[Array, "n 3"], k: int = 3, *, chunk: int = 512) -> Float[Array, "n"]:
  """Mean squared distance of every point to its k nearest others: 3D Gaussian splatting's measure of the first size of a Gaussian.

  Args:
    points: n > k, any unit.
    k: neighbours.
    chunk: points handled at once.

  Returns:
    The unit squared. Differentiable as `nearest` is.
  """
  squared, _ = nearest(points, points, k, exclude_self=True, chunk=chunk)
  return jnp.mean(squared, axis=1)
