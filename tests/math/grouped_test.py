"""Sums over groups: against segment_sum and a plain lookup, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.math.grouped import members_of, sum_over, value_of

COUNT = 5
GROUPS = jnp.asarray(np.random.default_rng(0).integers(-1, COUNT + 1, 400))  # some in none, on either side
VALUES = jnp.asarray(np.random.default_rng(1).normal(size=(2, 400, 3)), jnp.float32)


def test_sums_are_those_of_a_loop_and_ignore_points_in_no_group():
  groups, values = np.asarray(GROUPS), np.asarray(VALUES, np.float64)
  expected = np.stack([[values[b, groups == g].sum(axis=0) for g in range(COUNT)] for b in range(2)])
  np.testing.assert_allclose(sum_over(members_of(GROUPS, COUNT), VALUES), expected, atol=1e-5)


def test_an_empty_group_sums_to_zero():
  groups = jnp.where(GROUPS == 2, 3, GROUPS)
  assert not np.any(sum_over(members_of(groups, COUNT), VALUES)[:, 2])


def test_values_are_looked_up_exactly_and_are_zero_in_no_group():
  table = jnp.asarray(np.random.default_rng(2).normal(size=(2, COUNT, 3)), jnp.float32)
  inside = (GROUPS >= 0) & (GROUPS < COUNT)
  expected = jnp.where(inside[:, None], table[:, jnp.clip(GROUPS, 0, COUNT - 1)], 0)
  np.testing.assert_array_equal(value_of(members_of(GROUPS, COUNT), table), expected)


def test_gradients_are_those_of_segment_sum_and_lookup():
  slot = jnp.where((GROUPS < 0) | (GROUPS >= COUNT), COUNT, GROUPS)
  members = members_of(GROUPS, COUNT)

  def ours(x):
    means = sum_over(members, x)
    return jnp.sum(jnp.sin(x - value_of(members, means)))

  def theirs(x):
    means = jax.vmap(lambda v: jax.ops.segment_sum(v, slot, COUNT + 1))(x).at[:, COUNT].set(0)
    return jnp.sum(jnp.sin(x - means[:, slot]))

  np.testing.assert_allclose(jax.grad(ours)(VALUES), jax.grad(theirs)(VALUES), atol=2e-4)
