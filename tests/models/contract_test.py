"""What every family must keep: the same demands for each row of FAMILIES."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.config import ConfigError
from silky_jax.models.avatar import FAMILIES, make
from silky_jax.models.drive import make_renderer
from silky_jax.models.protocol import Measured
from silky_jax.models.silky import SilkyConfig
from silky_jax.render.pipeline import RenderConfig
from silky_jax.types import Prediction, Variables

# Small settings per family; every family needs a row.
SMALL = {"silky": SilkyConfig(uv_size=24, width=8, depth=2, frequencies=2)}
RENDER = RenderConfig(capacity=16384)


def test_every_family_is_tested():
  assert set(SMALL) == set(FAMILIES)


@pytest.fixture(scope="module", params=sorted(SMALL))
def avatar(request):
  return make(request.param, SMALL[request.param])


@pytest.fixture(scope="module")
def deform(avatar):
  return jax.jit(avatar.deform)


@pytest.fixture(scope="module")
def variables(avatar, rig, subject):
  """Trained-looking: every parameter off its start."""
  start = avatar.init(jax.random.key(0), rig, subject)
  leaves, tree = jax.tree.flatten(start.params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  moved = [leaf + 0.02 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
  return start.replace(params=tree.unflatten(moved))


def test_init_shapes_from_eval_shape(avatar, rig, subject):
  shapes = jax.eval_shape(lambda key, who: avatar.init(key, rig, who), jax.random.key(0), subject)
  real = avatar.init(jax.random.key(0), rig, subject)
  assert jax.tree.map(lambda a: (a.shape, a.dtype), shapes) == jax.tree.map(lambda a: (a.shape, a.dtype), real)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(real))
  assert all(type(group) is dict for group in (real.params, real.buffers))


def test_products_are_exact_on_every_device(avatar, variables, rig, make_frame):
  frame = make_frame()
  batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], frame)

  def terms(variables, rig, frame):
    gaussians, aux = jax.tree.map(lambda leaf: leaf[None, None], avatar.deform(variables, rig, frame))
    own = avatar.regularize(variables, rig, batch, Prediction(gaussians, None, None, aux))
    return {name: value for name, value in own.items() if not callable(value)}

  for function in (avatar.deform, terms):
    products = [line for line in jax.jit(function).lower(variables, rig, frame).as_text().splitlines() if "stablehlo.dot_general" in line]
    assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_gaussians_are_finite_and_positive_definite(avatar, deform, variables, rig, make_frame):
  for strength in (0.0, 1.0, 5.0):
    gaussians, aux = deform(variables, rig, make_frame(strength=strength))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gaussians, aux)))
    covariances = np.asarray(gaussians.covariances, np.float64)
    np.testing.assert_allclose(covariances, covariances.swapaxes(-1, -2), rtol=1e-5, atol=1e-10)
    assert np.linalg.eigvalsh(covariances).min() > 0
    assert ((gaussians.opacities >= 0) & (gaussians.opacities <= 1)).all()
    assert gaussians.features.shape == (len(covariances), avatar.features)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def _loss_and_gradient(avatar, params, buffers, rig, frame):
  variables = Variables(params, buffers)
  gaussians, aux = avatar.deform(variables, rig, frame)
  clip = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, 4, *leaf.shape)), frame).replace(time=0.04 * jnp.arange(4.0)[None])
  prediction = Prediction(jax.tree.map(lambda x: x[None, None], gaussians), None, None, jax.tree.map(lambda x: x[None, None], aux))
  terms = [term() if callable(term) else term for term in avatar.regularize(variables, rig, clip, prediction).values()]
  terms = [term.value if isinstance(term, Measured) else term for term in terms]
  return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gaussians)) + sum(terms)


@pytest.mark.parametrize("trained", [False, True])
def test_regularizers_are_scalars_and_gradients_finite(avatar, variables, rig, subject, make_frame, trained):
  state = variables if trained else avatar.init(jax.random.key(0), rig, subject)
  value, gradient = _loss_and_gradient(avatar, state.params, state.buffers, rig, make_frame())
  assert value.shape == () and np.isfinite(value)  # regularizers included
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  if trained:
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_one_compile_for_three_frames(deform, variables, rig, make_frame):
  for seed in range(3):
    deform(variables, rig, make_frame(seed))
  assert deform._cache_size() <= 2  # frames with and without pictures


def test_vmapped_frames_and_subjects_equal_a_loop(avatar, deform, variables, rig, subject, make_frame):
  other = avatar.init(jax.random.key(5), rig, subject.replace(shape=-subject.shape))
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), variables, other)
  frames = [make_frame(seed) for seed in (1, 2)]
  together = jax.jit(jax.vmap(avatar.deform, in_axes=(0, None, 0)))(stacked, rig, jax.tree.map(lambda *x: jnp.stack(x), *frames))
  for i, (state, frame) in enumerate(zip((variables, other), frames, strict=True)):
    one = deform(state, rig, frame)
    jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=5e-5), together, one)


def test_jit_equals_no_jit(avatar, deform, variables, rig, make_frame):
  frame = make_frame(3)
  plain, compiled = avatar.deform(variables, rig, frame), deform(variables, rig, frame)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), plain, compiled)


def test_pictures_are_not_looked_at(deform, variables, rig, make_frame):
  frame = make_frame()
  blind = frame.replace(image=None, mask=None, parts=None, landmarks=None)
  jax.tree.map(np.testing.assert_array_equal, deform(variables, rig, frame), deform(variables, rig, blind))


def test_renders(avatar, variables, rig, make_frame):
  result = make_renderer(avatar, RENDER)(variables, rig, make_frame(strength=0.0), jnp.zeros(3))
  assert result.image.shape == (48, 48, 3) and int(result.overflow) == 0
  assert np.isfinite(result.image).all() and 0.05 < float(jnp.mean(result.alpha)) < 0.9


def test_paint_changes_no_shape(avatar, variables, rig, make_frame):
  if avatar.paint is None:
    pytest.skip("this family takes nothing from pictures before step 0")
  frames = jax.tree.map(lambda *x: jnp.stack(x), make_frame(1), make_frame(2))
  painted = jax.jit(avatar.paint)(variables, rig, frames)
  assert jax.tree.map(jnp.shape, painted) == jax.tree.map(jnp.shape, variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(painted.params))


def test_unknown_names_are_refused():
  with pytest.raises(ConfigError, match="no avatar family 'silk'; did you mean 'silky'"):
    make("silk", SMALL["silky"])
  with pytest.raises(ConfigError, match="'silky' wants a SilkyConfig, got float"):
    make("silky", math.pi)
