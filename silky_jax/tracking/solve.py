"""Least squares in three shapes: many small problems at once, small problems with shared unknowns, one long banded problem.

A dense solve over a clip is out of the question (51k unknowns for 765 frames); each of these is linear in the number of
frames, in time and in memory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

Residual = Callable[..., jax.Array]


def levenberg_marquardt(
  residual: Residual, x: Float[jax.Array, "p"], *, steps: int, damping: float = 1e-3
) -> tuple[Float[jax.Array, "p"], Float[jax.Array, ""]]:
  """Minimise |residual(x)|^2 / 2 by Levenberg-Marquardt (Marquardt 1963) with a fixed number of steps; vmappable.

  Args:
    residual: x -> [m].
    x: start.
    steps: accepted or rejected trials.
    damping: start value, relative to the diagonal of J^T J.

  Returns:
    The minimiser found and its energy. Never worse than the start.
  """
  energy = lambda y: 0.5 * jnp.sum(residual(y) ** 2)

  def trial(carry, _):
    x, best, lam = carry
    r = residual(x)
    jacobian = jax.jacfwd(residual)(x)
    normal = jacobian.T @ jacobian
    diagonal = jnp.diag(normal)
    damped = normal + jnp.diag(lam * diagonal + 1e-6)
    step = -jax.scipy.linalg.solve(damped, jacobian.T @ r, assume_a="pos")
    moved = x + jnp.where(jnp.isfinite(step), step, 0.0)
    value = energy(moved)
    better = value < best
    return (jnp.where(better, moved, x), jnp.where(better, value, best), jnp.where(better, lam * 0.2, lam * 8.0)), None

  (x, best, _), _ = jax.lax.scan(trial, (x, energy(x), jnp.asarray(damping, x.dtype)), None, length=steps)
  return x, best


def shared_step(
  frame: Callable[[jax.Array, jax.Array, int], tuple[jax.Array, jax.Array, jax.Array]],
  shared_residual: Callable[[jax.Array], jax.Array],
  x: Float[jax.Array, "t p"],
  z: Float[jax.Array, "q"],
  damping: Float[jax.Array, ""],
  weight: float,
) -> tuple[Float[jax.Array, "t p"], Float[jax.Array, "q"]]:
  """One damped Gauss-Newton step on frames that share unknowns, frames eliminated by the Schur complement.

  Args:
    frame: (x_t, z, t) -> residual [m] and its Jacobians [m p], [m q].
    shared_residual: z -> [r], the prior of the shared unknowns.
    x: per-frame unknowns.
    z: shared unknowns.
    damping: added to both diagonals, relative.
    weight: what one frame counts against the shared prior.

  Returns:
    The moved x and z.
  """
  damp = lambda a: a + jnp.diag(damping * jnp.diag(a) + 1e-6)

  def eliminate(x_t, t):
    r, jx, jz = frame(x_t, z, t)
    a, b, g = damp(jx.T @ jx), jx.T @ jz, jx.T @ r
    solved = jax.scipy.linalg.solve(a, jnp.column_stack([b, g]), assume_a="pos")
    return solved, jz.T @ jz - b.T @ solved[:, :-1], jz.T @ r - b.T @ solved[:, -1]

  solved, normals, gradients = jax.lax.map(lambda pair: eliminate(*pair), (x, jnp.arange(x.shape[0])), batch_size=8)
  jp = jax.jacfwd(shared_residual)(z)
  normal = weight * normals.sum(axis=0) + jp.T @ jp
  gradient = weight * gradients.sum(axis=0) + jp.T @ shared_residual(z)
  dz = -jax.scipy.linalg.solve(damp(normal), gradient, assume_a="pos")
  dx = -(solved[..., -1] + jnp.einsum("tpq,q->tp", solved[..., :-1], dz))
  return x + dx, z + dz


def banded_smooth(
  normals: Float[np.ndarray, "t p p"],
  gradients: Float[np.ndarray, "t p"],
  x: Float[np.ndarray, "t p"],
  times: Float[np.ndarray, "t"],
  joined: Float[np.ndarray, "t"],
  stiffness: Float[np.ndarray, "p"],
) -> Float[np.ndarray, "t p"]:
  """One Gauss-Newton step on a whole clip with a penalty on acceleration; block pentadiagonal, solved by banded Cholesky.

  Minimises sum_t (g_t . d_t + d_t^T H_t d_t / 2) + sum_t s_p |second difference of (x + d)|^2 / 2, the second
  difference taken on the real, uneven times in units of frames.

  Args:
    normals, gradients: the frames' own quadratics at x.
    x: where they were taken.
    times: in frames; may skip.
    joined: 1 where frame t belongs to the same shot as frame t - 1.
    stiffness: per unknown, 1 / (standard deviation of the acceleration)^2.

  Returns:
    x + d.
  """
  count, p = x.shape
  band = 3 * p - 1
  matrix = np.zeros((band + 1, count * p))
  rhs = -gradients.astype(np.float64).copy()
  rows, cols = np.tril_indices(p)
  for t in range(count):
    matrix[rows - cols, t * p + cols] += normals[t][rows, cols]
  diagonal = np.arange(p)
  for t in range(1, count - 1):
    if not (joined[t] and joined[t + 1]):
      continue
    before, after = times[t] - times[t - 1], times[t + 1] - times[t]
    w = np.array([2 / (before * (before + after)), -2 / (before * after), 2 / (after * (before + after))])
    # A gap of several frames says little about the acceleration inside it.
    scale = stiffness / max(before, after) ** 2
    bend = w @ x[t - 1 : t + 2]
    for i in range(3):
      rhs[t - 1 + i] -= scale * w[i] * bend
      for j in range(i + 1):
        matrix[(i - j) * p, (t - 1 + j) * p + diagonal] += scale * w[i] * w[j]
  matrix[0] += 1e-9
  step = scipy.linalg.solveh_banded(matrix, rhs.ravel(), lower=True, overwrite_ab=True)
  return x + step.reshape(count, p)
