"""Sums over groups as products with their membership.

`segment_sum`, and the gradient of looking a group's value up for each member, are scatters: on a GPU thousands of members then add to the
same few addresses, in an order that no two runs share. A product is as exact, gives the same bits again, and takes microseconds.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

__all__ = ["members_of", "sum_over", "value_of"]


def members_of(groups: Int[Array, "n"], count: int) -> Float[Array, "n g"]:
  """1 where a point is in a group, else 0. Not differentiable.

  Args:
    groups: of each point; ids below 0, or not below `count`, are in none.
    count: of groups.
  """
  return (groups[:, None] == jnp.arange(count)).astype(jnp.float32)


def sum_over(members: Float[Array, "n g"], values: Float[Array, "*b n c"]) -> Float[Array, "*b g c"]:
  """The sum of each group's values; 0 for a group without members.

  Args:
    members: from `members_of`.
    values: finite.
  """
  return jnp.einsum("ng,...nc->...gc", members, values, precision=lax.Precision.HIGHEST)


def value_of(members: Float[Array, "n g"], values: Float[Array, "*b g c"]) -> Float[Array, "*b n c"]:
  """The value of each point's group; 0 for a point in none.

  Args:
    members: from `members_of`.
    values: finite.
  """
  return jnp.einsum("ng,...gc->...nc", members, values, precision=lax.Precision.HIGHEST)
