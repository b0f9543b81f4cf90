"""Learning rates by parameter path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from silky_jax.config import ConfigError
from silky_jax.training.optimizer import OptimizerConfig, make_optimizer, parameter_group


def _first_updates(config, params, steps=10, count=1):
  optimizer = make_optimizer(config, steps=steps)
  state = optimizer.init(params)
  for _ in range(count):
    updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
  return updates


def test_longest_prefix_counts():
  groups = ("gaussians", "gaussians/color", "residual")
  assert parameter_group("gaussians/color", groups) == "gaussians/color"
  assert parameter_group("gaussians/colors", groups) == "gaussians"
  assert parameter_group("residual/point/kernel", groups) == "residual"


def test_rates_reach_their_groups_and_decay():
  params = {"a": {"x": jnp.zeros(3), "y": jnp.zeros(2)}, "b": jnp.zeros(1)}
  config = OptimizerConfig(rates={"a": (1e-1, 1e-3), "a/y": (1e-2, 1e-2), "b": (1.0, 1.0)})
  first = _first_updates(config, params)
  np.testing.assert_allclose([first["a"]["x"][0], first["a"]["y"][0], first["b"][0]], [-0.1, -0.01, -1.0], rtol=1e-5)
  later = _first_updates(config, params, count=11)
  np.testing.assert_allclose([later["a"]["x"][0], later["a"]["y"][0]], [-1e-3, -0.01], rtol=1e-4)


def test_tiny_gradients_still_move():
  optimizer = make_optimizer(OptimizerConfig(rates={"a": (0.1, 0.1)}), steps=10)
  params = {"a": jnp.zeros(1)}
  updates, _ = optimizer.update({"a": jnp.full(1, 1e-9)}, optimizer.init(params), params)
  np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-4)


def test_warmup():
  config = OptimizerConfig(rates={"a": (1.0, 1.0)}, warmup=4)
  sizes = [float(-_first_updates(config, {"a": jnp.zeros(1)}, count=n)["a"][0]) for n in (1, 2, 4, 6)]
  np.testing.assert_allclose(sizes, [0.25, 0.5, 1.0, 1.0], rtol=1e-4)


def test_a_parameter_without_a_rate_is_refused():
  optimizer = make_optimizer(OptimizerConfig(rates={"gaussians/opacity": (1.0, 1.0)}), steps=1)
  with pytest.raises(ConfigError, match=r"'gaussians/opacit'; did you mean 'gaussians/opacity'"):
    optimizer.init({"gaussians": {"opacit": jnp.zeros(1)}})
  with pytest.raises(ConfigError, match=r"rates\.a: expected two positive"):
    make_optimizer(OptimizerConfig(rates={"a": (1.0, 0.0)}), steps=1)


def test_state_has_strong_types():
  optimizer = make_optimizer(OptimizerConfig(rates={"a": (1.0, 1.0)}), steps=1)
  params = {"a": jnp.zeros(1)}
  state = optimizer.init(params)
  updates, new = optimizer.update(params, state, params)
  optax.apply_updates(params, updates)
  assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, new)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, new)))
