"""splat: every backend and every instruction set against the definition, over the same shapes and edges."""

import functools
import inspect
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import native, splat, triton
from silky_kernels.rasterize import definition
from silky_kernels.rasterize.arg_specs import ARG_SPECS, ArgSpec, random_splats

from tests.checks import TOLERANCES, assert_gradients_close, assert_pictures_close
from tests.kernels.rasterize_suite import CAPACITY, arguments, cotangents, value_and_gradient

NAMES = ("means2d", "radii", "depths", "conics", "opacities", "features", "background")
SPECS = {name: spec for name, spec in ARG_SPECS.items() if spec.ci} | {
  "four_channels": ArgSpec(n=80, width=33, height=18, tile=16, channels=4, ci=True),
  "many_channels": ArgSpec(n=50, width=20, height=37, tile=16, channels=32, ci=True),
  "one_pixel": ArgSpec(n=5, width=1, height=1, tile=16, channels=3, ci=True),
}
SIXTEEN_TILES = ArgSpec(n=12, width=64, height=60, tile=16, channels=3, ci=True)
JUDGED = ArgSpec(n=200, width=64, height=60, tile=16, channels=33, ci=True)  # no spec is larger in any way


@functools.cache
def _by(backend, simd):
  """splat by one backend and instruction set, as a function of (arrays, width, height): one object each, so that programs are shared."""
  return lambda arrays, width, height: splat(*arrays, width=width, height=height, capacity=2 * CAPACITY, backend=backend)


@pytest.fixture(params=["xla", *native.SIMD, pytest.param("pallas", marks=pytest.mark.slow)])
def run(request, monkeypatch):
  if request.param == "pallas":
    monkeypatch.setenv(triton.INTERPRET, "interpret")  # on a GPU it means nothing
  if request.param in ("xla", "pallas"):
    return _by(request.param, None)
  if jax.default_backend() != "cpu":
    pytest.skip("the C++ is for CPUs")
  assert native.why_not() is None  # built wherever tests run
  if not native.load().silky_runs(native.SIMD.index(request.param)):
    pytest.skip(f"this processor has no {request.param}")
  monkeypatch.setenv("SILKY_SIMD", request.param)  # read when a call is traced
  return _by("cpu", request.param)


def _arrays(spec, splats=None):
  splats = splats or random_splats(spec)
  return [jnp.asarray(splats[name]) for name in NAMES]


@functools.partial(jax.jit, static_argnums=(0, 2))
def _outputs_and_gradients(function, arrays, spec):
  given = cotangents(spec)

  def loss(arrays):
    made = function(arrays, spec.width, spec.height)
    return sum(jnp.sum(a * b) for a, b in zip(made[:3], given, strict=True)), (*made[:3], made.overflow)

  gradient, outputs = jax.grad(loss, has_aux=True)(arrays)
  return outputs, gradient


@functools.cache
def _as_it_should_be(spec, data):
  """By the definition; once for all backends, and all shapes by one program: it fills a part of a larger problem of culled splats."""
  shapes = {name: np.shape(value) for name, value in random_splats(spec).items()}
  whole = {name: np.zeros_like(value) for name, value in random_splats(JUDGED).items()}
  for name, bits in zip(NAMES, data, strict=True):
    whole[name][tuple(map(slice, shapes[name]))] = np.frombuffer(bits, np.float32).reshape(shapes[name])
  given = [np.zeros_like(cotangent) for cotangent in cotangents(JUDGED)]
  for canvas, part in zip(given, cotangents(spec), strict=True):
    canvas[tuple(map(slice, part.shape))] = part
  outputs, gradient = value_and_gradient(definition.rasterize, JUDGED, arguments(JUDGED, whole), tuple(given))
  outputs = [canvas[tuple(map(slice, part.shape))] for canvas, part in zip(outputs, cotangents(spec), strict=True)]
  return outputs, [None if name == "radii" else gradient[name][tuple(map(slice, shapes[name]))] for name in NAMES]


def _assert_as_defined(run, spec, splats=None):
  arrays = _arrays(spec, splats)
  (*found, overflow), found_gradient = _outputs_and_gradients(run, arrays, spec)
  wanted, wanted_gradient = _as_it_should_be(spec, tuple(np.asarray(a).tobytes() for a in arrays))
  assert int(overflow) == 0
  for name, a, b in zip(("image", "alpha", "depth"), found, wanted, strict=True):
    assert_pictures_close(a, b, TOLERANCES["float32"], name)
  for name, a, b in zip(NAMES, found_gradient, wanted_gradient, strict=True):
    if name != "radii":
      assert_gradients_close(a, b, TOLERANCES["float32"], f"gradient of {name}")
  return found, found_gradient


@pytest.mark.parametrize("name", SPECS)
def test_as_defined(run, name):
  _assert_as_defined(run, SPECS[name])


