"""The transport term: groups of Gaussians keep their mass where the mesh under them has it.

Three levels. 0: the whole head as one measure with one atom per group, a Gaussian of its members' places: layout and size of the parts.
1: each group as a cloud of sampled members against the same members' mesh anchors: points may slide inside their anatomy, the group may
not spread, tear or drift. 2: the same within the cell of every landmark. Beside them the groups are elastic bodies (`elasticity`):

    L = sum_g k_g S_g / D_g^2 + w_0 S_0 / D_0^2 (+ mean over cells of k S / D^2) + w_b L_border (+ w_e L_balance)

S is the debiased Sinkhorn divergence, D the size of a group, k its stiffness. All of this is our reading of three phrases: docs/physics.md.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from silky_jax.math import safe, spd
from silky_jax.math.grouped import members_of, sum_over, value_of
from silky_jax.ot import elasticity
from silky_jax.ot.groups import Bodies, Grouping, sample
from silky_jax.ot.sinkhorn import Divergence, Reach, Solver, divergence_of_costs, gaussian_potentials, square_costs

__all__ = ["Elastic", "Places", "TransportConfig", "TransportResult", "new_elastic", "transport_term"]

_MM = 1e3  # per metre: the one place where this room's millimetres are made
_THINNEST = 1.0  # mm, deviation added to the parts of level 0: a group of one has none of its own
_GOLDEN = 0.618034  # steps of this share visit all phases evenly
_FORGET = 0.98  # of the running stress, per step


@dataclasses.dataclass(frozen=True)
class TransportConfig:
  """Settings of the term."""

  landmark_groups: Literal["flame", "face-parsing", "one"] = "flame"
  levels: tuple[int, ...] = (0, 1)  # 2 needs landmark groups
  atoms: int = 64  # per group and step; time grows with the square
  frames: int = 1  # of a clip's rendered frames
  reference: Literal["mesh", "rest"] = "mesh"  # where mass belongs: on the mesh, or where each Gaussian rests beside it
  blur: float = 3.0  # mm, about the spacing
  semi_reach: float = 30.0  # mm; rigid groups are balanced
  mobile_reach: float = 10.0
  weight_family: elasticity.Family = "tanh"  # of weights over mobility; or sech, rational, constant
  weight_gain: float = 1.0
  least_weight: float = 0.05
  stiffness_rate: float = 0.1  # of E2, the drift towards equal stress; 0 leaves stiffness at the weights
  stiffness_every: int = 100  # steps
  layout: float = 1.0  # weight of level 0
  border: float = 0.1  # weight of E3, no cracks between groups
  balance: float = 0.0  # weight of E1, equal stress as a loss
  threshold: float = 1e-2  # of a solve
  max_iterations: int = 100
  solver: Solver = "auto"  # or ott, pallas


class Places(NamedTuple):
  """What the term looks at, of f frames. Metres, in any axes that are the same for all of a frame."""

  anchors: Float[Array, "f n 3"]
  means: Float[Array, "f n 3"]
  offsets: Float[Array, "f n 3"]  # means - anchors in the surface's axes
  masses: Float[Array, "f n"]  # opacity times area; no gradient
  neighbours: Int[Array, "n k"]
  spacing: Float[Array, "n"]


class Elastic(NamedTuple):
  """What the term remembers from step to step."""

  stiffness: Float[Array, "g"]
  stress: Float[Array, "g"]  # running mean; 0: not seen yet
  looks: Int[Array, ""]  # steps so far


class TransportResult(NamedTuple):
  """Of one step."""

  value: Float[Array, ""]
  elastic: Elastic  # for the next step
  report: dict[str, Any]  # scalars to log: `unsolved` solves, and the unweighted parts


def new_elastic(weights: Float[Array, "g"]) -> Elastic:
  """Before the first step.

  Args:
    weights: of the groups, `elasticity.hyperbolic_weights`.

  Returns:
    Elastic with that stiffness.
  """
  return Elastic(weights, jnp.zeros_like(weights), jnp.zeros((), jnp.int32))


def transport_term(
  places: Places,
  bodies: Bodies,
  whole: Float[Array, ""],
  elastic: Elastic,
  grouping: Grouping,
  config: TransportConfig,
  cells: Bodies | None = None,
) -> TransportResult:
  """The term of some frames.

  Args:
    places: the Gaussians.
    bodies: their groups.
    whole: size of the head, metres.
    elastic: from the step before.
    grouping: names and mobility of the groups.
    config: settings.
    cells: landmark cells, for level 2.

  Returns:
    TransportResult; the value has no unit. Solves that did not converge add nothing and are counted. Differentiable once.

  Raises:
    ValueError: level 2 without cells, or a level beyond 2.
  """
  if not set(config.levels) <= {0, 1, 2}:
    raise ValueError(f"levels: expected some of 0, 1, 2, got {config.levels}")
  if 2 in config.levels and cells is None:
    raise ValueError("levels: level 2 wants landmark cells, which parsing groups do not have")
  phase = jnp.mod(elastic.looks * _GOLDEN, 1.0)
  stiffness = elastic.stiffness
  parts, unsolved = {}, []
  value = jnp.zeros(())
  if 1 in config.levels:
    clouds = _clouds(places, *sample(bodies, config.atoms, phase), config)
    found = _solved(clouds, [_reach(config, mobility) for mobility in grouping.mobility], config)
    unsolved.append(found)
    cost, solved = _mean_over_frames(found)
    sizes = _MM * bodies.sizes
    parts["parts"] = jnp.sum(stiffness * cost / sizes**2)
    stress = elasticity.stresses(cost, sizes, stiffness)
    value += parts["parts"]
    if config.balance:
      parts["balance"] = elasticity.stress_balance(stress, bodies.border)
      value += config.balance * parts["balance"]
    elastic = _remember(elastic, stress, solved & jnp.any(clouds.masses > 0, axis=(0, 2)), config)
  if 0 in config.levels:
    layout = _layout(places, bodies, config)
    unsolved.append(layout)
    parts["layout"] = jnp.sum(_mean_over_frames(layout)[0]) / (_MM * whole) ** 2
    value += config.layout * parts["layout"]
  if 2 in config.levels:
    parts["cells"], solved = _within_cells(places, bodies, cells, stiffness, phase, config)
    unsolved.append(solved)
    value += parts["cells"]
  if config.border:
    across = jax.vmap(lambda u: elasticity.border_continuity(u, places.neighbours, bodies.groups, stiffness, places.spacing))
    parts["border"] = jnp.mean(across(places.offsets))
    value += config.border * parts["border"]
  missed = sum((jnp.sum(~solve.converged) for solve in unsolved), start=jnp.zeros((), jnp.int32))
  return TransportResult(value, elastic._replace(looks=elastic.looks + 1), {"unsolved": missed, **parts})


# ---- levels ----------------------------------------------------------------------------------------------------------------------


def _reach(config: TransportConfig, mobility: str) -> float | None:
  return {"rigid": None, "semi": config.semi_reach, "mobile": config.mobile_reach}[mobility]


class _Clouds(NamedTuple):
  """Sampled members of groups and their anchors, mm, about the middle of each group's anchors, where float32 is at its best."""

  means: Float[Array, "f g m 3"]
  anchors: Float[Array, "f g m 3"]
  masses: Float[Array, "f g m"]
  start: tuple[Float[Array, "f g m"], Float[Array, "f g m"]]  # of the potentials


