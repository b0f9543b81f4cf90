"""What every backend of rasterize_tiles must satisfy: instantiate `RasterizeSuite` with a backend's name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import bin_tiles, rasterize_tiles
from silky_kernels.rasterize import definition
from silky_kernels.rasterize.arg_specs import ARG_SPECS, random_splats

from tests.checks import TOLERANCES, assert_gradients_close, assert_pictures_close

TRAINED = ("means2d", "conics", "features", "opacities", "depths", "background")
ORDER = ("means2d", "conics", "features", "opacities", "depths", "pairs", "tile_starts", "background")
CI = [name for name, spec in ARG_SPECS.items() if spec.ci]
CAPACITY = 1024  # more than any of these pictures asks for; the definition looks at all of them in every tile

_bin_tiles = jax.jit(bin_tiles, static_argnames=("width", "height", "tile", "capacity"))


def arguments(spec, splats=None, capacity=CAPACITY):
  """Arguments of rasterize_tiles by name, as JAX arrays, bins included."""
  splats = {name: jnp.asarray(value) for name, value in (splats or random_splats(spec)).items()}
  bins = _bin_tiles(
    splats["means2d"], splats.pop("radii"), splats["depths"], width=spec.width, height=spec.height, tile=spec.tile, capacity=capacity
  )
  assert int(bins.overflow) == 0
  return splats | {"pairs": bins.pairs, "tile_starts": bins.tile_starts}


def cotangents(spec):
  rng = np.random.default_rng(20)
  shape = (spec.height, spec.width)
  return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((*shape, spec.channels), shape, shape))


@functools.partial(jax.jit, static_argnums=(0, 1))
def value_and_gradient(rasterize, spec, given, cotangents):
  """Outputs of `rasterize(*arguments, width, height, tile)` and the gradient of sum <cotangent, output>."""

  def loss(trained):
    outputs = rasterize(*((given | trained)[name] for name in ORDER), spec.width, spec.height, spec.tile)
    return sum(jnp.sum(a * b) for a, b in zip(outputs, cotangents, strict=True)), tuple(outputs)

  gradient, outputs = jax.grad(loss, has_aux=True)({name: given[name] for name in TRAINED})
  return outputs, gradient


@functools.cache
def _rasterize_by(backend):
  """One object for each backend, so that the tests share compiled programs."""

  def rasterize(*arrays):
    *arrays, width, height, tile = arrays
    return rasterize_tiles(*arrays, width=width, height=height, tile=tile, backend=backend)

  return rasterize


class RasterizeSuite:
  """Values and gradients against the definition; edges; batches."""

  backend: str

  @property
  def rasterize(self):
    return _rasterize_by(self.backend)

  def assert_as_defined(self, spec, given):
    found, found_gradient = value_and_gradient(self.rasterize, spec, given, cotangents(spec))
    wanted, wanted_gradient = value_and_gradient(definition.rasterize, spec, given, cotangents(spec))
    for name, a, b in zip(("image", "alpha", "depth"), found, wanted, strict=True):
      assert_pictures_close(a, b, TOLERANCES["float32"], name)
    for name in TRAINED:
      assert_gradients_close(found_gradient[name], wanted_gradient[name], TOLERANCES["float32"], f"gradient of {name}")
    return found, found_gradient

  @pytest.mark.parametrize("name", CI)
  def test_as_defined(self, name):
    self.assert_as_defined(ARG_SPECS[name], arguments(ARG_SPECS[name]))

  def test_clamped_alphas(self):
    spec = ARG_SPECS["smoke"]
    splats = random_splats(spec, seed=1)
    splats["opacities"] = np.where(np.arange(spec.n) % 2 == 0, 1.0, 0.9995).astype(np.float32)
    self.assert_as_defined(spec, arguments(spec, splats))

  def test_one_splat_over_every_tile(self):
    spec = ARG_SPECS["smoke"]
    splats = random_splats(spec, seed=2)
    splats["conics"][3] = [1e-4, 2e-5, 3e-4]
    splats["opacities"][3], splats["radii"][3] = 0.7, 400.0
    self.assert_as_defined(spec, arguments(spec, splats))

  def test_unlisted_splats_get_no_gradient_and_filler_is_not_read(self):
    spec = ARG_SPECS["smoke"]
    splats = random_splats(spec, seed=3)
    splats["radii"][::2] = 0
    given = arguments(spec, splats)
    kept = int(given["tile_starts"][-1])
    given["pairs"] = given["pairs"].at[kept:].set(spec.n - 2)
    _, gradient = self.assert_as_defined(spec, given)
    for name in TRAINED[:-1]:
      assert not np.asarray(gradient[name])[::2].any(), name

  def test_no_pairs_is_the_background(self):
    spec = ARG_SPECS["smoke"]
    splats = random_splats(spec)
    splats["radii"][:] = 0
    outputs, gradient = self.assert_as_defined(spec, arguments(spec, splats))
    np.testing.assert_array_equal(outputs[0], np.broadcast_to(splats["background"], outputs[0].shape))
    assert not gradient["means2d"].any()

  def test_a_batch_equals_a_loop(self):
    spec = ARG_SPECS["smoke"]
    items = [arguments(spec, random_splats(spec, seed)) for seed in (4, 5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)
    found = jax.jit(jax.vmap(lambda given: value_and_gradient(self.rasterize, spec, given, cotangents(spec))))(stacked)
    for index, item in enumerate(items):
      wanted = value_and_gradient(self.rasterize, spec, item, cotangents(spec))
      for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-5)

  def test_shared_arguments_in_a_batch_add_up_their_gradients(self):
    spec = ARG_SPECS["smoke"]
    given = arguments(spec)
    backgrounds = jnp.stack([given["background"], 1 - given["background"]])

    def total(features):
      one = lambda background: self.rasterize(
        *((given | {"features": features, "background": background})[name] for name in ORDER), spec.width, spec.height, spec.tile
      )
      return jnp.sum(jax.vmap(one)(backgrounds).image ** 2)

    def looped(features):
      images = [
        self.rasterize(*((given | {"features": features, "background": b})[name] for name in ORDER), spec.width, spec.height, spec.tile)
        for b in backgrounds
      ]
      return sum(jnp.sum(out.image**2) for out in images)

    np.testing.assert_allclose(
      jax.jit(jax.grad(total))(given["features"]), jax.jit(jax.grad(looped))(given["features"]), rtol=1e-5, atol=1e-5
    )

  def test_repeats_are_bit_equal(self):
    spec = ARG_SPECS["smoke"]
    first, second = (value_and_gradient(self.rasterize, spec, arguments(spec), cotangents(spec)) for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
      np.testing.assert_array_equal(a, b)
