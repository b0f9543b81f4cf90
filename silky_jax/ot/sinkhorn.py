"""Sinkhorn divergences of weighted point clouds in GeomLoss's conventions, solved inside the compiled step by OTT, on a GPU by a kernel.

S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 with the cost |x - y|^2 / 2, entropy eps KL(P | a b^T), eps = blur^2, and, unbalanced, marginals
held by rho KL, rho = reach^2: mass is rather lost than carried much further (Feydy et al. 2019; Sejourne et al. 2019).

OTT's entropy is relative to the counting measure. In balanced problems that is the same; unbalanced it is another problem (plans of a mass
above 1). -eps log(a b^T) in the cost makes it ours. The value and its gradient are those of the dual objective at OTT's potentials, which
are held constant: at the optimum it is flat in them (Danskin).

Two things keep the iterations few. The solve of a pair starts where transport between Gaussians of the same moments would end, on top of
the two clouds' own potentials: what is left to find is local, and local errors die fast. And unbalanced updates are over-relaxed by the
factor that is best for their slowest error, the total mass (Lehmann et al. 2021, "A note on overrelaxation in the Sinkhorn algorithm").

OTT's loops ask the host after every iteration whether there is another, which a GPU waits for. There small problems are solved by
`silky_kernels.sinkhorn`: the same updates and the same end, a program per problem, all of them in one launch.
"""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float
from silky_kernels import available_backends, sinkhorn
from silky_kernels.sinkhorn.api import LARGEST, relaxation, tau_of

from silky_jax.math import spd

__all__ = ["Divergence", "Reach", "Solver", "divergence_of_costs", "gaussian_potentials", "sinkhorn_divergence", "square_costs"]

Reach = float | None | Sequence[float | None]  # of all pairs, or of each; None: balanced
Solver = Literal["auto", "ott", "pallas"]

_LEAST = 1e-12  # mass of padding: no weight is 0, and no logarithm infinite


class Divergence(NamedTuple):
  """Of each pair of clouds."""

  value: Float[Array, "g"]  # in the square of the coordinates' unit; 0 where a solve did not converge or a cloud has no mass
  converged: Bool[Array, "g"]  # True too where there was nothing to solve


class _Solver(NamedTuple):
  """Settings of the solves of p pairs. Python numbers."""

  epsilon: float
  rho: tuple[float | None, ...]  # of each pair
  threshold: float
  max_iterations: int
  name: Solver

  def solve(self, cost, a, b, start=None, *, alike=False):
    """Potentials of all pairs; 0 and False where they were not found. `alike`: of clouds with themselves, where averaged updates of both
    potentials at once converge faster."""
    f, g = (jnp.zeros_like(a), jnp.zeros_like(b)) if start is None else map(lax.stop_gradient, start)
    by = self._by_kernel if self._fits_kernel(cost) else self._by_ott
    f, g, done = by(lax.stop_gradient(cost), a, b, f, g, alike)
    done = done & jnp.isfinite(f).all(axis=1) & jnp.isfinite(g).all(axis=1)
    f, g = (jnp.where(done[:, None], lax.stop_gradient(potential), 0) for potential in (f, g))
    return f, g, done

  def _fits_kernel(self, cost):
    if self.name != "auto":
      return self.name == "pallas"
    return cost.dtype == jnp.float32 and max(cost.shape[1:]) <= LARGEST and bool(available_backends("sinkhorn"))

  def _by_kernel(self, cost, a, b, f, g, alike):
    settings = {"epsilon": self.epsilon, "rho": self.rho, "threshold": self.threshold, "max_iterations": self.max_iterations}
    found = sinkhorn(cost, a, b, (f, g), **settings, alike=alike)
    return found.f, found.g, found.converged

  def _by_ott(self, cost, a, b, f, g, alike):
    """A reach is part of OTT's program, so pairs are solved by reach."""
    classes = sorted(set(self.rho), key=lambda rho: rho or 0.0)
    rows = [[k for k, rho in enumerate(self.rho) if rho == kind] for kind in classes]
    found = []
    for own, rho in zip(rows, classes, strict=True):
      arrays = (x if len(classes) == 1 else x[jnp.asarray(own)] for x in (cost, a, b, f, g))
      found.append(jax.vmap(functools.partial(self._one_by_ott, rho=rho, alike=alike))(*arrays))
    if len(classes) == 1:
      return found[0]
    back = jnp.argsort(jnp.asarray([k for own in rows for k in own]))
    return tuple(jnp.concatenate(field)[back] for field in zip(*found, strict=True))

  def _one_by_ott(self, cost, a, b, f, g, *, rho, alike):
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    shifted = cost - self.epsilon * (jnp.log(a)[:, None] + jnp.log(b)[None])
    tau = tau_of(self.epsilon, rho)
    solve = ott_sinkhorn.Sinkhorn(
      threshold=self.threshold,
      max_iterations=self.max_iterations,
      inner_iterations=1,
      parallel_dual_updates=alike,
      momentum=acceleration.Momentum(start=0, value=0.5 if alike else relaxation(tau)),
    )
    problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=shifted, epsilon=self.epsilon), a=a, b=b, tau_a=tau, tau_b=tau)
    out = solve(problem, init=(f, g))
    return out.f, out.g, jnp.asarray(out.converged)

  def value(self, cost, a, b, f, g):
    """The dual objective at given potentials. With those of the optimum, its gradient in the costs is that of the optimum (Danskin)."""
    plan = jnp.exp((f[:, :, None] + g[:, None] - cost) / self.epsilon) * a[:, :, None] * b[:, None]
    entropy = -self.epsilon * (jnp.sum(plan, axis=(1, 2)) - 1)
    exact = jnp.asarray([rho is None for rho in self.rho])
    rho = jnp.asarray([1.0 if rho is None else rho for rho in self.rho], cost.dtype)[:, None]
    # Held marginals give in their potentials, others what their loss leaves of them. Potentials have no gradient, so neither has this.
    kept = (jnp.where(exact[:, None], potential, -rho * jnp.expm1(-potential / rho)) for potential in (f, g))
    return entropy + sum(jnp.sum(mass * potential, axis=-1) for mass, potential in zip((a, b), kept, strict=True))


