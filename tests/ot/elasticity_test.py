"""Weights and the balance of groups."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.ot import elasticity as e

MOBILITY = jnp.asarray([0.0, 0.5, 1.0, 2.0, 8.0])  # mm; the median is 1


@pytest.mark.parametrize(
  ("family", "at_median"), [("tanh", 1 - np.tanh(1)), ("sech", 1 / np.cosh(1)), ("rational", 0.5), ("constant", 1.0)]
)
def test_rigid_groups_are_held_and_mobile_ones_freed(family, at_median):
  weights = np.asarray(e.hyperbolic_weights(MOBILITY, family=family))
  np.testing.assert_allclose(weights[0], 1.0, rtol=1e-6)
  np.testing.assert_allclose(weights[2], 0.05 + 0.95 * at_median, rtol=1e-6)
  assert (np.diff(weights) <= 0).all() and (weights >= 0.05).all()
  np.testing.assert_allclose(e.hyperbolic_weights(jnp.zeros(3), family=family), 1.0)
  with pytest.raises(ValueError, match="family: expected one of"):
    inspect.unwrap(e.hyperbolic_weights)(MOBILITY, family="cosh")


def test_groups_without_members_do_not_shift_the_median():
  present = jnp.asarray([False, False, True, True, True])
  weights = e.hyperbolic_weights(MOBILITY, present)
  np.testing.assert_allclose(weights[3], 0.05 + 0.95 * (1 - np.tanh(1)), rtol=1e-6)


def test_stiffness_moves_until_all_stresses_are_equal():
  costs, sizes = jnp.asarray([0.1, 0.2, 0.4]), jnp.full(3, 50.0)
  stiffness = jnp.ones(3)
  known = jnp.ones(3, bool)
  update = jax.jit(lambda k: e.stiffness_update(k, e.stresses(costs, sizes, k), known))
  for _ in range(200):
    stiffness = update(stiffness)
  stress = e.stresses(costs, sizes, stiffness)
  np.testing.assert_allclose(stress, jnp.mean(stress), rtol=1e-3)
  np.testing.assert_allclose(jnp.mean(stiffness), 1.0, rtol=1e-6)
  border = jnp.ones((3, 3)) - jnp.eye(3)
  assert e.stress_balance(stress, border) < 1e-6 * e.stress_balance(e.stresses(costs, sizes, jnp.ones(3)), border) + 1e-12
  wild = e.stiffness_update(jnp.ones(3), jnp.asarray([0.0, 1.0, 1e6]), known)
  assert np.isfinite(wild).all() and (wild > 0).all()


def test_what_was_not_solved_keeps_its_stiffness_and_counts_in_no_mean():
  stiffness, stress = jnp.asarray([0.5, 1.5, 9.0]), jnp.asarray([2.0, 1.0, 0.0])
  known = jnp.asarray([True, True, False])
  moved = e.stiffness_update(stiffness, stress, known)
  assert moved[2] == 9.0
  np.testing.assert_allclose(moved[:2], e.stiffness_update(stiffness[:2], stress[:2], known[:2]), rtol=1e-6)
  np.testing.assert_array_equal(e.stiffness_update(stiffness, stress, jnp.zeros(3, bool)), stiffness)


def test_stress_at_no_strain_has_a_finite_gradient():
  slope = jax.grad(lambda c: e.stresses(c, jnp.full(2, 50.0), jnp.ones(2)).sum())(jnp.zeros(2))
  assert np.isfinite(slope).all()


def test_a_crack_costs_and_a_common_motion_does_not():
  """A row of six points 2 mm apart, two groups of three, each point with both its neighbours; the ends name themselves."""
  neighbours = jnp.asarray([[0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 5]])
  groups, spacing, stiffness = jnp.asarray([0, 0, 0, 1, 1, 1]), jnp.full(6, 2.0), jnp.asarray([1.0, 3.0])
  cost = lambda u: float(e.border_continuity(u, neighbours, groups, stiffness, spacing))
  assert cost(jnp.ones((6, 3))) == 0
  torn = jnp.zeros((6, 3)).at[3:, 0].set(1.0)
  np.testing.assert_allclose(cost(torn), 2 * 1 * 3 / 4 * 1 / 4, rtol=1e-6)
  inside = jnp.zeros((6, 3)).at[0, 0].set(1.0)  # within a group, away from the border
  assert cost(inside) == 0
  assert e.border_continuity(torn, neighbours, jnp.zeros(6, jnp.int32), stiffness, spacing) == 0
  nowhere = jnp.asarray([0, 0, -1, -1, 1, 1])
  assert e.border_continuity(torn, neighbours, nowhere, stiffness, spacing) == 0
