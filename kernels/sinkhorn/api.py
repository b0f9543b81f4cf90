"""sinkhorn: potentials of many small entropic transport problems at once."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from silky_kernels.backend import Backend, choose

__all__ = ["LARGEST", "Potentials", "relaxation", "sinkhorn", "tau_of"]

LARGEST = 128  # atoms of a cloud: a problem's costs stay in the registers of one program


class Potentials(NamedTuple):
  """Of each problem, in the unit of its costs."""

  f: Float[Array, "p m"]
  g: Float[Array, "p k"]
  converged: Bool[Array, "p"]
  iterations: Int[Array, "p"]


def sinkhorn(
  costs: Float[Array, "p m k"],
  a: Float[Array, "p m"],
  b: Float[Array, "p k"],
  start: tuple[Float[Array, "p m"], Float[Array, "p k"]],
  *,
  epsilon: float,
  rho: Sequence[float | None],
  threshold: float,
  max_iterations: int,
  alike: bool = False,
  backend: Backend | None = None,
) -> Potentials:
  """Iterates to the optimum of the dual, each problem until its own marginals are right.

      g_j <- -tau eps log sum_i a_i exp((f_i - C_ij) / eps),    f_i <- -tau eps log sum_j b_j exp((g_j - C_ij) / eps)

  with tau = rho / (rho + eps): entropy eps KL(P | a b^T), marginals held by rho KL (Sejourne et al. 2019, "Sinkhorn divergences for
  unbalanced optimal transport", Prop. 8). Updates are over-relaxed by `relaxation(tau)`; those of a cloud with itself are done to both
  potentials at once and averaged with the old ones. The error is the L1 norm of the dual's gradient.

  Args:
    costs: any unit; symmetric if `alike`.
    a: masses, above 0, of sum 1.
    b: likewise.
    start: guess of the potentials.
    epsilon: in the unit of the costs.
    rho: of each problem, in that unit; None holds the marginals exactly. Python numbers; other values are the same program's data.
    threshold: of the error.
    max_iterations: after which a problem has not converged.
    alike: whether every problem is one of a cloud with itself.
    backend: "pallas" (NVIDIA GPUs, float32, at most 128 atoms), or None for the best available.

  Returns:
    Potentials. No gradient: at the optimum the dual is flat in them. Potentials of a problem that has not converged are not finite or not
    those of the optimum.

  Raises:
    ValueError: more atoms than `LARGEST`, or another number of `rho` than of problems.
    NotImplementedError: a backend that cannot run here; there is none for CPUs, where OTT does it (`silky_jax.ot.sinkhorn`).
  """
  problems, rows, columns = costs.shape
  if len(rho) != problems:
    raise ValueError(f"rho: expected one of each of the {problems} problems, got {len(rho)}")
  if max(rows, columns) > LARGEST:
    raise ValueError(f"costs: expected at most {LARGEST} atoms, got {rows} x {columns}; silky_jax.ot.sinkhorn solves larger ones with OTT")
  arrays = (costs, a, b, *start)
  choose("sinkhorn", backend, exact=any(array.dtype != jnp.float32 for array in arrays))
  from silky_kernels.sinkhorn.pallas import solve  # pulls Pallas in: only when somebody uses it

  steps = [0.5 if alike else relaxation(tau_of(epsilon, own)) for own in rho]
  losses = [0.0 if own is None else epsilon / own for own in rho]
  settings = jnp.asarray([[tau_of(epsilon, own) for own in rho], steps, losses], jnp.float32).T
  f, g, error, left = solve(*map(lax.stop_gradient, (*arrays, settings)), epsilon, threshold, max_iterations, alike)
  return Potentials(f, g, error < threshold, max_iterations - left)


@functools.cache
def tau_of(epsilon: float, rho: float | None) -> float:
  """What an update keeps of a potential's change: 1 where marginals are exact."""
  return 1.0 if rho is None else rho / (rho + epsilon)


@functools.cache
def relaxation(tau: float) -> float:
  """The factor of updates that is best for the slowest error of an unbalanced problem, its total mass, of which tau^2 is left after each
  iteration (Lehmann et al. 2021, "A note on overrelaxation in the Sinkhorn algorithm", eq. 5); 1 where marginals are exact."""
  return 1.0 if tau == 1.0 else 2 / (1 + math.sqrt(1 - tau * tau))