def _clouds(places: Places, chosen: Array, there: Array, config: TransportConfig) -> _Clouds:
  anchors = places.anchors[:, chosen]
  middle = lax.stop_gradient(jnp.mean(anchors, axis=2, keepdims=True))
  around = lambda x: _MM * (x - middle)
  means, anchors, masses = around(places.means[:, chosen]), around(anchors), places.masses[:, chosen] * there
  start = jax.vmap(lambda x, y, mass: gaussian_potentials(x, mass, y, mass, blur=config.blur))(means, anchors, masses)
  return _Clouds(means, anchors, masses, start)


def _solved(clouds: _Clouds, reaches: list[float | None], config: TransportConfig) -> Divergence:
  """[f, g], given the reach of each group."""
  frames, count = clouds.masses.shape[:2]
  means, anchors, masses, start = jax.tree.map(lambda x: x.reshape(frames * count, *x.shape[2:]), clouds)
  found = divergence_of_costs(
    square_costs(means, anchors),
    square_costs(means, means),
    square_costs(anchors, anchors),
    masses,
    masses,
    start,
    **_solver(config, reaches * frames),
  )
  return jax.tree.map(lambda x: x.reshape(frames, count), found)


def _solver(config: TransportConfig, reach: Reach) -> dict[str, Any]:
  names = ("blur", "threshold", "max_iterations", "solver")
  return {"reach": reach, **{name: getattr(config, name) for name in names}}


