"""bin_tiles against a loop over pixels, and what it drops when there is no room."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import bin_tiles
from silky_kernels.bin_tiles import reference
from silky_kernels.bin_tiles.arg_specs import ARG_SPECS, ArgSpec

CI = [name for name, spec in ARG_SPECS.items() if spec.ci]
run = jax.jit(bin_tiles, static_argnames=("width", "height", "tile", "capacity"))


def _splats(spec, seed=0):
  rng = np.random.default_rng(seed)
  means = rng.uniform(-0.2, 1.2, (spec.n, 2)) * [spec.width, spec.height]
  radii = np.exp(rng.normal(size=(spec.n, 2))) * 2
  radii[rng.uniform(size=spec.n) < 0.1] = 0
  # Few distinct depths: ties must keep the order of the input.
  return means.astype(np.float32), radii.astype(np.float32), rng.integers(1, 20, spec.n).astype(np.float32)


def _brute_force(means, radii, depths, spec):
  """Lists of splats per tile, nearest first, from every pixel centre."""
  columns, rows = -(-spec.width // spec.tile), -(-spec.height // spec.tile)
  y, x = np.mgrid[: spec.height, : spec.width].astype(np.float32) + 0.5
  tiles = (np.mgrid[: spec.height, : spec.width] // spec.tile * np.array([columns, 1])[:, None, None]).sum(axis=0)
  lists = [[] for _ in range(columns * rows)]
  for i in np.argsort(depths, kind="stable"):
    if not (radii[i] > 0).all():
      continue
    inside = (np.abs(x - means[i, 0]) <= radii[i, 0]) & (np.abs(y - means[i, 1]) <= radii[i, 1])
    for tile in np.unique(tiles[inside]):
      lists[tile].append(i)
  return lists


def _lists(bins):
  starts = np.asarray(bins.tile_starts)
  return [np.asarray(bins.pairs)[a:b].tolist() for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("name", CI)
def test_equals_a_loop_over_pixels(name):
  spec = ARG_SPECS[name]
  splats = _splats(spec)
  wanted = _brute_force(*splats, spec)
  bins = run(*map(jnp.asarray, splats), width=spec.width, height=spec.height, tile=spec.tile, capacity=8192)
  assert _lists(bins) == wanted
  assert int(bins.overflow) == 0 and int(bins.wanted) == sum(map(len, wanted)) == int(bins.tile_starts[-1])
  assert not np.asarray(bins.pairs)[int(bins.wanted) :].any()


def test_overflow_drops_the_farthest_pairs():
  spec = ARG_SPECS["uneven"]
  means, radii, depths = _splats(spec, seed=1)
  wanted = _brute_force(means, radii, depths, spec)
  total, capacity = sum(map(len, wanted)), 333
  sizes = {"width": spec.width, "height": spec.height, "tile": spec.tile}
  cut = run(*map(jnp.asarray, (means, radii, depths)), capacity=capacity, **sizes)
  assert int(cut.wanted) == total and int(cut.overflow) == total - capacity and int(cut.tile_starts[-1]) == capacity
  # Handing out pairs front to back, tile by tile within a splat, gives the same first `capacity`.
  rank = {splat: place for place, splat in enumerate(np.argsort(depths, kind="stable"))}
  handed = sorted((rank[splat], tile) for tile, splats in enumerate(wanted) for splat in splats)[:capacity]
  kept = {(place, tile) for place, tile in handed}
  assert _lists(cut) == [[splat for splat in splats if (rank[splat], tile) in kept] for tile, splats in enumerate(wanted)]
  exact = run(*map(jnp.asarray, (means, radii, depths)), capacity=total, **sizes)
  assert int(exact.overflow) == 0 and _lists(exact) == wanted


def test_keys_too_wide_for_32_bits_sort_the_same(monkeypatch):
  spec = ARG_SPECS["uneven"]
  splats = [jnp.asarray(a) for a in _splats(spec)]
  sizes = {"width": spec.width, "height": spec.height, "tile": spec.tile, "capacity": 4096}
  wanted = bin_tiles(*splats, **sizes)
  sort = reference._sort_pairs
  monkeypatch.setattr(reference, "_sort_pairs", lambda tiles, rank, count, n: sort(tiles, rank, count, 2**30))
  for a, b in zip(wanted, jax.jit(functools.partial(bin_tiles, **sizes))(*splats), strict=True):
    np.testing.assert_array_equal(a, b)


def test_broken_and_distant_splats_are_left_out():
  bad = [np.nan, np.inf, -np.inf, 1e30, -1e30]
  means = jnp.asarray([[value, 8.0] for value in bad] + [[8.0, 8.0]] * 4)
  radii = jnp.asarray([[2.0, 2.0]] * 5 + [[np.nan, 2.0], [np.inf, 2.0], [0.0, 2.0], [2.0, 2.0]])
  bins = run(means, radii, jnp.ones(9), width=16, height=16, tile=8, capacity=64)
  assert int(bins.wanted) == 4 and set(np.asarray(bins.pairs)[:4].tolist()) == {8}


def test_a_box_between_pixel_centres_touches_nothing():
  bins = run(jnp.asarray([[4.0, 4.0]]), jnp.asarray([[0.4, 3.0]]), jnp.ones(1), width=16, height=16, tile=8, capacity=8)
  assert int(bins.wanted) == 0
  bins = run(jnp.asarray([[8.0, 4.0]]), jnp.asarray([[0.5, 0.5]]), jnp.ones(1), width=16, height=16, tile=8, capacity=8)
  assert _lists(bins) == [[0], [0], [], []]


def test_a_batch_equals_a_loop():
  spec = ArgSpec(n=30, width=20, height=20, tile=8, ci=True)
  items = [[jnp.asarray(a) for a in _splats(spec, seed)] for seed in (2, 3)]
  one = functools.partial(bin_tiles, width=20, height=20, tile=8, capacity=512)
  found = jax.jit(jax.vmap(one))(*(jnp.stack(arrays) for arrays in zip(*items, strict=True)))
  for index, item in enumerate(items):
    for a, b in zip(found, jax.jit(one)(*item), strict=True):
      np.testing.assert_array_equal(a[index], b)


def test_sizes_are_checked():
  arrays = (jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones(1))
  for name in ("width", "height", "tile", "capacity"):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1"):
      bin_tiles(*arrays, **({"width": 8, "height": 8, "tile": 8, "capacity": 8} | {name: 0}))
