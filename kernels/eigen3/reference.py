"""eigen3 as arithmetic on arrays of entries, for plain JAX and inside a kernel alike."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

__all__ = ["UPPER", "decompose"]

UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_SWEEPS = 6  # of rotations: float64 is reached after four on 5,000 random matrices
_PAIRS = ((0, 1, 2), (0, 2, 1), (1, 2, 0))

Entries = dict[tuple[int, int], Array]


def decompose(entry: Entries) -> tuple[list[Array], list[list[Array]]]:
  """Eigenvalues, ascending, and rows of the matrix whose columns are the eigenvectors.

  Args:
    entry: of the upper triangle, arrays of one shape.
  """
  one, zero = jnp.ones_like(entry[0, 0]), jnp.zeros_like(entry[0, 0])
  vectors = [[one if i == j else zero for j in range(3)] for i in range(3)]
  entry, vectors = lax.fori_loop(0, _SWEEPS, lambda _, state: _sweep(*state), (entry, vectors))
  values = [entry[i, i] for i in range(3)]
  for i, j in ((0, 1), (1, 2), (0, 1)):  # sorts three, with less to compile than a sort
    swap = values[i] > values[j]
    values[i], values[j] = jnp.where(swap, values[j], values[i]), jnp.where(swap, values[i], values[j])
    for row in vectors:
      row[i], row[j] = jnp.where(swap, row[j], row[i]), jnp.where(swap, row[i], row[j])
  return values, vectors


def _sweep(entry: Entries, vectors: list[list[Array]]) -> tuple[Entries, list[list[Array]]]:
  """One rotation in each of the three planes (p, q), which makes entry (p, q) zero; r is the third axis."""
  at = lambda i, j: (min(i, j), max(i, j))
  for p, q, r in _PAIRS:
    off = entry[at(p, q)]
    flat = off == 0
    theta = 0.5 * (entry[q, q] - entry[p, p]) / jnp.where(flat, 1, off)
    tangent = jnp.where(theta < 0, -1, 1) / (jnp.abs(theta) + jnp.sqrt(theta * theta + 1))
    tangent = jnp.where(flat, 0, tangent)
    cosine = lax.rsqrt(tangent * tangent + 1)
    sine = tangent * cosine
    rp, rq = entry[at(r, p)], entry[at(r, q)]
    entry = entry | {
      (p, p): entry[p, p] - tangent * off,
      (q, q): entry[q, q] + tangent * off,
      at(p, q): jnp.zeros_like(off),
      at(r, p): cosine * rp - sine * rq,
      at(r, q): sine * rp + cosine * rq,
    }
    vectors = [[*row] for row in vectors]
    for row in vectors:
      row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]
  return entry, vectors