def test_clamped_alphas(run):
  spec = SPECS["smoke"]
  splats = random_splats(spec, seed=1)
  splats["opacities"] = np.where(np.arange(spec.n) % 2 == 0, 1.0, 0.9995).astype(np.float32)
  splats["radii"] *= 3  # the boxes were made for smaller opacities
  _assert_as_defined(run, spec, splats)


def test_one_splat_over_every_tile(run):
  spec = SPECS["large_tile"]
  splats = random_splats(spec, seed=2)
  splats["conics"][3] = [1e-4, 2e-5, 3e-4]
  splats["opacities"][3], splats["radii"][3] = 0.7, 400.0
  _assert_as_defined(run, spec, splats)


def test_more_pairs_than_are_kept_for_the_gradient(run):
  """Every splat over every tile: the gradient lists them again."""
  spec = SIXTEEN_TILES  # and room for twelve pairs each
  splats = random_splats(spec, seed=3)
  splats["conics"][:] = [1e-4, 2e-5, 3e-4]
  splats["radii"][:], splats["opacities"][:] = 400.0, 0.3
  _assert_as_defined(run, spec, splats)


def test_long_thin_splats_are_not_culled_by_their_blocks(run):
  """Needles at 45 degrees: the ellipse is nowhere near the corners of its box."""
  spec = SIXTEEN_TILES
  splats = random_splats(spec, seed=7)
  angle, long, thin = np.pi / 4, 12.0, 1.0
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  inverse = turn @ np.diag([1 / long**2, 1 / thin**2]) @ turn.T
  splats["conics"][:] = [inverse[0, 0], inverse[0, 1], inverse[1, 1]]
  splats["radii"][:] = 4 * long
  _assert_as_defined(run, spec, splats)


def test_nothing_to_draw_is_the_background(run):
  spec = SPECS["smoke"]
  splats = random_splats(spec)
  splats["radii"][:] = 0
  outputs, gradient = _assert_as_defined(run, spec, splats)
  np.testing.assert_array_equal(outputs[0], np.broadcast_to(splats["background"], outputs[0].shape))
  assert not any(np.asarray(g).any() for g in gradient[:-1])


def test_a_batch_equals_a_loop(run):
  spec = SPECS["smoke"]
  items = [_arrays(spec, random_splats(spec, seed)) for seed in (4, 5, 6, 7)]
  one = lambda arrays: _outputs_and_gradients(run, arrays, spec)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)
  found = jax.jit(jax.vmap(one))(stacked)
  for index, item in enumerate(items):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(one(item)), strict=True):
      np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-5)


def test_shared_arguments_in_a_batch_add_up_their_gradients(run):
  spec = SPECS["smoke"]
  arrays = _arrays(spec)
  backgrounds = jnp.stack([arrays[-1], 1 - arrays[-1]])
  image = lambda features, background: run([*arrays[:5], features, background], spec.width, spec.height).image
  batched = jax.jit(jax.grad(lambda f: jnp.sum(jax.vmap(image, (None, 0))(f, backgrounds) ** 2)))(arrays[5])
  looped = jax.jit(jax.grad(lambda f: sum(jnp.sum(image(f, b) ** 2) for b in backgrounds)))(arrays[5])
  np.testing.assert_allclose(batched, looped, rtol=1e-5, atol=1e-5)


def test_repeats_are_bit_equal(run):
  spec = SPECS["large_tile"]
  first, second = (_outputs_and_gradients(run, _arrays(spec), spec) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, second)


# ---- the C++ alone


_cpu = _by("cpu", None)


def test_a_batch_is_one_call_in_the_program():
  spec = SPECS["smoke"]
  stacked = [jnp.stack([a] * 4) for a in _arrays(spec)]
  forward = jax.jit(jax.vmap(lambda *arrays: _cpu(arrays, spec.width, spec.height).image))
  text = forward.lower(*stacked).compile().as_text()
  assert text.count('custom_call_target="silky_splat_forward"') == 1
  both = jax.jit(jax.grad(lambda arrays: jnp.sum(jax.vmap(lambda *a: _cpu(a, spec.width, spec.height).image)(*arrays))))
  text = both.lower(stacked).compile().as_text()
  assert text.count('custom_call_target="silky_splat_backward"') == 1


