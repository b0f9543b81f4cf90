"""The network over points with one shared condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.nets import mlp


def test_encoding_by_hand():
  encoded = mlp.encode_positions(jnp.array([[0.1, -0.2, 0.3]]), frequencies=2, scale=2.0)
  x = np.array([0.2, -0.4, 0.6])
  expected = np.concatenate([x, np.sin(x), np.sin(2 * x), np.cos(x), np.cos(2 * x)])
  np.testing.assert_allclose(encoded[0], expected, rtol=1e-6)
  assert encoded.shape[-1] == mlp.encoded_size(2)
  assert mlp.encode_positions(jnp.ones((4, 3)), frequencies=8).shape[-1] == mlp.encoded_size(8) == 51
  assert mlp.encode_positions(jnp.ones((4, 3)), frequencies=0).shape == (4, mlp.encoded_size(0))


def _network(depth=3, **settings):
  return mlp.conditioned_mlp(points=5, condition=7, width=16, depth=depth, outputs=4, **settings)


def test_starts_at_zero():
  network = _network()
  params = network.init(jax.random.key(0))
  out = network.apply(params, jnp.ones((6, 5)), jnp.ones(7))
  assert out.shape == (6, 4)
  assert not np.asarray(out).any()


def test_equals_an_mlp_of_the_concatenation():
  network = _network()
  leaves, tree = jax.tree.flatten(network.init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  params = tree.unflatten([jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])
  points, shared = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=7).astype(np.float32)
  x = np.concatenate([points, np.broadcast_to(shared, (6, 7))], axis=1)
  x = x @ np.concatenate([params["point"]["kernel"], params["condition"]["kernel"]]) + params["condition"]["bias"]
  for name in ("hidden_1", "hidden_2", "output"):
    x = np.maximum(x, 0) @ params[name]["kernel"] + params[name]["bias"]
  np.testing.assert_allclose(network.apply(params, jnp.asarray(points), jnp.asarray(shared)), x, rtol=2e-4, atol=2e-4)


def test_params_are_plain_float32_dicts():
  params = _network().init(jax.random.key(1))
  assert type(params) is dict and type(params["output"]) is dict
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))


def test_one_hidden_layer_and_none():
  assert set(_network(depth=1).init(jax.random.key(0))) == {"point", "condition", "output"}
  with pytest.raises(ValueError, match="at least one hidden layer, got 0"):
    _network(depth=0)


# Relative to the largest output: 2^-24, 2^-11 and 2^-8 per factor, through three products. On a CPU "tf32" is float32.
@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-5), ("tf32", 5e-3), ("bfloat16", 3e-2)])
def test_precision_rounds_as_it_says(precision, rounding):
  network, plain = _network(precision=precision), _network()
  leaves, tree = jax.tree.flatten(plain.init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  params = tree.unflatten([jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])
  assert jax.tree.map(jnp.shape, network.init(jax.random.key(0))) == jax.tree.map(jnp.shape, params)
  points, shared, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((60, 5), (7,), (60, 4)))

  def both(network):
    total = lambda params, points: jnp.sum(weight * network.apply(params, points, shared))
    return network.apply(params, points, shared), jax.grad(total, argnums=(0, 1))(params, points)

  with jax.default_matmul_precision("highest"):  # says nothing to a network that has its own
    found, expected = jax.tree.leaves(jax.jit(lambda: both(network))()), jax.tree.leaves(both(plain))
  assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}
  for k, (ours, exact) in enumerate(zip(found, expected, strict=True)):
    difference = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
    assert difference < rounding * (5 if k else 1), (k, difference)  # in a gradient, units that rounding turns on or off
    assert precision != "bfloat16" or k or difference > 1e-4  # it did round
  many = jax.vmap(network.apply, in_axes=(None, None, 0))(params, points, jnp.stack([shared, 2 * shared]))
  np.testing.assert_allclose(many[0], found[0], rtol=1e-5, atol=1e-4)


def test_the_products_of_a_precision_are_asked_for():
  def asked(precision):
    network = _network(precision=precision)
    params = jax.eval_shape(network.init, jax.random.key(0))
    with jax.default_matmul_precision("highest"):
      return str(jax.make_jaxpr(network.apply)(params, jnp.ones((6, 5)), jnp.ones(7)))

  assert asked("float32").count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 5
  assert asked("tf32").count("precision=(Precision.DEFAULT, Precision.DEFAULT)") == 4  # all but the condition's
  assert asked("bfloat16").count("bf16[6,16]") >= 3
