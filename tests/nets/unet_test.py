"""The U-Net over a UV map with one shared condition, against the same layers written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.nets.unet import conditioned_unet

SIZE, CHANNELS, CONDITION, WIDTH, OUTPUTS = 16, 3, 5, 8, 4


def _network(**changed):
  given = {"size": SIZE, "channels": CHANNELS, "condition": CONDITION, "width": WIDTH, "outputs": OUTPUTS} | changed
  return conditioned_unet(**given)


def _random_params(network, seed=0):
  leaves, tree = jax.tree.flatten(jax.eval_shape(network.init, jax.random.key(0)))
  rng = np.random.default_rng(seed)
  return tree.unflatten(
    [jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(max(1, leaf.size / leaf.shape[-1])), jnp.float32) for leaf in leaves]
  )


def _inputs(seed=1):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(SIZE, SIZE, CHANNELS)).astype(np.float32), rng.normal(size=CONDITION).astype(np.float32)


def _convolved(x, layer):
  kernel = np.asarray(layer["kernel"], np.float64)
  half = kernel.shape[0] // 2
  padded = np.pad(x, ((half, half), (half, half), (0, 0)))
  rows, columns = x.shape[:2]
  taps = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
  return sum(padded[i : i + rows, j : j + columns] @ kernel[i, j] for i, j in taps) + np.asarray(layer["bias"], np.float64)


def _doubled(x, layer):
  """2x2 with stride 2: each texel makes four, none of which another touches."""
  kernel = np.asarray(layer["kernel"], np.float64)
  out = np.zeros((2 * x.shape[0], 2 * x.shape[1], kernel.shape[-1]))
  for i in range(2):
    for j in range(2):
      out[i::2, j::2] = x @ kernel[1 - i, 1 - j]
  return out + np.asarray(layer["bias"], np.float64)


def _by_hand(params, texels, shared):
  relu = lambda x: np.maximum(x, 0)
  twice = lambda x, name: relu(_convolved(relu(_convolved(x, params[f"{name}_0"])), params[f"{name}_1"]))
  steps, x = [], texels.astype(np.float64)
  for level in range(4):
    if level:
      x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))
    x = twice(x, f"down_{level}")
    steps.append(x)
  told = relu(shared @ np.asarray(params["condition"]["kernel"], np.float64) + params["condition"]["bias"]).reshape(
    SIZE // 16, SIZE // 16, -1
  )
  maps = []
  for k in range(4):
    told = relu(_doubled(told, params[f"condition_{k}"]))
    maps.append(told)
  for level in (2, 1, 0):
    x = twice(np.concatenate([x.repeat(2, axis=0).repeat(2, axis=1), steps[level], maps[3 - level]], axis=-1), f"up_{level}")
  return _convolved(x, params["output"])


def test_equals_the_layers_by_hand():
  network = _network()
  params, (texels, shared) = _random_params(network), _inputs()
  found = jax.jit(network.apply)(params, jnp.asarray(texels), jnp.asarray(shared))
  wanted = _by_hand(params, texels, shared)
  assert found.shape == (SIZE, SIZE, OUTPUTS) and np.abs(wanted).max() > 0.1
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_starts_at_zero_and_is_plain_float32_dicts():
  network = _network()
  params = jax.jit(network.init)(jax.random.key(0))
  assert not np.asarray(network.apply(params, *map(jnp.asarray, _inputs()))).any()
  assert type(params) is dict and {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))


# On a CPU "tf32" is float32.
@pytest.mark.parametrize(("precision", "rounding"), [("tf32", 5e-3), ("bfloat16", 5e-2)])
def test_rounded_products_are_near(precision, rounding):
  exact, rounded = _network(), _network(precision=precision)
  params, inputs = _random_params(exact), tuple(map(jnp.asarray, _inputs()))
  wanted, found = (jax.jit(network.apply)(params, *inputs) for network in (exact, rounded))
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, atol=rounding * float(jnp.abs(wanted).max()))


def test_sizes_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="size: expected a multiple of 16 texels, got 24"):
    _network(size=24)
  with pytest.raises(ValueError, match="width: expected a multiple of 8 channels, got 12"):
    _network(width=12)
