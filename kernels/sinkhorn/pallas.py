"""sinkhorn on a GPU: one program per problem, its costs in registers from the first iteration to the last; nothing is read by the host.

Potentials are kept in units of eps ln 2, so that all exponentials are of base 2. The sums that an update wants are those that the error of
the iteration before wanted: two passes over the costs per iteration.
"""

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array
from silky_kernels.triton import interpreted, launch, load, merge_batches, store

__all__ = ["solve"]

_LOG2_E = 1.4426950408889634
_NOTHING = -1e30  # logarithm of no mass
_SETTINGS = 3  # tau, relaxation, eps / rho


def solve(costs, a, b, f, g, settings, epsilon: float, threshold: float, max_iterations: int, alike: bool) -> tuple[Array, ...]:
  """See `api.sinkhorn`; (f, g, error, iterations left). Problems of a batch, however nested under `vmap`, are one launch."""

  settled = functools.partial(_launch, epsilon=epsilon, threshold=threshold, max_iterations=max_iterations, alike=alike)
  return merge_batches(settled)(costs, a, b, f, g, settings)


def _launch(*arrays, epsilon, threshold, max_iterations, alike):
  problems, m, k = arrays[0].shape
  rows, columns = (max(16, 1 << (count - 1).bit_length()) for count in (m, k))
  unit = epsilon / _LOG2_E

  def kernel(costs: Any, a: Any, b: Any, f: Any, g: Any, settings: Any, *outputs: Any) -> None:
    problem = pl.program_id(0)
    row, column = lax.broadcasted_iota(jnp.int32, (rows, 1), 0), lax.broadcasted_iota(jnp.int32, (1, columns), 1)
    real_row, real_column = row < m, column < k
    tau, step, give = (load(settings, problem * _SETTINGS + number) for number in range(_SETTINGS))
    cost = load(costs, (problem * m + row) * k + column, real_row & real_column) / unit
    mass_a, mass_b = load(a, problem * m + row, real_row), load(b, problem * k + column, real_column)
    of_a, of_b = (jnp.where(mass > 0, jnp.log(jnp.maximum(mass, 1e-37)) * _LOG2_E, _NOTHING) for mass in (mass_a, mass_b))

    def along(potential: Array, weight: Array, axis: int) -> Array:
      """log2 of the sum over one cloud."""
      inside = potential + weight - cost
      top = jnp.max(inside, axis=axis, keepdims=True)
      return top + jnp.log(jnp.sum(jnp.exp2(inside - top), axis=axis, keepdims=True)) * _LOG2_E

    def gap(mass: Array, potential: Array, sum_: Array) -> Array:
      """L1 norm of the dual's gradient in one potential. What a marginal should be: the mass, less what may be lost."""
      return jnp.sum(mass * jnp.abs(jnp.exp2(potential + sum_) - jnp.exp2(-give * potential)))

    def iterate(state: tuple) -> tuple:
      left, _, f, g, over_a, over_b = state
      g = (1 - step) * g - step * tau * over_a
      if alike:
        f = (1 - step) * f - step * tau * over_b
        over_b = along(g, of_b, 1)
      else:
        over_b = along(g, of_b, 1)
        f = (1 - step) * f - step * tau * over_b
      over_a = along(f, of_a, 0)
      error = gap(mass_b, g, over_a)
      of_rows = gap(mass_a, f, over_b)
      # A balanced solve ends with the update that makes the rows right, by definition.
      error = error + of_rows if alike else error + jnp.where(give > 0, of_rows, 0.0)
      return left - 1, error, f, g, over_a, over_b

    def wrong(state: tuple) -> Array:
      left, error = state[:2]
      return (left > 0) & (error >= threshold) & (error < jnp.inf)  # not with what is not finite

    f_start, g_start = load(f, problem * m + row, real_row) / unit, load(g, problem * k + column, real_column) / unit
    begin = (jnp.int32(max_iterations), jnp.float32(3e38), f_start, g_start, along(f_start, of_a, 0), along(g_start, of_b, 1))
    left, error, f_end, g_end, _, _ = lax.while_loop(wrong, iterate, begin)
    store(outputs[0], problem * m + row, f_end * unit, real_row)
    store(outputs[1], problem * k + column, g_end * unit, real_column)
    store(outputs[2], problem, error)
    store(outputs[3], problem, left)

  sizes = [(problems * m, jnp.float32), (problems * k, jnp.float32), (problems, jnp.float32), (problems, jnp.int32)]
  warps = 4 if rows * columns <= 2048 else 8
  f, g, error, left = launch(kernel, (problems,), sizes, arrays, warps=warps, interpret=interpreted(), name="silky_sinkhorn")
  return f.reshape(problems, m), g.reshape(problems, k), error, left