def _layout(places: Places, bodies: Bodies, config: TransportConfig) -> Divergence:
  """Level 0: [f, 1]. Each group is one atom, and a cost between groups is half their squared 2-Wasserstein distance as Gaussians."""
  count = len(bodies.counts)
  members = members_of(bodies.groups, count)
  masses = places.masses[..., None]
  share = sum_over(members, masses)

  def atoms(points: Array) -> tuple[Array, Array]:
    mean = safe.divide(sum_over(members, masses * points), share)
    apart = points - value_of(members, mean)
    outer = apart[..., :, None] * apart[..., None, :]
    spread = safe.divide(sum_over(members, masses * outer.reshape(*outer.shape[:-2], 9)), share)
    return mean, spread.reshape(*spread.shape[:-1], 3, 3) + _THINNEST**2 * jnp.eye(3)

  middle = lax.stop_gradient(jnp.mean(places.anchors, axis=1, keepdims=True))
  # Both layouts as one list of parts: every cost that is needed is between two of them.
  moved, rest = (atoms(_MM * (points - middle)) for points in (places.means, places.anchors))
  means, spreads = (jnp.concatenate(pair, axis=1) for pair in zip(moved, rest, strict=True))
  apart = jnp.sum((means[:, :, None] - means[:, None]) ** 2, axis=-1)
  cost = 0.5 * (apart + spd.bures2(spreads[:, :, None], spreads[:, None]))
  share = lax.stop_gradient(share[..., 0])
  costs = cost[:, :count, count:], cost[:, :count, :count], cost[:, count:, count:]
  found = divergence_of_costs(*costs, share, share, **_solver(config, None))
  return jax.tree.map(lambda x: x[:, None], found)


def _within_cells(places: Places, bodies: Bodies, cells: Bodies | None, stiffness: Array, phase: Array, config: TransportConfig):
  """Level 2: mean over landmark cells, balanced."""
  assert cells is not None
  chosen, there = sample(cells, max(1, config.atoms // 4), phase)
  found = _solved(_clouds(places, chosen, there, config), [None] * len(chosen), config)
  held = stiffness[jnp.clip(bodies.groups[chosen[:, 0]], 0)]
  return jnp.mean(held * _mean_over_frames(found)[0] / (_MM * cells.sizes) ** 2), found


def _mean_over_frames(found: Divergence) -> tuple[Array, Array]:
  """Mean value of the frames in which a solve converged, and whether there was one."""
  good = found.converged.astype(found.value.dtype)
  return safe.divide(jnp.sum(found.value, axis=0), jnp.sum(good, axis=0)), jnp.any(found.converged, axis=0)


def _remember(elastic: Elastic, stress: Array, seen: Array, config: TransportConfig) -> Elastic:
  """The running stress, and every so many steps E2."""
  stress = lax.stop_gradient(stress)
  running = jnp.where(elastic.stress > 0, _FORGET * elastic.stress + (1 - _FORGET) * stress, stress)
  running = jnp.where(seen, running, elastic.stress)
  if not config.stiffness_rate:
    return elastic._replace(stress=running)
  known = running > 0
  due = (elastic.looks + 1) % config.stiffness_every == 0
  moved = elasticity.stiffness_update(elastic.stiffness, running, known, rate=config.stiffness_rate)
  return elastic._replace(stress=running, stiffness=jnp.where(due, moved, elastic.stiffness))
