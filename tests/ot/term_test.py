"""The transport term on a small head of four groups: what costs nothing, what each part hears, memory, empty groups, failed solves."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.ot import groups as g
from silky_jax.ot.sinkhorn import sinkhorn_divergence
from silky_jax.ot.term import Elastic, Places, TransportConfig, new_elastic, transport_term

# A rigid, a semi-rigid and a mobile group of 24 points each; one without members; one of a single point; one without mass.
TABLE = g.Grouping(("skull", "cheek", "lip", "absent", "one", "clear"), ("rigid", "semi", "mobile", "semi", "mobile", "rigid"))
COUNT = 3 * 24 + 1 + 6
# Compiling is most of these tests: one program serves all but two of them.
CONFIG = TransportConfig(atoms=24, layout=0.5, border=0.1, balance=0.3, stiffness_every=3)
FAILING = dataclasses.replace(CONFIG, threshold=1e-7, max_iterations=2, stiffness_rate=0.0)
STIFFNESS = jnp.asarray([1.0, 0.5, 0.25, 1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def rest():
  """Points in metres, their groups and masses; groups lie 40 mm apart."""
  rng = np.random.default_rng(0)
  member = np.repeat([0, 1, 2, 4, 5], [24, 24, 24, 1, 6])
  points = rng.normal(size=(COUNT, 3)) * 0.008 + member[:, None] * [0.04, 0, 0]
  return jnp.asarray(points, jnp.float32), jnp.asarray(member), jnp.asarray(np.where(member == 5, 0.0, 1.0), jnp.float32)


def _places(rest, means, torn=1.0):
  """`torn` 0: whatever moved, no crack is felt."""
  points, _, masses = rest
  neighbours = jnp.roll(jnp.arange(COUNT), 1)[:, None]
  return Places(points[None], means[None], torn * (means - points)[None], masses[None], neighbours, jnp.full(COUNT, 0.004))


@functools.cache
def _program(config):
  def total(means, rest, elastic, bodies, torn):
    found = transport_term(_places(rest, means, torn), bodies, jnp.asarray(0.2), elastic, TABLE, config)
    return found.value, found

  return jax.jit(jax.value_and_grad(total, has_aux=True))


def _run(rest, means, config=CONFIG, elastic=None, torn=0.0):
  bodies = g.bodies_of(rest[0], rest[1], jnp.roll(jnp.arange(COUNT), 1)[:, None], jnp.ones(COUNT, bool), len(TABLE.names))
  (_, found), gradient = _program(config)(means, rest, new_elastic(STIFFNESS) if elastic is None else elastic, bodies, torn)
  return found, gradient, bodies


def test_gaussians_on_their_anchors_cost_nothing_and_pull_nowhere(rest):
  found, gradient, _ = _run(rest, rest[0])
  assert abs(found.value) < 1e-6 and found.report["unsolved"] == 0
  assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e-3


def test_a_drifting_group_costs_by_its_stiffness_its_size_and_its_reach(rest):
  """2 mm of drift of one group: k S / D^2 of that group by a lone solve, plus the layout's share."""
  points, member, masses = rest
  costs = []
  for group, reach in ((0, None), (1, 30.0), (2, 10.0)):
    moved = points + jnp.where(member == group, 0.002, 0.0)[:, None] * jnp.asarray([0.0, 1.0, 0.0])
    found, gradient, bodies = _run(rest, moved)
    inside = member == group
    alone = sinkhorn_divergence(
      1e3 * moved[inside][None], masses[inside][None], 1e3 * points[inside][None], masses[inside][None], reach=reach, threshold=1e-4
    )
    np.testing.assert_allclose(found.report["parts"], STIFFNESS[group] * alone.value[0] / (1e3 * bodies.sizes[group]) ** 2, rtol=2e-2)
    assert found.report["layout"] > 0
    np.testing.assert_allclose(gradient[inside].sum(axis=0)[1] > 0, True)
    assert np.abs(gradient[inside]).max() > 5 * np.abs(gradient[member == (group + 1) % 3]).max()
    costs.append(float(alone.value[0]))
  assert costs[0] > costs[1] > costs[2]


def test_points_may_slide_inside_their_group(rest):
  """A permutation of a group's points is the same mass; pointwise they moved by millimetres."""
  points, member, _ = rest
  order = np.arange(COUNT)
  order[:24] = np.roll(order[:24], 5)
  slid, _, _ = _run(rest, points[order])
  drifted, _, _ = _run(rest, points + jnp.where(member == 0, 0.002, 0.0)[:, None] * jnp.asarray([1.0, 0.0, 0.0]))
  assert float(jnp.abs(points[order] - points).max()) > 0.01
  assert slid.report["parts"] < 0.05 * drifted.report["parts"]


def test_the_layout_hears_a_group_that_swells(rest):
  points, member, _ = rest
  middle = points[:24].mean(axis=0)
  swollen = jnp.where((member == 0)[:, None], middle + 1.5 * (points - middle), points)
  found, _, _ = _run(rest, swollen)
  assert found.report["layout"] > 1e-4


