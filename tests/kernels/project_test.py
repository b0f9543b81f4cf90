"""project: the compiled backends against plain JAX, values and gradients, camera included; what is culled; batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import native, project, triton

from tests.checks import TOLERANCES, assert_gradients_close, sound_triton_kernels

NAMES = ("means", "covariances", "opacities", "features", "world_to_camera", "intrinsics")
WIDTH, HEIGHT = 50, 36


def _arrays(n=101, channels=3, seed=0):
  """Gaussians before, beside, behind and on the near plane of a turned camera; n is no multiple of sixteen."""
  rng = np.random.default_rng(seed)
  means = rng.normal(size=(n, 3)) * [0.4, 0.3, 0.25]
  axes = rng.normal(size=(n, 3, 3)) * 0.03 * np.exp(rng.normal(size=(n, 1, 1)))
  world_to_camera = np.eye(4)
  world_to_camera[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)) * 0.2 + np.diag([1, -1, -1]))[0] * [[-1], [1], [1]]
  world_to_camera[:3, 3] = [0.02, -0.03, 0.5]
  intrinsics = np.asarray([[60, 0, 24.3], [0, 64, 19.1], [0, 0, 1]])
  given = (means, axes @ axes.swapaxes(1, 2), rng.uniform(0.02, 1, n), rng.uniform(size=(n, channels)), world_to_camera, intrinsics)
  return {name: np.asarray(value, np.float32) for name, value in zip(NAMES, given, strict=True)}


def _projected(arrays, backend, **settings):
  return project(*(jnp.asarray(arrays[name]) for name in NAMES), width=WIDTH, height=HEIGHT, backend=backend, **settings)


def _gradient(arrays, backend, seed=1):
  def loss(arrays):
    made = _projected(arrays, backend)
    rng = np.random.default_rng(seed)
    return sum(jnp.sum(part * jnp.asarray(rng.normal(size=part.shape), part.dtype)) for part in made)

  return jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, arrays))


@pytest.fixture(params=[*native.SIMD, pytest.param("pallas", marks=pytest.mark.slow)])
def backend(request, monkeypatch):
  """Its name; the compiled one in each of its instruction sets, the GPU's in an interpreter where there is no GPU."""
  if request.param == "pallas":
    monkeypatch.setenv(triton.INTERPRET, "interpret")
    return "pallas"
  assert native.why_not() is None  # built wherever tests run
  if not native.load().silky_runs(native.SIMD.index(request.param)):
    pytest.skip(f"this processor has no {request.param}")
  monkeypatch.setenv("SILKY_SIMD", request.param)
  return "cpu"


@pytest.mark.parametrize("seed", [0, 1])
def test_as_in_plain_jax(backend, seed):
  arrays = _arrays(seed=seed)
  found, wanted = _projected(arrays, backend), _projected(arrays, "xla")
  drawn = np.asarray(wanted.radii) > 0
  assert 20 < drawn.sum() < 95  # some are culled
  local = arrays["means"] @ arrays["world_to_camera"][:3, :3].T + arrays["world_to_camera"][:3, 3]
  beside = np.abs(local[:, 0] / local[:, 2]) > 1.3 * 0.5 * WIDTH / 60
  assert (drawn & beside).any()  # where the Jacobian is clamped
  for name, a, b in zip(found._fields, found, wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=name)
  one, other = _gradient(arrays, backend), _gradient(arrays, "xla")
  for name in NAMES:
    assert_gradients_close(one[name], other[name], TOLERANCES["float32"], name)


def test_a_broken_gaussian_is_culled_alone(backend):
  broken, whole = _arrays(), _arrays()
  where = np.flatnonzero(np.asarray(_projected(whole, backend).radii) > 0)[:8]
  values = [("means", np.nan), ("means", 1e13), ("covariances", np.inf), ("covariances", 1e13)]
  values += [("opacities", np.nan), ("opacities", 1e-3), ("features", np.nan), ("features", -np.inf)]
  for index, (name, value) in zip(where, values, strict=True):
    broken[name][index] = value
  found, wanted = _projected(broken, backend), _projected(whole, backend)
  others = np.setdiff1d(np.arange(len(whole["means"])), where)
  for name, a, b in zip(found._fields, found, wanted, strict=True):
    np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others], err_msg=name)
    np.testing.assert_array_equal(np.asarray(a)[where], np.broadcast_to([1.0, 0.0, 1.0], (8, 3)) if name == "conics" else 0, err_msg=name)
  for name, part in _gradient(broken, backend).items():
    assert np.isfinite(part).all(), name
    if name not in ("world_to_camera", "intrinsics"):
      assert not np.asarray(part)[where].any(), name


