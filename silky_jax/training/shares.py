"""Who pulls at the parameters: each term's share of the gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from silky_jax.data.clips import Batch
from silky_jax.models.protocol import Avatar
from silky_jax.training.objective import StepConfig, exact_products, make_objective
from silky_jax.types import PyTree, TrainState

__all__ = ["make_shares"]

Shares = Callable[[TrainState, PyTree, Batch, PyTree], dict[str, Array]]


def make_shares(avatar: Avatar, config: StepConfig) -> Shares:
  """Each term's share of the gradient norm, in one stage. Pure; the caller jits it.

  Equation: |g_i| / sum_j |g_j|, with g_i the gradient of the weighted (and ramped) term over all parameters. These norms add to more
  than the norm of the sum, since terms pull against each other.

  Args:
    avatar: the family.
    config: static settings of the stage.

  Returns:
    shares(state, rig, batch, networks) -> a number per term, sum 1; all 0 where nothing pulls. One forward pass, one backward pass a term.
  """
  objective = make_objective(avatar, config)
  names = [*config.weights, *config.regularizers]

  def shares(state: TrainState, rig: PyTree, batch: Batch, networks: PyTree) -> dict[str, Array]:
    def parts(params: PyTree) -> Array:
      found = objective(params, state, rig, batch, networks).parts
      return jnp.stack([jnp.asarray(found[name], jnp.float32) for name in names])

    with exact_products():
      _, pull = jax.vjp(parts, state.variables.params)
      norms = jax.lax.map(lambda seed: optax.global_norm(pull(seed)[0]), jnp.eye(len(names)))
    total = jnp.sum(norms)
    return dict(zip(names, norms / jnp.where(total > 0, total, 1.0), strict=True))

  return shares
