"""render() through the whole chain against the dense float64 oracle, and the promises of its docstring."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import silky_kernels

from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.render import pipeline
from silky_jax.render.pipeline import RenderConfig, render
from silky_jax.render.project import project
from silky_jax.types import Camera, Gaussians
from tests.checks import TOLERANCES, assert_gradients_close, assert_pictures_close
from tests.render import dense_oracle
from tests.render.dense_oracle import Scene
from tests.render.scenes import SCENES, shell, view

CONFIG = RenderConfig(capacity=16_384)


def _cast(scene, dtype):
  return Scene(*(jnp.asarray(array, dtype) for array in scene))


def _camera(view, dtype=jnp.float32):
  return Camera(jnp.asarray(view.world_to_camera, dtype), jnp.asarray(view.intrinsics, dtype), view.width, view.height)


def _gaussians(scene):
  return Gaussians(scene.means, covariance_from_axes(scene.quaternions, scene.deviations), scene.opacities, scene.colours)


def _cotangents(scene, view):
  rng = np.random.default_rng(10)
  shape = (view.height, view.width)
  return rng.normal(size=(*shape, scene.colours.shape[1])), rng.normal(size=shape), rng.normal(size=shape)


@functools.cache
def _judged(name):
  scene, view = SCENES[name]
  return dense_oracle.judge(scene, view, _cotangents(scene, view))


@functools.partial(jax.jit, static_argnums=3)
def _rendered(scene, camera, cotangents, config):
  """Render and gradient of sum <cotangent, output> with respect to every array of the scene."""

  def loss(scene):
    out = render(_gaussians(scene), camera, scene.background, config=config)
    return sum(jnp.sum(a * b) for a, b in zip((out.image, out.alpha, out.depth), cotangents, strict=True)), out

  gradient, out = jax.grad(loss, has_aux=True)(scene)
  return out, gradient


def _assert_equals_oracle(name, config, dtype):
  scene, view = SCENES[name]
  cotangents = [jnp.asarray(c, dtype) for c in _cotangents(scene, view)]
  out, gradient = _rendered(_cast(scene, dtype), _camera(view, dtype), cotangents, config)
  expected, expected_gradient = _judged(name)
  tolerance = TOLERANCES[np.dtype(dtype).name]
  assert int(out.overflow) == 0
  for label, actual, wanted in zip(("image", "alpha", "depth"), (out.image, out.alpha, out.depth), expected, strict=True):
    assert_pictures_close(actual, wanted, tolerance, f"{name}: {label}")
  for label, actual, wanted in zip(Scene._fields, gradient, expected_gradient, strict=True):
    assert_gradients_close(actual, wanted, tolerance, f"{name}: gradient of {label}")


@pytest.mark.parametrize("name", SCENES)
def test_equals_the_oracle_in_float32(name):
  _assert_equals_oracle(name, CONFIG, jnp.float32)


@pytest.mark.parametrize("name", ["shell", "opaque", "giant", "around_the_camera"])
def test_equals_the_oracle_in_float64(x64, name):
  _assert_equals_oracle(name, dataclasses.replace(CONFIG, tile=16), jnp.float64)


def test_one_gaussian_against_the_formula():
  deviation, depth, focal, opacity = 0.01, 0.5, 60.0, 0.7
  camera = Camera(
    jnp.asarray(np.diag([1.0, 1, 1, 1]), jnp.float32), jnp.asarray([[focal, 0, 16], [0, focal, 16], [0, 0, 1.0]]), width=32, height=32
  )
  gaussians = Gaussians(
    jnp.asarray([[0.0, 0, depth]]), jnp.eye(3)[None] * deviation**2, jnp.asarray([opacity]), jnp.asarray([[1.0, 0.5, 0.0]])
  )
  out = jax.jit(lambda g: render(g, camera, jnp.asarray([0.0, 0.0, 1.0]), config=CONFIG))(gaussians)
  variance = (focal * deviation / depth) ** 2 + 0.3
  y, x = np.mgrid[:32, :32] + 0.5
  alpha = opacity * np.exp(-((x - 16) ** 2 + (y - 16) ** 2) / (2 * variance))
  alpha = np.where(alpha >= 1 / 255, alpha, 0)
  np.testing.assert_allclose(out.alpha, alpha, atol=1e-6)
  np.testing.assert_allclose(out.depth, alpha * depth, atol=1e-6)
  np.testing.assert_allclose(out.image, np.stack([alpha, 0.5 * alpha, 1 - alpha], axis=-1), atol=1e-6)
  assert out.radii[0] == np.ceil(np.sqrt(2 * np.log(255 * opacity) * variance) * 1.001 + 1e-3)


def test_order_of_the_input_does_not_matter():
  scene, view = SCENES["shell"]
  order = np.random.default_rng(0).permutation(len(scene.means))
  turned = Scene(*(array[order] for array in scene[:5]), scene.background)
  cotangents = [jnp.asarray(c, jnp.float32) for c in _cotangents(scene, view)]
  straight, gradient = _rendered(_cast(scene, jnp.float32), _camera(view), cotangents, CONFIG)
  permuted, permuted_gradient = _rendered(_cast(turned, jnp.float32), _camera(view), cotangents, CONFIG)
  np.testing.assert_array_equal(straight.image, permuted.image)
  np.testing.assert_array_equal(straight.radii[order], permuted.radii)
  np.testing.assert_allclose(gradient.means[order], permuted_gradient.means, rtol=1e-5, atol=1e-3)


def test_batches_equal_a_loop_and_trace_once():
  scenes = [_cast(SCENES[name][0], jnp.float32) for name in ("shell", "giant")]
  cameras = [_camera(view(angle=angle)) for angle in (0.0, 0.5)]
  cotangents = [jnp.asarray(c, jnp.float32) for c in _cotangents(*SCENES["shell"])]
  traces = []

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, 0, None))
  def batched(scene, camera, cotangents):
    traces.append(None)
    return _rendered(scene, camera, cotangents, CONFIG)

  scene, camera = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts) for parts in (scenes, cameras))
  found = batched(scene, camera, cotangents)
  batched(scene, jax.tree.map(lambda leaf: leaf[::-1], camera), cotangents)
  assert len(traces) == 1, "another camera must not compile again"
  for index in range(2):
    wanted = _rendered(scenes[index], cameras[index], cotangents, CONFIG)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
      np.testing.assert_allclose(a[index], b, rtol=2e-4, atol=1e-5 * max(1, float(jnp.abs(b).max())))


def test_jit_equals_no_jit():
  scene, view = SCENES["shell"]
  cast, cotangents = _cast(scene, jnp.float32), [jnp.asarray(c, jnp.float32) for c in _cotangents(scene, view)]
  jitted, _ = _rendered(cast, _camera(view), cotangents, CONFIG)
  eager = render(_gaussians(cast), _camera(view), cast.background, config=CONFIG)
  for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_probe_gradient_is_the_gradient_of_the_projected_means():
  scene, view = _cast(shell(), jnp.float32), SCENES["shell"][1]
  gaussians, camera = _gaussians(scene), _camera(view)
  sizes = {"width": view.width, "height": view.height, "tile": CONFIG.tile}

  @jax.jit
  def both(gaussians):
    splats, boxes = project(gaussians, camera)
    bins = silky_kernels.bin_tiles(splats.means2d, boxes, splats.depths, capacity=CONFIG.capacity, **sizes)

    def direct(means2d):
      rest = (splats.conics, splats.features, splats.opacities, splats.depths, bins.pairs, bins.tile_starts, scene.background)
      return jnp.sum(silky_kernels.rasterize_tiles(means2d, *rest, **sizes).image ** 2)

    def probed(probe):
      return jnp.sum(render(gaussians, camera, scene.background, config=CONFIG, probe=probe).image ** 2)

    return jax.grad(probed)(jnp.zeros_like(splats.means2d)), jax.grad(direct)(splats.means2d)

  found, wanted = both(gaussians)
  assert np.abs(wanted).max() > 0
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(jnp.abs(wanted).max()))


def test_broken_and_dead_gaussians_leave_no_trace():
  scene, view = _cast(shell(40), jnp.float32), SCENES["shell"][1]
  whole = _gaussians(scene)
  clean = whole.replace(opacities=whole.opacities.at[:7].set(0.0))
  spoilt = Gaussians(
    means=whole.means.at[0].set(jnp.nan).at[1, 2].set(jnp.inf).at[5].set(3e30),
    covariances=whole.covariances.at[2].set(jnp.nan).at[6].set(-1.0),
    opacities=whole.opacities.at[3].set(jnp.nan).at[4].set(0.0).at[6].set(0.5),
    features=whole.features.at[4].set(jnp.inf),
  )

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
  def run(gaussians, camera):
    out = render(gaussians, camera, scene.background, config=CONFIG)
    return jnp.sum(out.image**2) + jnp.sum(out.depth), out

  found, out = run(spoilt, _camera(view))
  wanted, alone = run(clean, _camera(view))
  np.testing.assert_allclose(out.image, alone.image, atol=1e-6)
  assert not out.radii[:7].any() and out.radii[7:].any()
  assert all(not leaf[:7].any() for leaf in jax.tree.leaves(found[0])), "a culled Gaussian has no gradient"
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


def test_nothing_in_view_is_the_background():
  scene, view = SCENES["shell"]
  behind = _cast(scene._replace(means=scene.means + np.array([0, 0, 5.0])), jnp.float32)
  cotangents = [jnp.asarray(c, jnp.float32) for c in _cotangents(scene, view)]
  out, gradient = _rendered(behind, _camera(view), cotangents, CONFIG)
  np.testing.assert_array_equal(out.image, np.broadcast_to(behind.background, out.image.shape))
  assert not out.alpha.any() and not out.radii.any() and int(out.pairs) == 0
  assert all(not leaf.any() for leaf in gradient[:5])
  np.testing.assert_allclose(gradient.background, cotangents[0].sum(axis=(0, 1)), rtol=1e-4)


def test_the_near_distance_culls_at_equality():
  camera = Camera(jnp.eye(4), jnp.asarray([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), width=16, height=16)
  gaussians = Gaussians(
    jnp.asarray([[0, 0, 0.25], [0, 0, 0.2500001], [0, 0, -0.5]]), jnp.eye(3) * jnp.full((3, 1, 1), 1e-4), jnp.full(3, 0.5), jnp.ones((3, 1))
  )
  splats, _ = jax.jit(functools.partial(project, near=0.25))(gaussians, camera)
  assert (splats.radii > 0).tolist() == [False, True, False]


def test_camera_gradient_equals_finite_differences(x64):
  scene, view = SCENES["tall_four_channels"]
  gaussians, camera = _gaussians(_cast(scene, jnp.float64)), _camera(view, jnp.float64)
  target = jnp.asarray(np.random.default_rng(1).uniform(size=(view.height, view.width, 4)))

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def loss(pose, intrinsics):
    out = render(gaussians, camera.replace(world_to_camera=pose, intrinsics=intrinsics), jnp.zeros(4), config=CONFIG)
    return jnp.mean((out.image - target) ** 2)

  gradient = loss(camera.world_to_camera, camera.intrinsics)[1]
  for which, entry in ((0, (0, 3)), (0, (2, 3)), (0, (1, 0)), (1, (0, 0)), (1, (1, 2))):
    arguments = [camera.world_to_camera, camera.intrinsics]
    step = 1e-7 * (1 if which == 0 else 100)
    moved = [loss(*(a.at[entry].add(sign * step) if i == which else a for i, a in enumerate(arguments)))[0] for sign in (1, -1)]
    np.testing.assert_allclose(gradient[which][entry], (moved[0] - moved[1]) / (2 * step), rtol=1e-3)


def test_overflow_is_reported_exactly_and_grows_away(caplog):
  scene, view = SCENES["shell"]
  cast, cotangents = _cast(scene, jnp.float32), [jnp.asarray(c, jnp.float32) for c in _cotangents(scene, view)]
  small, large = RenderConfig(capacity=300, backend="xla"), RenderConfig(capacity=16_384, backend="xla")
  cut = jax.jit(lambda scene: render(_gaussians(scene), _camera(view), scene.background, config=small))(cast)
  whole, _ = _rendered(cast, _camera(view), cotangents, large)
  wanted = int(whole.pairs)
  assert wanted > 300 and int(whole.overflow) == 0
  assert int(cut.pairs) == wanted and int(cut.overflow) == wanted - 300 and np.isfinite(cut.image).all()
  grown = pipeline.grow(small, wanted)
  assert grown.capacity >= 1.5 * wanted and grown.capacity in pipeline.CAPACITIES and "growing" in caplog.text
  assert pipeline.grow(grown, wanted) is grown


def test_capacities():
  assert list(pipeline.CAPACITIES) == sorted(set(pipeline.CAPACITIES))
  assert pipeline.next_capacity(1) == pipeline.CAPACITIES[0]
  assert pipeline.next_capacity(100_000) >= 150_000
  assert pipeline.capacity_for(14_000, 256, 256) in pipeline.CAPACITIES
  assert pipeline.capacity_for(3, 8, 8) == pipeline.CAPACITIES[0]
  with pytest.raises(ValueError, match="largest capacity"):
    pipeline.next_capacity(pipeline.CAPACITIES[-1])


def test_wrong_background_is_named():
  scene = _cast(shell(5), jnp.float32)
  with pytest.raises(ValueError, match="background: expected"):
    render(_gaussians(scene), _camera(view()), jnp.zeros(4), config=CONFIG)


def test_a_backend_that_cannot_run_here_says_so():
  scene = _cast(shell(5), jnp.float32)
  with pytest.raises(NotImplementedError, match="'pallas' cannot run: it is for NVIDIA GPUs"):
    render(_gaussians(scene), _camera(view()), scene.background, config=RenderConfig(backend="pallas"))