@pytest.mark.parametrize("what", ["means2d", "conics", "opacities", "features", "depths", "radii"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_drawn(what, value):
  spec = SPECS["smoke"]
  splats, gone = random_splats(spec, seed=8), random_splats(spec, seed=8)
  splats[what][5] = value
  gone["radii"][5] = 0
  found, gradient = _outputs_and_gradients(_cpu, _arrays(spec, splats), spec)
  wanted, _ = _outputs_and_gradients(_cpu, _arrays(spec, gone), spec)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_an_opacity_of_zero_and_negative_ones_draw_nothing():
  spec = SPECS["smoke"]
  splats = random_splats(spec, seed=9)
  splats["opacities"][::2], splats["opacities"][1::2] = 0.0, -1.0
  found, gradient = _outputs_and_gradients(_cpu, _arrays(spec, splats), spec)
  np.testing.assert_array_equal(found[1], 0)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_ties_in_depth_keep_the_order_of_the_input():
  spec = SPECS["smoke"]
  splats = random_splats(spec, seed=10)
  splats["depths"][:] = 2.0
  found, _ = _outputs_and_gradients(_cpu, _arrays(spec, splats), spec)
  wanted, _ = _as_it_should_be(spec, tuple(splats[name].tobytes() for name in NAMES))
  assert_pictures_close(found[0], wanted[0], TOLERANCES["float32"])


def test_a_million_tiny_splats():
  rng = np.random.default_rng(0)
  n, size = 1_000_000, 128
  means = rng.uniform(0, size, (n, 2)).astype(np.float32)
  arrays = [
    means,
    np.full((n, 2), 0.6, np.float32),
    rng.uniform(1, 2, n).astype(np.float32),
    np.tile(np.array([16.0, 0, 16.0], np.float32), (n, 1)),
    np.full(n, 0.05, np.float32),
    rng.uniform(size=(n, 3)).astype(np.float32),
    np.zeros(3, np.float32),
  ]
  image = np.asarray(jax.jit(lambda *a: _cpu(a, size, size).image)(*map(jnp.asarray, arrays)))
  assert np.isfinite(image).all() and 0.2 < image.mean() < 0.8


def test_more_pairs_than_can_be_counted_are_an_error_and_no_crash():
  """33,000 splats, each over all 65,536 tiles."""
  n, size = 33_000, 4096
  full = lambda value, *shape: jnp.full(shape, value, jnp.float32)
  arrays = full(2048, n, 2), full(1e5, n, 2), full(1, n), full(1e-9, n, 3), full(0.5, n), full(0.5, n, 1), full(0, 1)
  with pytest.raises(Exception, match=r"more than 2\^31 tile pairs"):
    jax.block_until_ready(_cpu(arrays, size, size).image)


@pytest.mark.parametrize("change", [{"width": 0}, {"height": 0}, {"n": 0}, {"c": 0}, {"background": 2}])
def test_sizes_that_do_not_fit_are_named(change):
  spec = SPECS["smoke"]
  arrays, sizes = _arrays(spec), {"width": 8, "height": 8}
  ((name, value),) = change.items()
  if name == "n":
    arrays = [a[:0] for a in arrays[:-1]] + arrays[-1:]
  elif name == "c":
    arrays[5], arrays[6] = arrays[5][:, :0], arrays[6][:0]
  elif name == "background":
    arrays[6] = arrays[6][:2]
  else:
    sizes[name] = value
  with pytest.raises(ValueError, match=f"{name}: expected"):
    inspect.unwrap(splat)(*arrays, **sizes, backend="cpu")


def test_other_types_go_to_plain_jax_and_never_to_this_one_by_name(x64):
  arrays = [a.astype(jnp.float64) for a in _arrays(SPECS["smoke"])]
  assert splat(*arrays, width=32, height=32).image.dtype == jnp.float64
  with pytest.raises(NotImplementedError, match="takes float32 alone"):
    splat(*arrays, width=32, height=32, backend="cpu")


_ELSEWHERE = """
import hashlib, os, sys
if sys.argv[1] == "one core":
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, numpy as np
from silky_kernels import splat
from silky_kernels.rasterize.arg_specs import ARG_SPECS, random_splats
spec = ARG_SPECS["large_tile"]
splats = random_splats(spec)
arrays = [jnp.asarray(splats[name]) for name in ("means2d", "radii", "depths", "conics", "opacities", "features", "background")]
draw = lambda *a: splat(*a, width=spec.width, height=spec.height, backend="cpu").image
gradient = jax.grad(lambda a: jnp.sum(draw(*a) ** 2))
if sys.argv[1] == "four devices":
  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  from jax.sharding import PartitionSpec as P
  stacked = [jnp.stack([a] * 4) for a in arrays]
  mapped = jax.shard_map(lambda a: jax.vmap(gradient)(a), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
  every = jax.jit(mapped)(stacked)
  assert len(every[0].sharding.device_set) == 4
  found = [a[3] for a in every]
else:
  found = jax.jit(gradient)(arrays)
print(*(hashlib.sha256((np.asarray(a) + 0.0).tobytes()).hexdigest()[:8] for a in found))  # + 0: no negative zeros
"""


@functools.cache
def _elsewhere(how):
  environment = os.environ | ({"XLA_FLAGS": "--xla_force_host_platform_device_count=4"} if how == "four devices" else {})
  done = subprocess.run([sys.executable, "-c", _ELSEWHERE, how], capture_output=True, text=True, env=environment, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout.strip()


@pytest.mark.parametrize("how", ["one core", "four devices"])
def test_gradients_are_the_same_bits_however_many_threads_and_devices(how):
  assert _elsewhere(how) == _elsewhere("as it is")
