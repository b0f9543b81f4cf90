"""Solid noise: smooth random fields over points in space, so that a texture has no seams."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

__all__ = ["fractal", "solid"]


def solid(points: Float[np.ndarray, "n 3"], size: float, seed: int) -> Float[np.ndarray, "n"]:
  """Value noise with features of about `size`, on a lattice that the seed turns: no feature follows an axis.

  Args:
    points: metres.
    size: metres.
    seed: any non-negative number.

  Returns:
    -1..1.
  """
  turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
  # Positive coordinates: the lattice's cells are hashed as unsigned numbers.
  scaled = np.asarray(points, np.float64) @ turn / size + 4096.0
  cell = np.floor(scaled)
  return np.asarray(_value_noise(jnp.asarray(cell, jnp.int32), jnp.asarray(scaled - cell, jnp.float32), jnp.uint32(seed % 2**32)))


def fractal(points: Float[np.ndarray, "n 3"], size: float, seed: int, octaves: int = 4) -> Float[np.ndarray, "n"]:
  """A sum of octaves of `solid`, each half as large and 0.55 as strong; about -1..1."""
  weights = 0.55 ** np.arange(octaves)
  layers = [w * solid(points, size / 2**k, seed + 101 * k) for k, w in enumerate(weights)]
  return np.sum(layers, axis=0) / weights.sum() * 1.6


@jax.jit
def _value_noise(cell: Int[Array, "n 3"], inside: Float[Array, "n 3"], seed: Array) -> Float[Array, "n"]:
  t = inside * inside * (3 - 2 * inside)
  out = jnp.zeros(cell.shape[0], jnp.float32)
  for corner in np.ndindex(2, 2, 2):
    x, y, z = (t[:, k] if corner[k] else 1 - t[:, k] for k in range(3))
    out += x * y * z * _lattice(cell + jnp.asarray(corner, jnp.int32), seed)
  return out


def _lattice(cell: Int[Array, "n 3"], seed: Array) -> Float[Array, "n"]:
  """A number in -1..1 for every cell: 32-bit mixing of its coordinates."""
  x, y, z = (cell[:, k].astype(jnp.uint32) for k in range(3))
  key = x * jnp.uint32(73856093) ^ y * jnp.uint32(19349663) ^ z * jnp.uint32(83492791) ^ seed * jnp.uint32(2654435761)
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
    key = (key ^ (key >> shift)) * jnp.uint32(factor)
  return key.astype(jnp.float32) / 2.0**31 - 1.0