def test_empty_massless_and_single_groups_are_finite(rest):
  points, member, _ = rest
  moved = points.at[72].add(jnp.asarray([0.003, 0.0, 0.0])) + jnp.where(member == 5, 0.01, 0.0)[:, None]
  found, gradient, _ = _run(rest, moved)
  assert np.isfinite(found.value) and np.isfinite(gradient).all() and found.report["unsolved"] == 0
  assert gradient[72, 0] > 0 and not np.asarray(gradient[73:]).any()  # the one point is pulled back; without mass nothing is
  assert found.elastic.stress[3] == 0  # no members: nothing known of its stress


def test_solves_that_fail_add_nothing_and_are_counted(rest):
  moved = rest[0] + 0.01 * jax.random.normal(jax.random.key(1), rest[0].shape)
  found, gradient, _ = _run(rest, moved, FAILING)
  assert found.report["unsolved"] >= 4 and np.isfinite(found.value) and np.isfinite(gradient).all()
  solved, _, _ = _run(rest, moved)
  assert found.report["parts"] < 0.5 * solved.report["parts"]
  assert not np.asarray(found.elastic.stress[:3]).any()
  due = Elastic(STIFFNESS, solved.elastic.stress, jnp.asarray(2))
  np.testing.assert_array_equal(_run(rest, moved, FAILING, due)[0].elastic.stiffness, STIFFNESS)  # a rate of 0 leaves it for good


def test_memory_counts_steps_averages_stress_and_moves_stiffness_when_due(rest):
  moved = rest[0] + 0.002 * jax.random.normal(jax.random.key(1), rest[0].shape)
  first, _, _ = _run(rest, moved)
  assert first.elastic.looks == 1 and (first.elastic.stress[:3] > 0).all()
  np.testing.assert_array_equal(first.elastic.stiffness, STIFFNESS)
  kept = first.elastic._replace(stress=2 * first.elastic.stress)
  second, _, _ = _run(rest, moved, elastic=kept)
  between = (second.elastic.stress[:3] / first.elastic.stress[:3]).tolist()
  assert all(1.9 < share < 2.0 for share in between)  # mostly what it remembered
  third, _, _ = _run(rest, moved, elastic=second.elastic)
  assert not np.allclose(third.elastic.stiffness, STIFFNESS)
  known = np.asarray([0, 1, 2, 4])
  np.testing.assert_allclose(np.asarray(third.elastic.stiffness)[known].mean(), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(third.elastic.stiffness[jnp.asarray([3, 5])], STIFFNESS[jnp.asarray([3, 5])])  # without members, or mass


def test_cracks_and_unequal_stress_cost_where_asked(rest):
  points, member, _ = rest
  moved = points + jnp.where(member == 0, 0.002, 0.0)[:, None]
  found, _, bodies = _run(rest, moved, torn=1.0)
  parts = found.report
  wanted = parts["parts"] + 0.5 * parts["layout"] + 0.1 * parts["border"] + 0.3 * parts["balance"]
  np.testing.assert_allclose(found.value, wanted, rtol=1e-5)
  assert parts["border"] > 0 and parts["balance"] > 0
  alike, _, _ = _run(rest, points + jnp.asarray([0.0, 0.002, 0.0]), torn=1.0)
  assert alike.report["border"] < 1e-6 * parts["border"]
  assert bodies.border[0, 1] > 0


def test_level_two_wants_cells(rest):
  bodies = g.bodies_of(rest[0], rest[1], jnp.arange(COUNT)[:, None], jnp.ones(COUNT, bool), len(TABLE.names))
  plain = inspect.unwrap(transport_term)
  arguments = (_places(rest, rest[0]), bodies, jnp.asarray(0.2), new_elastic(STIFFNESS), TABLE)
  with pytest.raises(ValueError, match="level 2 wants landmark cells"):
    plain(*arguments, dataclasses.replace(CONFIG, levels=(2,)))
  with pytest.raises(ValueError, match="levels: expected some of 0, 1, 2, got"):
    plain(*arguments, dataclasses.replace(CONFIG, levels=(0, 3)))
  cells = g.bodies_of(rest[0], jnp.where(rest[1] < 2, rest[1], -1), jnp.arange(COUNT)[:, None], jnp.ones(COUNT, bool), 2)
  shifted = rest[0] + jnp.asarray([0.0, 0.002, 0.0])
  run = jax.jit(lambda means: transport_term(_places(rest, means), *arguments[1:], dataclasses.replace(CONFIG, levels=(2,)), cells))
  found = run(shifted)
  wanted = np.mean([STIFFNESS[k] * 2.0 / (1e3 * cells.sizes[k]) ** 2 for k in (0, 1)])
  np.testing.assert_allclose(found.value, wanted, rtol=2e-2)  # half the square of 2 mm, balanced
