"""Which part of the anatomy a Gaussian belongs to: landmark groups, or groups of a parsing map; and what a group is as a body.

A table of names says which groups there are and how far each may be deformed. Membership is data: an integer per Gaussian.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from silky_jax.flame.regions import PARTS
from silky_jax.math import safe

__all__ = [
  "FLAME", "ONE", "PARSING", "Bodies", "Grouping", "Mobility", "bodies_of", "landmark_groups", "mobility_of", "parsing_groups", "sample",
]  # fmt: skip

Mobility = Literal["rigid", "semi", "mobile"]
_LIPS = ("upper_lip", "lower_lip")
_PROBES = 128  # members that a diameter is measured on


class _Group(NamedTuple):
  name: str
  mobility: Mobility
  landmarks: tuple[int, ...] = ()  # of the 68 iBUG points
  regions: tuple[str, ...] = ()  # of the rig
  whole: bool = False  # whether those regions belong to the group wherever the landmarks are


def _span(first: int, last: int) -> tuple[int, ...]:
  return tuple(range(first, last + 1))


# The spec's table (5.1), but for the lips: upper and lower, not outer and inner, since they must be free to part.
_FLAME_GROUPS = (
  _Group("jaw_contour", "semi", _span(0, 16)),
  _Group("right_brow", "mobile", _span(17, 21), ("right_brow",)),
  _Group("left_brow", "mobile", _span(22, 26), ("left_brow",)),
  _Group("nose_bridge", "rigid", _span(27, 30)),
  _Group("nose_base", "semi", _span(31, 35), ("nose",)),
  _Group("right_eye", "mobile", _span(36, 41)),
  _Group("left_eye", "mobile", _span(42, 47)),
  _Group("upper_lip", "mobile", (*_span(48, 54), *_span(60, 64)), ("upper_lip",), whole=True),
  _Group("lower_lip", "mobile", (*_span(55, 59), *_span(65, 67)), ("lower_lip",), whole=True),
  _Group("mouth_interior", "mobile", (), ("mouth_interior", "upper_teeth", "lower_teeth", "tongue"), whole=True),
  _Group("left_eyeball", "rigid", (), ("left_eyeball",), whole=True),
  _Group("right_eyeball", "rigid", (), ("right_eyeball",), whole=True),
  _Group("forehead", "rigid", (), ("forehead",)),
  _Group("scalp", "rigid", (), ("scalp",)),
  _Group("left_ear", "rigid", (), ("left_ear",)),
  _Group("right_ear", "rigid", (), ("right_ear",)),
  _Group("neck", "rigid", (), ("neck",)),
  _Group("cheeks", "semi"),  # and whatever no other group takes
)

# Groups of parsing labels, and what each label counts as. Cloth and background say nothing of a head.
_PARSING_GROUPS = (
  (_Group("lips", "mobile"), ("upper_lip", "lower_lip")),
  (_Group("mouth_interior", "mobile"), ("mouth_interior",)),
  (_Group("eyes", "mobile"), ("left_eye", "right_eye")),
  (_Group("brows", "mobile"), ("left_brow", "right_brow")),
  (_Group("nose", "semi"), ("nose",)),
  (_Group("skin", "semi"), ("skin",)),
  (_Group("ears", "rigid"), ("left_ear", "right_ear", "earring")),
  (_Group("neck", "rigid"), ("neck", "necklace")),
  (_Group("hair", "rigid"), ("hair", "hat")),
  (_Group("glasses", "rigid"), ("glasses",)),
)


class Grouping(NamedTuple):
  """A table of groups."""

  names: tuple[str, ...]
  mobility: tuple[Mobility, ...]  # how far each may be deformed


FLAME = Grouping(tuple(g.name for g in _FLAME_GROUPS), tuple(g.mobility for g in _FLAME_GROUPS))
PARSING = Grouping(tuple(g.name for g, _ in _PARSING_GROUPS), tuple(g.mobility for g, _ in _PARSING_GROUPS))
ONE = Grouping(("head",), ("semi",))  # no anatomy: what an ablation compares with


def landmark_groups(
  points: Float[Array, "n 3"],
  regions: Int[Array, "n"],
  region_names: tuple[str, ...],
  landmarks: Float[Array, "68 3"],
  *,
  radius: float = 0.015,
) -> tuple[Int[Array, "n"], Int[Array, "n"]]:
  """Groups of `FLAME`: what lies near a landmark belongs to its group, the rest to that of its region.

  Lips, eyeballs and what is inside the mouth go by their region alone: they touch, and near is not the same.

  Args:
    points: on the neutral head, metres.
    regions: of each point, into `region_names`.
    region_names: of the rig.
    landmarks: the 68 iBUG points of the same head.
    radius: metres.

  Returns:
    groups: into `FLAME.names`.
    cells: the landmark a point is nearest to, within `radius` and of its own group; -1 elsewhere.
  """
  names = list(FLAME.names)
  by_landmark = jnp.asarray([next(k for k, g in enumerate(_FLAME_GROUPS) if i in g.landmarks) for i in range(68)], jnp.int32)
  by_region = [next((k for k, g in enumerate(_FLAME_GROUPS) if name in g.regions), names.index("cheeks")) for name in region_names]
  own = jnp.asarray(by_region, jnp.int32)[regions]
  fixed = jnp.asarray([g.whole for g in _FLAME_GROUPS])[own]
  distance = jnp.sum((points[:, None] - landmarks[None]) ** 2, axis=-1)
  distance = jnp.where(fixed[:, None] & (by_landmark[None] != own[:, None]), jnp.inf, distance)
  nearest = jnp.argmin(distance, axis=1).astype(jnp.int32)
  near = jnp.min(distance, axis=1) <= radius**2
  return jnp.where(near & ~fixed, by_landmark[nearest], own), jnp.where(near, nearest, -1)


def parsing_groups(votes: Float[Array, "n 19"], fallback: Int[Array, "n"]) -> Int[Array, "n"]:
  """Groups of `PARSING`: that of the label which most frames show where a point is seen.

  Args:
    votes: how often each label of `flame.regions.PARTS` was seen at each point; background and cloth are not counted.
    fallback: a label for points that were never seen.

  Returns:
    Into `PARSING.names`. A group whose labels no frame shows has no members, and adds nothing to any term.
  """
  table = [next((k for k, (_, labels) in enumerate(_PARSING_GROUPS) if part in labels), -1) for part in PARTS]
  group_of = jnp.asarray(table, jnp.int32)
  counted = jnp.where(group_of >= 0, votes, 0)
  member = jax.nn.one_hot(group_of, len(PARSING.names), dtype=votes.dtype)  # a row of zeros for -1
  totals = counted @ member
  skin = PARSING.names.index("skin")
  known = jnp.where(group_of[fallback] >= 0, group_of[fallback], skin)
  return jnp.where(jnp.sum(totals, axis=1) > 0, jnp.argmax(totals, axis=1).astype(jnp.int32), known)


# ---- groups as bodies ------------------------------------------------------------------------------------------------------------


class Bodies(NamedTuple):
  """Groups as the transport term wants them. A group without members has size 1 and no border."""

  groups: Int[Array, "n"]  # -1: in none
  order: Int[Array, "n"]  # points sorted by group, those in none last
  starts: Int[Array, "g"]  # of each group in `order`
  counts: Int[Array, "g"]
  sizes: Float[Array, "g"]  # metres, 95 % diameter
  border: Float[Array, "g g"]  # share of the border between two groups in all borders; sum 2 (or 0), diagonal 0


def bodies_of(points: Float[Array, "n 3"], groups: Int[Array, "n"], neighbours: Int[Array, "n k"], alive: Bool[Array, "n"], count: int):
  """What a grouping is as bodies.

  Args:
    points: at rest, metres.
    groups: of each, below `count`; -1 for none.
    neighbours: on the surface; a point that names itself has none there.
    alive: dead points belong to no group.
    count: of groups.

  Returns:
    Bodies.
  """
  groups = jnp.where(alive, groups, -1).astype(jnp.int32)
  key = jnp.where(groups < 0, count, groups)
  order = jnp.argsort(key, stable=True).astype(jnp.int32)
  counts = jnp.zeros(count + 1, jnp.int32).at[key].add(1)[:count]
  starts = (jnp.cumsum(counts) - counts).astype(jnp.int32)
  other = groups[neighbours]
  across = (groups[:, None] != other) & (groups[:, None] >= 0) & (other >= 0)
  pairs = jnp.zeros((count + 1, count + 1)).at[key[:, None], key[neighbours]].add(across)[:count, :count]
  pairs = pairs + pairs.T
  bodies = Bodies(groups, order, starts, counts, jnp.ones(count), safe.divide(2 * pairs, jnp.sum(pairs)))
  chosen, there = sample(bodies, _PROBES, jnp.zeros(()))
  return bodies._replace(sizes=_diameters(points[chosen], there))


def _diameters(points: Float[Array, "g m 3"], there: Bool[Array, "g m"]) -> Float[Array, "g"]:
  """95 % of the distances in each group are shorter; 1 where there is none."""
  distance = jnp.sqrt(jnp.sum((points[:, :, None] - points[:, None]) ** 2, axis=-1))
  pairs = there[:, :, None] & there[:, None] & ~jnp.eye(points.shape[1], dtype=bool)
  sizes = jnp.nanpercentile(jnp.where(pairs, distance, jnp.nan).reshape(len(points), -1), 95, axis=1)
  return jnp.where(jnp.isfinite(sizes) & (sizes > 0), sizes, 1.0)


def sample(bodies: Bodies, atoms: int, phase: Float[Array, ""]) -> tuple[Int[Array, "g m"], Bool[Array, "g m"]]:
  """Members of each group, evenly strided through it, so that they cover it; other ones at another phase.

  Args:
    bodies: from `bodies_of`.
    atoms: per group.
    phase: 0 to 1.

  Returns:
    chosen: indices of points.
    there: False for padding: a group with fewer members than atoms has each of them once.
  """
  count = bodies.counts[:, None]
  slots = jnp.arange(atoms, dtype=jnp.int32)[None]
  stride = jnp.maximum(count / atoms, 1.0)
  place = jnp.floor((slots + phase) * stride).astype(jnp.int32)
  there = slots < count
  at = bodies.starts[:, None] + jnp.clip(place, 0, jnp.maximum(count - 1, 0))
  return bodies.order[jnp.clip(at, 0, len(bodies.order) - 1)], there


def mobility_of(displacement: Float[Array, "t n 3"], groups: Int[Array, "n"], count: int) -> Float[Array, "g"]:
  """How much the surface under each group moves: root mean square displacement from neutral over frames and members.

  Args:
    displacement: of each anchor from its place on the neutral head, head and neck at rest; any unit.
    groups: of each; -1 for none.
    count: of groups.

  Returns:
    In the same unit; 0 for a group without members.
  """
  squares = jnp.mean(jnp.sum(displacement**2, axis=-1), axis=0)
  member = (groups[:, None] == jnp.arange(count)[None]).astype(squares.dtype)
  return safe.sqrt(safe.divide(squares @ member, jnp.sum(member, axis=0)))