def test_needles_and_points_have_finite_gradients(backend):
  """Covariances that are nothing, a line, a plane: the low-pass alone keeps them invertible."""
  arrays = _arrays()
  arrays["covariances"][::3] = 0
  arrays["covariances"][1::3] = np.diag([1e-2, 0, 0])
  arrays["covariances"][2::3] = np.diag([1e-3, 1e-3, 1e-12])
  one, other = _gradient(arrays, backend), _gradient(arrays, "xla")
  for name in NAMES:
    assert np.isfinite(one[name]).all(), name
    assert_gradients_close(one[name], other[name], TOLERANCES["float32"], name)


def test_a_batch_of_cameras_is_one_call_and_equals_a_loop():
  arrays = jax.tree.map(jnp.asarray, _arrays())
  cameras = jnp.stack([arrays["world_to_camera"].at[2, 3].add(0.1 * k) for k in range(3)])
  draw = lambda camera: _projected(arrays | {"world_to_camera": camera}, "cpu")
  many = jax.jit(jax.vmap(draw))
  assert many.lower(cameras).compile().as_text().count('custom_call_target="silky_project_forward"') == 1
  for index, camera in enumerate(cameras):
    for a, b in zip(many(cameras), draw(camera), strict=True):
      np.testing.assert_array_equal(a[index], b)


def test_on_a_gpu_a_batch_is_one_launch_each_way(monkeypatch):
  arrays = jax.tree.map(jnp.asarray, _arrays(n=9))
  cameras = jnp.stack([arrays["world_to_camera"].at[2, 3].add(0.1 * k) for k in range(3)])
  monkeypatch.setattr(triton, "_why_not", lambda platform: None)

  def slopes(cameras):
    made, pull = jax.vjp(jax.vmap(lambda camera: _projected(arrays | {"world_to_camera": camera}, "pallas").means2d), cameras)
    return pull(made)

  assert sound_triton_kernels(slopes, cameras) == ["silky_project", "silky_project_transposed"]


def test_the_size_of_the_splat_and_near_are_respected(backend):
  arrays = _arrays()
  thin, thick = (_projected(arrays, backend, low_pass=value) for value in (0.1, 2.0))
  both = (np.asarray(thin.radii) > 0) & (np.asarray(thick.radii) > 0)
  assert (np.asarray(thick.conics)[both, 0] < np.asarray(thin.conics)[both, 0]).all()
  far = _projected(arrays, backend, near=0.6)
  assert (np.asarray(far.depths)[np.asarray(far.radii) > 0] > 0.6).all() and (np.asarray(far.radii) > 0).sum() < both.sum()


@pytest.mark.parametrize("change", [{"width": 0}, {"height": -1}, {"n": 0}, {"c": 0}])
def test_sizes_that_are_nothing_are_named(change):
  ((name, value),) = change.items()
  arrays = _arrays(n=0) if name == "n" else _arrays(channels=0) if name == "c" else _arrays()
  sizes = {"width": 8, "height": 8} | ({name: value} if name in ("width", "height") else {})
  with pytest.raises(ValueError, match=f"{name}: expected at least 1"):
    project(*(jnp.asarray(arrays[key]) for key in NAMES), **sizes, backend="cpu")


def test_other_types_and_modes_go_to_plain_jax(x64):
  arrays = {name: jnp.asarray(value, jnp.float64) for name, value in _arrays().items()}
  moved = lambda shift: _projected(arrays | {"means": arrays["means"] + shift}, None).means2d
  value, slope = jax.jvp(moved, (jnp.zeros(()),), (jnp.ones(()),))
  assert value.dtype == jnp.float64 and np.isfinite(slope).all() and np.abs(slope).max() > 1
  with pytest.raises(NotImplementedError, match="takes float32 alone"):
    _projected(arrays, "cpu")
