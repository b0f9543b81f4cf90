"""The plain-JAX backend of rasterize_tiles, and the definition that judges it."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import rasterize_tiles
from silky_kernels.rasterize import definition
from silky_kernels.rasterize.arg_specs import ARG_SPECS, ArgSpec, random_splats

from tests.kernels.rasterize_suite import ORDER, RasterizeSuite, arguments


class TestReference(RasterizeSuite):
  backend = "xla"


def test_the_definition_equals_a_loop_over_pixels():
  spec = ArgSpec(n=25, width=11, height=9, tile=8, channels=2, ci=True)
  splats = random_splats(spec, seed=6)
  splats["opacities"][:5] = 1.0
  given = arguments(spec, dict(splats), capacity=256)
  image, alpha, depth = definition.rasterize(*(given[name] for name in ORDER), spec.width, spec.height, spec.tile)
  s = {name: value.astype(np.float64) for name, value in splats.items()}
  for row in range(spec.height):
    for column in range(spec.width):
      passed, colour, total, far = 1.0, np.zeros(2), 0.0, 0.0
      for i in np.argsort(s["depths"], kind="stable"):
        x, y = np.array([column + 0.5, row + 0.5]) - s["means2d"][i]
        a, b, c = s["conics"][i]
        opaque = min(0.999, s["opacities"][i] * np.exp(-0.5 * (a * x * x + 2 * b * x * y + c * y * y)))
        if opaque < 1 / 255:
          continue
        if passed * (1 - opaque) <= 1e-4:
          break
        colour += passed * opaque * s["features"][i]
        total += passed * opaque
        far += passed * opaque * s["depths"][i]
        passed *= 1 - opaque
      np.testing.assert_allclose(image[row, column], colour + passed * s["background"], atol=1e-5)
      np.testing.assert_allclose(alpha[row, column], total, atol=1e-5)
      np.testing.assert_allclose(depth[row, column], far, atol=2e-5)


def test_sizes_that_do_not_fit_are_named():
  spec, unchecked = ARG_SPECS["smoke"], inspect.unwrap(rasterize_tiles)  # the tests' own shape checks would refuse first
  given = arguments(spec)
  with pytest.raises(ValueError, match=r"tile_starts: expected \[10\]"):
    unchecked(*(given[name] for name in ORDER), width=24, height=24, tile=8)
  given["background"] = jnp.zeros(2)
  with pytest.raises(ValueError, match="background: expected"):
    unchecked(*(given[name] for name in ORDER), width=32, height=32, tile=8)
