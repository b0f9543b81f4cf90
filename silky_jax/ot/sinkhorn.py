"""Sinkhorn divergences of weighted point clouds in GeomLoss's conventions, solved by OTT inside the compiled step.

S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 with the cost |x - y|^2 / 2, entropy eps KL(P | a b^T), eps = blur^2, and, unbalanced, marginals
held by rho KL, rho = reach^2: mass is rather lost than carried much further (Feydy et al. 2019; Sejourne et al. 2019).

OTT's entropy is relative to the counting measure. In balanced problems that is the same; unbalanced it is another problem (plans of a mass
above 1). -eps log(a b^T) in the cost makes it ours. The value and its gradient are those of the dual objective at OTT's potentials, which
are held constant: at the optimum it is flat in them (Danskin).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

__all__ = ["Divergence", "sinkhorn_divergence"]

_LEAST = 1e-12  # mass of padding: no weight is 0, and no logarithm infinite


class Divergence(NamedTuple):
  """Of each pair of clouds."""

  value: Float[Array, "g"]  # in the square of the coordinates' unit; 0 where a solve did not converge or a cloud has no mass
  converged: Bool[Array, "g"]  # True too where there was nothing to solve


def sinkhorn_divergence(
  x: Float[Array, "g m 3"],
  a: Float[Array, "g m"],
  y: Float[Array, "g k 3"],
  b: Float[Array, "g k"],
  *,
  blur: float = 3.0,
  reach: float | None = None,
  threshold: float = 1e-2,
  max_iterations: int = 500,
) -> Divergence:
  """Debiased entropic transport cost between pairs of clouds, all at once.

  Args:
    x: mm; padded atoms anywhere finite.
    a: masses, at least 0, normalised to sum 1 here; 0 for padding.
    y: mm.
    b: likewise.
    blur: mm; the scale below which shapes are not told apart.
    reach: mm, or None for balanced transport. A Python number: another value is another program.
    threshold: of the error of the marginals (L1), at which a solve has converged.
    max_iterations: after which it has not.

  Returns:
    Divergence. Differentiable once in x and y; no loop is unrolled. What did not converge has value 0 and no gradient.
  """
  mass = lambda w: _normalised(lax.stop_gradient(w))
  a_mass, b_mass = mass(a), mass(b)
  some = (jnp.sum(a, axis=-1) > 0) & (jnp.sum(b, axis=-1) > 0)
  solver = _Solver(blur**2, None if reach is None else reach**2, threshold, max_iterations)
  across, done_across = _transport(solver, x, a_mass, y, b_mass)
  of_x, done_x = _transport(solver._replace(alike=True), x, a_mass, x, a_mass)
  of_y, done_y = _transport(solver._replace(alike=True), y, b_mass, y, b_mass)
  value = across - 0.5 * of_x - 0.5 * of_y
  fine = done_across & done_x & done_y & jnp.isfinite(value)
  return Divergence(jnp.where(fine & some, value, 0), fine | ~some)


def _normalised(weights):
  positive = jnp.maximum(weights, 0)
  positive = positive + _LEAST * jnp.maximum(1, jnp.max(positive, axis=-1, keepdims=True))
  return positive / jnp.sum(positive, axis=-1, keepdims=True)


class _Solver(NamedTuple):
  epsilon: float
  rho: float | None
  threshold: float
  max_iterations: int
  alike: bool = False  # both clouds are the same: simultaneous damped updates converge faster

  def potentials(self, cost, a, b):
    """Of one pair, and whether they are those of the optimum."""
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    shifted = cost - self.epsilon * (jnp.log(a)[:, None] + jnp.log(b)[None])
    tau = 1.0 if self.rho is None else self.rho / (self.rho + self.epsilon)
    damped = {"parallel_dual_updates": True, "momentum": acceleration.Momentum(start=0, value=0.5)} if self.alike else {}
    solve = sinkhorn.Sinkhorn(threshold=self.threshold, max_iterations=self.max_iterations, inner_iterations=1, **damped)
    out = solve(linear_problem.LinearProblem(geometry.Geometry(cost_matrix=shifted, epsilon=self.epsilon), a=a, b=b, tau_a=tau, tau_b=tau))
    return out.f, out.g, jnp.asarray(out.converged)


def _transport(solver: _Solver, x: Array, a: Array, y: Array, b: Array) -> tuple[Array, Array]:
  """The dual objective [g] at the potentials that OTT finds, and whether it found them."""
  epsilon, rho = solver.epsilon, solver.rho
  cost = 0.5 * jnp.sum((x[:, :, None] - y[:, None]) ** 2, axis=-1)
  f, g, done = jax.vmap(solver.potentials)(lax.stop_gradient(cost), a, b)
  f, g = (jnp.where(done[:, None], lax.stop_gradient(potential), 0) for potential in (f, g))
  plan = jnp.exp((f[:, :, None] + g[:, None] - cost) / epsilon) * a[:, :, None] * b[:, None]
  entropy = -epsilon * (jnp.sum(plan, axis=(1, 2)) - 1)
  if rho is None:
    return jnp.sum(a * f, axis=-1) + jnp.sum(b * g, axis=-1) + entropy, done
  kept = jnp.sum(a * jnp.expm1(-f / rho), axis=-1) + jnp.sum(b * jnp.expm1(-g / rho), axis=-1)
  return entropy - rho * kept, done