def sinkhorn_divergence(
  x: Float[Array, "g m 3"],
  a: Float[Array, "g m"],
  y: Float[Array, "g k 3"],
  b: Float[Array, "g k"],
  *,
  blur: float = 3.0,
  reach: Reach = None,
  threshold: float = 1e-2,
  max_iterations: int = 500,
  solver: Solver = "auto",
) -> Divergence:
  """Debiased entropic transport cost between pairs of clouds, all at once.

  Args:
    x: mm; padded atoms anywhere finite.
    a: masses, at least 0, normalised to sum 1 here; 0 for padding.
    y: mm.
    b: likewise.
    blur: mm; the scale below which shapes are not told apart.
    reach: mm, or None for balanced transport; of all pairs, or a list with that of each. Python numbers: other values are another program.
    threshold: of the error of the marginals (L1), at which a solve has converged.
    max_iterations: after which it has not.
    solver: "ott", "pallas" (NVIDIA GPUs, float32, at most 128 atoms), or "auto": the latter where it can run, which is many times faster
      there.

  Returns:
    Divergence. Differentiable once in x and y; no loop is unrolled. What did not converge has value 0 and no gradient.

  Raises:
    ValueError: another number of reaches than of pairs, or too many atoms for the solver named.
    NotImplementedError: "pallas" where it cannot run.
  """
  costs = square_costs(x, y), square_costs(x, x), square_costs(y, y)
  start = gaussian_potentials(x, a, y, b, blur=blur)
  settings = {"blur": blur, "reach": reach, "threshold": threshold, "max_iterations": max_iterations, "solver": solver}
  return divergence_of_costs(*costs, a, b, start, **settings)


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
  reach: Reach = None,
  threshold: float = 1e-2,
  max_iterations: int = 500,
  solver: Solver = "auto",
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
    reach: mm or None, or of each.
    threshold: of convergence.
    max_iterations: of one solve.
    solver: likewise.

  Returns:
    Divergence. Differentiable once in the costs.

  Raises:
    ValueError, NotImplementedError: as `sinkhorn_divergence`.
  """
  a_mass, b_mass = _normalised(a), _normalised(b)
  some = (jnp.sum(a, axis=-1) > 0) & (jnp.sum(b, axis=-1) > 0)
  reaches = reach if isinstance(reach, Sequence) else (reach,) * len(across)
  if len(reaches) != len(across):
    raise ValueError(f"reach: expected one number or None, or one of each of the {len(across)} pairs, got {len(reaches)}")
  settled = _Solver(blur**2, tuple(None if own is None else own**2 for own in reaches), threshold, max_iterations, solver)
  of_x, of_y = _solve_within(settled, within_x, a_mass, within_y, b_mass)
  guess = (0.0, 0.0) if start is None else start
  between = settled.solve(across, a_mass, b_mass, (of_x[0] + guess[0], of_y[0] + guess[1]))
  value = settled.value(across, a_mass, b_mass, *between[:2])
  value -= 0.5 * settled.value(within_x, a_mass, a_mass, *of_x[:2]) + 0.5 * settled.value(within_y, b_mass, b_mass, *of_y[:2])
  fine = between[2] & of_x[2] & of_y[2] & jnp.isfinite(value)
  return Divergence(jnp.where(fine & some, value, 0), fine | ~some)


def _solve_within(solver, within_x, a, within_y, b):
  """Each measure with itself; in one loop where both have as many atoms, which is half to compile."""
  if a.shape != b.shape:
    return tuple(solver.solve(cost, mass, mass, alike=True) for cost, mass in ((within_x, a), (within_y, b)))
  masses = jnp.concatenate([a, b])
  both = solver._replace(rho=solver.rho * 2).solve(jnp.concatenate([within_x, within_y]), masses, masses, alike=True)
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
