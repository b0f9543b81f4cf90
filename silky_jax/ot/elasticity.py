"""Groups of Gaussians as elastic bodies: how stiff each is, and how neighbours balance.

Our reading of "hyperbolic-adaptive weights" and "differential elasticity equilibrium" (docs/physics.md): a group's weight falls with its
mobility by a hyperbolic function, so rigid parts are held and mobile ones freed; the weight is a stiffness k, the transport cost a strain
e, their product a stress, and in equilibrium a border transmits equal stress and opens no crack.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from silky_jax.math import safe

__all__ = ["Family", "border_continuity", "hyperbolic_weights", "stiffness_update", "stress_balance", "stresses"]

Family = Literal["tanh", "sech", "rational", "constant"]


def hyperbolic_weights(
  mobility: Float[Array, "g"],
  present: Bool[Array, "g"] | None = None,
  *,
  family: Family = "tanh",
  gain: float = 1.0,
  least: float = 0.05,
  most: float = 1.0,
) -> Float[Array, "g"]:
  """A weight per group that falls with its mobility.

  Equation: least + (most - least) h(gain m / median m); h(s) = 1 - tanh s, 1 / cosh s or 1 / (1 + s).

  Args:
    mobility: root mean square displacement of the group's anchors from neutral, mm; 0 is rigid.
    present: groups that have members; the others count in no median. None: all.
    family: of h; "constant" gives `most`.
    gain: kappa.
    least: of a group that moves without end.
    most: of a rigid one.

  Returns:
    Between `least` and `most`. Where all groups are rigid, all have `most`.

  Raises:
    ValueError: an unknown family.
  """
  if family not in get_args(Family):
    raise ValueError(f"family: expected one of {get_args(Family)}, got {family!r}")
  share = gain * safe.divide(mobility, jnp.nanmedian(mobility if present is None else jnp.where(present, mobility, jnp.nan)))
  falls = {
    "tanh": lambda s: 1 - jnp.tanh(s),
    "sech": lambda s: 1 / jnp.cosh(s),
    "rational": lambda s: 1 / (1 + s),
    "constant": jnp.ones_like,
  }
  return least + (most - least) * falls[family](share)


def stresses(costs: Float[Array, "g"], sizes: Float[Array, "g"], stiffness: Float[Array, "g"]) -> Float[Array, "g"]:
  """Stress k e with the strain e = (S / D^2 + 1e-8)^1/2.

  Args:
    costs: Sinkhorn divergences S, mm^2.
    sizes: diameters D, mm.
    stiffness: k.

  Returns:
    No unit.
  """
  return stiffness * jnp.sqrt(jnp.maximum(costs, 0) / sizes**2 + 1e-8)


def stress_balance(stress: Float[Array, "g"], border: Float[Array, "g g"]) -> Float[Array, ""]:
  """E1: squared differences of stress across borders, summed over pairs of groups.

  Args:
    stress: of each group.
    border: symmetric, the share of the border between two groups; 0 on the diagonal.

  Returns:
    At least 0.
  """
  return 0.5 * jnp.sum(border * (stress[:, None] - stress[None]) ** 2)


def stiffness_update(
  stiffness: Float[Array, "g"],
  stress: Float[Array, "g"],
  known: Bool[Array, "g"],
  *,
  rate: float = 0.1,
  least: float = 0.05,
  most: float = 4.0,
) -> Float[Array, "g"]:
  """E2: stiffness moved towards equal stress, mean 1. Its fixed point is that all stresses are equal.

  Equation: k (mean stress / (stress + 1e-6))^rate, clipped, over its mean.

  Args:
    stiffness: k.
    stress: of each group.
    known: groups that have a stress: with members, and solved. The others keep their stiffness and count in no mean.
    rate: eta.
    least: of the clip.
    most: of the clip.

  Returns:
    No gradient.
  """
  mean = lambda x: safe.divide(jnp.sum(jnp.where(known, x, 0)), jnp.sum(known, dtype=x.dtype))
  moved = jnp.clip(stiffness * (mean(stress) / (stress + 1e-6)) ** rate, least, most)
  return lax.stop_gradient(jnp.where(known, moved / jnp.where(jnp.any(known), mean(moved), 1), stiffness))


def border_continuity(
  offsets: Float[Array, "n 3"],
  neighbours: Int[Array, "n k"],
  groups: Int[Array, "n"],
  stiffness: Float[Array, "g"],
  spacing: Float[Array, "n"],
) -> Float[Array, ""]:
  """E3: neighbours of different groups move together, as springs in series.

  Equation: mean over pairs (i in g, j in h, g != h) of 2 k_g k_h / (k_g + k_h) |u_i - u_j|^2 / spacing_i^2.

  Args:
    offsets: u, what each Gaussian is off its anchor, in local axes.
    neighbours: on the surface; a point that names itself counts for nothing.
    groups: of each point; -1 for none, which has no border.
    stiffness: of each group.
    spacing: to the neighbours, in the unit of `offsets`.

  Returns:
    At least 0; 0 where no two groups touch.
  """
  own, other = stiffness[groups][:, None], stiffness[groups[neighbours]]
  grouped = (groups[:, None] >= 0) & (groups[neighbours] >= 0)
  across = ((groups[:, None] != groups[neighbours]) & grouped).astype(offsets.dtype)
  squares = jnp.sum((offsets[:, None] - offsets[neighbours]) ** 2, axis=-1) / spacing[:, None] ** 2
  return safe.divide(jnp.sum(across * 2 * own * other / (own + other) * squares), jnp.sum(across))
