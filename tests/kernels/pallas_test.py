"""The Pallas backend of splat beyond what every backend must do: its lists, long lists, batches of all kinds, and what it lowers to.

In Pallas' interpreter where there is no GPU. What compiles tile kernels takes ten seconds a time there, and is in the slow tier.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import splat, triton
from silky_kernels.rasterize.arg_specs import ARG_SPECS, ArgSpec, random_splats
from silky_kernels.splat.pallas import splat as pallas_splat
from silky_kernels.splat.pallas.bins import _by_depth, list_pairs
from silky_kernels.splat.pallas.layout import TILE, Layout
from silky_kernels.splat.pallas.pack import pack

from tests.checks import TOLERANCES, assert_gradients_close, assert_pictures_close, sound_triton_kernels

NAMES = ("means2d", "radii", "depths", "conics", "opacities", "features", "background")
SMOKE = ARG_SPECS["smoke"]


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
  monkeypatch.setenv(triton.INTERPRET, "interpret")


def _arrays(spec, seed=0, **changed):
  splats = random_splats(spec, seed) | changed
  return [jnp.asarray(splats[name]) for name in NAMES]


def _draw(arrays, spec, backend="pallas", capacity=8192):
  return splat(*arrays, width=spec.width, height=spec.height, capacity=capacity, backend=backend)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _both(arrays, spec, backend):
  rng = np.random.default_rng(3)

  def loss(arrays):
    made = _draw(arrays, spec, backend)
    return sum(jnp.sum(part * rng.normal(size=part.shape).astype(np.float32)) for part in made[:3]), made

  gradient, made = jax.grad(loss, has_aux=True)(arrays)
  return made, gradient


def _assert_like_plain_jax(arrays, spec, but=()):
  (made, gradient), (wanted, wanted_gradient) = _both(arrays, spec, "pallas"), _both(arrays, spec, "xla")
  for name, a, b in zip(("image", "alpha", "depth"), made, wanted, strict=False):
    assert_pictures_close(a, b, TOLERANCES["float32"], name)
  for name, a, b in zip(NAMES, gradient, wanted_gradient, strict=True):
    if name not in but:
      assert_gradients_close(a, b, TOLERANCES["float32"], name)


# ---- lists


@functools.partial(jax.jit, static_argnums=(0,))
def _lists(settings, *arrays):
  layout = pallas_splat._layout(settings, arrays[-1])
  packed = pack(layout, *arrays)
  return list_pairs(layout, packed.lines, packed.keys)


def _listed(spec, arrays, capacity=8192):
  """Splats by tile of a batch of one, nearest first, and the lists."""
  means, boxes, depths, conics, opacities, features, _ = (a[None] for a in arrays)
  lists = _lists((spec.width, spec.height, capacity, triton.interpreted()), means, boxes, depths, conics, opacities, features)
  starts = np.asarray(lists.starts)
  return [np.asarray(lists.splats)[a:b].tolist() for a, b in itertools.pairwise(starts)], lists


def _visible(spec, arrays):
  """[tiles, n]: whether a splat has an alpha of 1/255 or more at a pixel of the tile that its box holds, in float64."""
  means, boxes, _, conics, opacities = (np.asarray(a, np.float64) for a in arrays[:5])
  y, x = np.mgrid[: spec.height, : spec.width] + 0.5
  dx, dy = x[..., None] - means[:, 0], y[..., None] - means[:, 1]
  alpha = opacities * np.exp(-0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) - conics[:, 1] * dx * dy)
  seen = (alpha >= 1 / 255) & (np.abs(dx) <= boxes[:, 0]) & (np.abs(dy) <= boxes[:, 1])
  padded = np.pad(seen, ((0, -spec.height % TILE), (0, -spec.width % TILE), (0, 0)))
  rows, columns = padded.shape[0] // TILE, padded.shape[1] // TILE
  return padded.reshape(rows, TILE, columns, TILE, -1).any(axis=(1, 3)).reshape(rows * columns, -1)


@pytest.mark.parametrize("seed", [0, 1])
def test_lists_hold_every_splat_that_is_seen_and_few_others(seed):
  spec = ArgSpec(n=300, width=83, height=61, tile=8, channels=3, ci=True)
  rng = np.random.default_rng(seed)
  angle, long, thin = rng.uniform(0, np.pi, spec.n), rng.uniform(1, 14, spec.n), rng.uniform(0.6, 2, spec.n)
  cos, sin = np.cos(angle), np.sin(angle)
  xx, xy, yy = cos**2 * long**2 + sin**2 * thin**2, cos * sin * (long**2 - thin**2), sin**2 * long**2 + cos**2 * thin**2
  determinant = xx * yy - xy * xy
  opacities = rng.uniform(0, 1, spec.n)
  reach = np.sqrt(2 * np.log(np.maximum(opacities * 255, 1)))
  arrays = _arrays(
    spec,
    means2d=(rng.uniform(-0.1, 1.1, (spec.n, 2)) * [spec.width, spec.height]).astype(np.float32),
    conics=np.stack([yy / determinant, -xy / determinant, xx / determinant], axis=-1).astype(np.float32),
    radii=(reach[:, None] * np.sqrt(np.stack([xx, yy], axis=-1)) * 1.001).astype(np.float32),
    opacities=opacities.astype(np.float32),
    depths=rng.integers(1, 9, spec.n).astype(np.float32),  # many ties: they keep the order of the input
  )
  listed, lists = _listed(spec, arrays)
  wanted = _visible(spec, arrays)
  found = np.zeros_like(wanted)
  for tile, splats in enumerate(listed):
    found[tile, splats] = True
    assert len(set(splats)) == len(splats)
    depths = np.asarray(arrays[2])[splats]
    assert splats == sorted(splats, key=lambda i: (np.asarray(arrays[2])[i], i)), depths
  assert not (wanted & ~found).any(), "a splat that is seen is not listed"
  # A row of tiles is a strip: between its pixel centres an ellipse may touch a tile and no centre.
  assert found.sum() <= 1.12 * wanted.sum()
  assert int(lists.wanted[0]) == found.sum()


@pytest.mark.parametrize("count", [1, 31, 128, 1000])
def test_splats_are_ordered_by_depth_and_equal_ones_by_number(count):
  depths = np.random.default_rng(count).uniform(0, 9, count).astype(np.float32)
  depths[::3] = 2.5
  depths[::7] = 0.0
  layout = Layout(batch=1, n=count, width=8, height=8, channels=1, capacity=8, interpret=triton.interpreted())
  found = _by_depth(layout, jnp.asarray(depths).view(jnp.uint32))
  np.testing.assert_array_equal(found, np.argsort(depths, kind="stable"))


def test_too_little_room_leaves_the_farthest_out():
  arrays = _arrays(SMOKE)
  whole, lists = _listed(SMOKE, arrays)
  total = int(lists.wanted[0])
  cut, short = _listed(SMOKE, arrays, capacity=total // 2)
  assert int(short.wanted[0]) == total and int(short.starts[-1]) == total // 2
  depths = np.asarray(arrays[2])
  kept = {splat for splats in cut for splat in splats}
  lost = {splat for a, b in zip(whole, cut, strict=True) for splat in set(a) - set(b)}
  assert max(depths[list(kept)]) <= min(depths[list(lost)]) + 1e-6  # the one cut in the middle is in both


def test_more_numbers_than_an_index_holds_are_refused():
  with pytest.raises(ValueError, match="capacity: 1 pictures of capacity .* lower capacity or batch"):
    jax.eval_shape(lambda arrays: _draw(arrays, SMOKE, capacity=2**28), _arrays(SMOKE))


# ---- tiles


@pytest.mark.slow
def test_lists_of_many_segments():
  """Hundreds of splats on each tile: faint ones, so that all are seen, and solid ones, so that tiles end early."""
  spec = ArgSpec(n=500, width=20, height=13, tile=8, channels=3, ci=True)
  rng = np.random.default_rng(4)
  # Where next to nothing passes, what does is a difference of float32 numbers near 1: the background's gradient has three digits.
  for low, high, but in ((0.004, 0.02, ()), (0.3, 1.0, ("background",))):
    opacities = rng.uniform(low, high, spec.n).astype(np.float32)
    conics = np.tile(np.asarray([0.01, 0.002, 0.02], np.float32), (spec.n, 1))
    _assert_like_plain_jax(_arrays(spec, conics=conics, opacities=opacities, radii=np.full((spec.n, 2), 60, np.float32)), spec, but)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [9, 33])  # a vector that is not full; several programs, the last of which has one channel
def test_more_channels_than_are_done_one_by_one(channels):
  _assert_like_plain_jax(_arrays(spec := ArgSpec(n=60, width=24, height=16, tile=8, channels=channels, ci=True)), spec)


@pytest.mark.slow
def test_what_is_not_finite_is_not_drawn():
  for which, value in ((0, np.nan), (2, np.inf), (3, -np.inf), (4, np.nan), (5, np.nan)):
    arrays, gone = _arrays(SMOKE, seed=8), _arrays(SMOKE, seed=8)
    broken = 0 if which in (3, 5) else 5  # 0 is what a turn's spare places look at
    arrays[which] = arrays[which].at[broken].set(value)
    gone[1] = gone[1].at[broken].set(0)
    (made, gradient), (wanted, _) = _both(arrays, SMOKE, "pallas"), _both(gone, SMOKE, "pallas")
    jax.tree.map(np.testing.assert_array_equal, made, wanted)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


@pytest.mark.slow
def test_nested_batches_and_one_picture_with_many_cotangents():
  arrays = _arrays(SMOKE)
  image = lambda means, color: _draw([means, *arrays[1:5], color, arrays[6]], SMOKE).image
  moved = arrays[0] + jnp.asarray([0.0, 0.3, 1.1])[:, None, None]
  colors = jnp.stack([arrays[5], 1 - arrays[5]])
  nested = jax.jit(jax.vmap(lambda color: jax.vmap(lambda means: image(means, color))(moved)))(colors)
  for i, color in enumerate(colors):
    for k, means in enumerate(moved):
      np.testing.assert_array_equal(nested[i, k], jax.jit(image)(means, color))
  made, pull = jax.vjp(image, arrays[0], arrays[5])
  cotangents = jnp.asarray(np.random.default_rng(5).normal(size=(2, *made.shape)), jnp.float32)
  batched = jax.vmap(pull)(cotangents)
  for i, cotangent in enumerate(cotangents):
    for a, b in zip(batched, pull(cotangent), strict=True):
      np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_shards_equal_a_loop():
  if len(jax.devices()) < 2:
    pytest.skip("wants two devices")
  from jax.sharding import AxisType
  from jax.sharding import PartitionSpec as P

  items = [_arrays(SMOKE, seed) for seed in (1, 2)]
  stacked = [jnp.stack(parts) for parts in zip(*items, strict=True)]
  mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
  one = lambda arrays: _draw(arrays, SMOKE).image
  mapped = jax.shard_map(lambda arrays: jax.vmap(one)(arrays), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
  found = jax.jit(mapped)(stacked)
  for i, item in enumerate(items):
    np.testing.assert_array_equal(found[i], jax.jit(one)(item))


# ---- what it lowers to


_PICTURE = ("pack", "rank", "count", "expand", "starts", "composite")


@pytest.mark.parametrize(
  ("channels", "gradient"), [(3, ("composite_transposed", "reduce")), (40, ("composite_transposed", "reduce", "feature_rows", "reduce"))]
)
def test_kernels_lower_to_sound_triton_code_without_a_gpu(monkeypatch, channels, gradient):
  monkeypatch.delenv(triton.INTERPRET)
  arrays = [a[None] for a in _arrays(SMOKE._replace(channels=channels))]

  def both(*arrays):
    made, pull = jax.vjp(lambda *a: pallas_splat._splat((SMOKE.width, SMOKE.height, 4096, False), *a)[:3], *arrays)
    return pull(made)

  assert sound_triton_kernels(both, *arrays) == [f"silky_{name}" for name in (*_PICTURE, *gradient)]
