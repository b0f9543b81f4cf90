"""Sinkhorn divergences of weighted point clouds in GeomLoss's conventions, solved by OTT inside the compiled step.

S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 with the cost |x - y|^2 / 2, entropy eps KL(P | a b^T), eps = blur^2, and, unbalanced, marginals
held by rho KL, rho = reach^2: mass is rather lost than carried much further (Feydy et al. 2019; Sejourne et al. 2019).

OTT's entropy is relative to the counting measure. In balanced problems that is the same; unbalanced it is another problem (plans of a mass
above 1). -eps log(a b^T) in the cost makes it ours. The value and its gradient are those of the dual objective at OTT's potentials, which
are held constant: at the optimum it is flat in them (Danskin).

Two things keep the iterations few. The solve of a pair starts where transport between Gaussians of the same moments would end, on top of
the two clouds' own potentials: what is left to find is local, and local errors die fast. And unbalanced updates are over-relaxed by the
factor that is best for their slowest error, the total mass (Lehmann et al. 2021, "A note on overrelaxation in the Sinkhorn algorithm").
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from silky_jax.math import spd

__all__ = ["Divergence", "divergence_of_costs", "gaussian_potentials", "sinkhorn_divergence", "square_costs"]

_LEAST = 1e-12  # mass of padding: no weight is 0, and no logarithm infinite


class Divergence(NamedTuple):
  """Of each pair of clouds."""

  value: Float[Array, "g"]  # in the square of the coordinates' unit; 0 where a solve did not converge or a cloud has no mass
  converged: Bool[Array, "g"]  # True too where there was nothing to solve


class _Solver(NamedTuple):
  """Settings of all solves of one call. Python numbers: other values are another program."""

  epsilon: float
  rho: float | None
  threshold: float
  max_iterations: int

  def potentials(self, cost, a, b, start, *, alike):
    """Of one pair, and whether they are those of the optimum. `alike`: of a cloud with itself, where averaged updates of both potentials
    at once converge faster."""
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    shifted = cost - self.epsilon * (jnp.log(a)[:, None] + jnp.log(b)[None])
    tau = 1.0 if self.rho is None else self.rho / (self.rho + self.epsilon)
    # The total mass is wrong by tau^2 of itself after each iteration; over-relaxed as is best for that, by much less.
    step = 0.5 if alike else 1.0 if self.rho is None else 2 / (1 + math.sqrt(1 - tau * tau))
    solve = sinkhorn.Sinkhorn(
      threshold=self.threshold,
      max_iterations=self.max_iterations,
      inner_iterations=1,
      parallel_dual_updates=alike,
      momentum=acceleration.Momentum(start=0, value=step),
    )
    problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=shifted, epsilon=self.epsilon), a=a, b=b, tau_a=tau, tau_b=tau)
    out = solve(problem, init=start)
    return out.f, out.g, jnp.asarray(out.converged)

  def solve(self, cost, a, b, start=None, *, alike=False):
    """Potentials of all pairs; 0 and False where they were not found."""
    given = (jnp.zeros_like(a), jnp.zeros_like(b)) if start is None else start

    def one(cost, a, b, f, g):
      return self.potentials(cost, a, b, (f, g), alike=alike)

    f, g, done = jax.vmap(one)(lax.stop_gradient(cost), a, b, *map(lax.stop_gradient, given))
    done = done & jnp.isfinite(f).all(axis=1) & jnp.isfinite(g).all(axis=1)
    f, g = (jnp.where(done[:, None], lax.stop_gradient(potential), 0) for potential in (f, g))
    return f, g, done

  def value(self, cost, a, b, f, g):
    """The dual objective at given potentials. With those of the optimum, its gradient in the costs is that of the optimum (Danskin)."""
    plan = jnp.exp((f[:, :, None] + g[:, None] - cost) / self.epsilon) * a[:, :, None] * b[:, None]
    entropy = -self.epsilon * (jnp.sum(plan, axis=(1, 2)) - 1)
    if self.rho is None:
      return jnp.sum(a * f, axis=-1) + jnp.sum(b * g, axis=-1) + entropy
    kept = jnp.sum(a * jnp.expm1(-f / self.rho), axis=-1) + jnp.sum(b * jnp.expm1(-g / self.rho), axis=-1)
    return entropy - self.rho * kept


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
  costs = square_costs(x, y), square_costs(x, x), square_costs(y, y)
  start = gaussian_potentials(x, a, y, b, blur=blur)
  return divergence_of_costs(*costs, a, b, start, blur=blur, reach=reach, threshold=threshold, max_iterations=max_iterations)


def square_costs(x: Float[Array, "g m 3"], y: Float[Array, "g k 3"]) -> Float[Array, "g m k"]:
  """Half the squared distances between two clouds.

  Args:
    x: any unit.
    y: likewise.

  Returns:
    In its square.
  """
  return 0.5 * jnp.sum((x[:, :, None] - y[:, None]) ** 2, axis=-1)


def divergence_of_costs(
  across: Float[Array, "g m k"],
  within_x: Float[Array, "g m m"],
  within_y: Float[Array, "g k k"],
  a: Float[Array, "g m"],
  b: Float[Array, "g k"],
  start: tuple[Float[Array, "g m"], Float[Array, "g k"]] | None = None,
  *,
  blur: float,
  reach: float | None = None,
  threshold: float = 1e-2,
  max_iterations: int = 500,
) -> Divergence:
  """`sinkhorn_divergence` for costs that are given, between atoms of any kind.

  Args:
    across: costs between the two measures, mm^2.
    within_x: of the first with itself, symmetric.
    within_y: of the second with itself.
    a: masses, normalised here; 0 for padding.
    b: likewise.
    start: a guess of the potentials without entropy, mm^2; no gradient. None: zeros.
    blur: see `sinkhorn_divergence`, as is the rest.
    reach: mm or None.
    threshold: of convergence.
    max_iterations: of one solve.

  Returns:
    Divergence. Differentiable once in the costs.
  """
  a_mass, b_mass = _normalised(a), _normalised(b)
  some = (jnp.sum(a, axis=-1) > 0) & (jnp.sum(b, axis=-1) > 0)
  solver = _Solver(blur**2, None if reach is None else reach**2, threshold, max_iterations)
  of_x, of_y = _solve_within(solver, within_x, a_mass, within_y, b_mass)
  guess = (0.0, 0.0) if start is None else start
  between = solver.solve(across, a_mass, b_mass, (of_x[0] + guess[0], of_y[0] + guess[1]))
  value = solver.value(across, a_mass, b_mass, *between[:2])
  value -= 0.5 * solver.value(within_x, a_mass, a_mass, *of_x[:2]) + 0.5 * solver.value(within_y, b_mass, b_mass, *of_y[:2])
  fine = between[2] & of_x[2] & of_y[2] & jnp.isfinite(value)
  return Divergence(jnp.where(fine & some, value, 0), fine | ~some)


def _solve_within(solver, within_x, a, within_y, b):
  """Each measure with itself; in one loop where both have as many atoms, which is half to compile."""
  if a.shape != b.shape:
    return tuple(solver.solve(cost, mass, mass, alike=True) for cost, mass in ((within_x, a), (within_y, b)))
  masses = jnp.concatenate([a, b])
  both = solver.solve(jnp.concatenate([within_x, within_y]), masses, masses, alike=True)
  return tuple(x[: len(a)] for x in both), tuple(x[len(a) :] for x in both)


def _normalised(weights):
  """Masses of sum 1, none of them 0."""
  positive = jnp.maximum(lax.stop_gradient(weights), 0)
  positive = positive + _LEAST * jnp.maximum(1, jnp.max(positive, axis=-1, keepdims=True))
  return positive / jnp.sum(positive, axis=-1, keepdims=True)


def gaussian_potentials(
  x: Float[Array, "g m 3"], a: Float[Array, "g m"], y: Float[Array, "g k 3"], b: Float[Array, "g k"], *, blur: float
) -> tuple[Float[Array, "g m"], Float[Array, "g k"]]:
  """Potentials of transport between Gaussians with the clouds' means and (blurred) covariances: where a solve had best start.

  Equation: f(x) = (x - m) . (1 - T)(x - m) / 2 + (m - m') . (x - m) + |m - m'|^2 / 4, with the optimal linear map T from one covariance to
  the other; g likewise with the roles exchanged.

  Args:
    x: mm.
    a: masses; 0 for padding.
    y: mm.
    b: masses.
    blur: mm, added to both covariances.

  Returns:
    mm^2. No gradient.
  """

  def moments(points, weights):
    mass = _normalised(weights)
    mean = jnp.sum(mass[..., None] * points, axis=1, keepdims=True)
    apart = points - mean
    spread = jnp.sum(mass[..., None, None] * apart[..., :, None] * apart[..., None, :], axis=1)
    return mean, apart, spread + blur**2 * jnp.eye(3, dtype=points.dtype)

  (mean_x, from_x, spread_x), (mean_y, from_y, spread_y) = moments(lax.stop_gradient(x), a), moments(lax.stop_gradient(y), b)
  # Both maps in one call: half to compile.
  maps = spd.optimal_map(jnp.stack([spread_x, spread_y]), jnp.stack([spread_y, spread_x]))
  shift = mean_x - mean_y

  def potential(apart, way, carry):
    left = jnp.eye(3, dtype=carry.dtype) - carry
    bent = jnp.sum(left[:, None] * apart[:, :, None, :], axis=-1)
    return jnp.sum(apart * (0.5 * bent + way), axis=-1) + 0.25 * jnp.sum(way * way, axis=-1)

  return potential(from_x, shift, maps[0]), potential(from_y, -shift, maps[1])
