"""Anatomical groups of the Gaussians, for the transport term: found at the start, and again when a few training frames are known.

`buffers["transport"]` holds the groups as bodies (`ot.groups.Bodies`), the size of the head, and which Gaussians are held to the mesh;
`buffers["memory"]["transport"]` how stiff each group is. A rig without landmarks has no landmark groups, and no such buffers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.config import ConfigError
from silky_jax.flame.model import landmarks
from silky_jax.flame.regions import PART_OF_REGION, PARTS
from silky_jax.models.protocol import MEMORY
from silky_jax.models.silky.model import SilkyConfig
from silky_jax.ot import groups as grouping
from silky_jax.ot.elasticity import hyperbolic_weights
from silky_jax.ot.groups import Bodies, Grouping
from silky_jax.ot.term import Elastic, TransportConfig, new_elastic
from silky_jax.types import FlameRig, Variables

__all__ = ["anatomy_of", "begin", "grouping_of", "learn"]

_MM = 1e3


def grouping_of(config: TransportConfig) -> Grouping:
  """The table of groups that a config asks for."""
  tables = {"flame": grouping.FLAME, "face-parsing": grouping.PARSING, "one": grouping.ONE}
  if config.landmark_groups not in tables:
    raise ConfigError(f"model.transport.landmark_groups: expected one of {tuple(tables)}, got {config.landmark_groups!r}")
  return tables[config.landmark_groups]


def begin(config: SilkyConfig, rig: FlameRig, points: Float[Array, "n 3"], vertices: Float[Array, "v 3"], buffers: dict[str, Any]):
  """Groups from the rig alone: by its landmarks, or by the labels that its regions are seen as. All are equally stiff as yet.

  Args:
    config: settings of the family.
    rig: the head.
    points: the sites on the neutral head, metres.
    vertices: the neutral head.
    buffers: of the avatar so far.

  Returns:
    `buffers` with what this module adds.
  """
  table = grouping_of(config.transport)
  remembered = {"physics": {"rms": jnp.zeros(len(rig.region_names))}}
  if config.transport.landmark_groups == "flame" and rig.landmarks is None:
    return buffers | {MEMORY: remembered}
  cells = None
  if config.transport.landmark_groups == "flame":
    marks = landmarks(vertices, rig.faces, rig.landmarks)
    member, cells = grouping.landmark_groups(points, buffers["regions"], rig.region_names, marks)
  elif config.transport.landmark_groups == "one":
    member = jnp.zeros(len(points), jnp.int32)
  else:
    nothing = jnp.zeros((len(points), len(PARTS)))
    member = grouping.parsing_groups(nothing, _labels(rig)[buffers["regions"]])
  free = jnp.asarray([name in config.region_offset_limits for name in rig.region_names])[buffers["regions"]]
  return (
    buffers
    | _described(buffers, table, points, member, cells, ~free)
    | {MEMORY: remembered | {"transport": new_elastic(jnp.ones(len(table.names)))._asdict()}}
  )


def learn(
  config: SilkyConfig,
  variables: Variables,
  rig: FlameRig,
  points: Float[Array, "n 3"],
  displacement: Float[Array, "t n 3"],
  votes: Float[Array, "n 19"],
) -> Variables:
  """What training frames tell: which label a Gaussian is seen as, and how far each group moves.

  Args:
    config: settings of the family.
    variables: of the avatar.
    rig: the head.
    points: the sites on the neutral head, metres.
    displacement: of each anchor from `points` with head and neck at rest, metres.
    votes: how often each label was seen at each Gaussian.

  Returns:
    Variables with groups and stiffness renewed; as they are where there are no groups.
  """
  buffers = variables.buffers
  if "transport" not in buffers:
    return variables
  table = grouping_of(config.transport)
  if config.transport.landmark_groups == "face-parsing":
    member = grouping.parsing_groups(votes, _labels(rig)[buffers["regions"]])
    buffers = buffers | _described(buffers, table, points, member, None, buffers["transport"]["held"])
  bodies, _, _ = anatomy_of(buffers)
  mobility = _MM * grouping.mobility_of(displacement, bodies.groups, len(table.names))
  settings = config.transport
  weights = hyperbolic_weights(
    mobility, bodies.counts > 0, family=settings.weight_family, gain=settings.weight_gain, least=settings.least_weight
  )
  memory = buffers[MEMORY] | {"transport": new_elastic(weights)._asdict()}
  return variables.replace(buffers=buffers | {MEMORY: memory})


def anatomy_of(buffers: dict[str, Any]) -> tuple[Bodies, Bodies | None, Elastic]:
  """Groups, landmark cells and stiffness, from an avatar's buffers."""
  held = buffers["transport"]
  cells = Bodies(**held["cells"]) if "cells" in held else None
  return Bodies(**held["bodies"]), cells, Elastic(**buffers[MEMORY]["transport"])


def _described(buffers: dict[str, Any], table: Grouping, points: Array, member: Array, cells: Array | None, held: Array) -> dict[str, Any]:
  alive, neighbours = buffers["alive"], buffers["neighbours"]
  head = grouping.bodies_of(points, jnp.zeros_like(member), neighbours, alive, 1)
  found = {
    "bodies": grouping.bodies_of(points, member, neighbours, alive, len(table.names))._asdict(),
    "whole": head.sizes[0],
    "held": held,
  }
  if cells is not None:
    found["cells"] = grouping.bodies_of(points, cells, neighbours, alive, 68)._asdict()
  return {"transport": found}


def _labels(rig: FlameRig) -> jax.Array:
  return jnp.asarray([PARTS.index(PART_OF_REGION.get(name, "skin")) for name in rig.region_names], jnp.int32)
