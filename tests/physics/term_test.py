"""The physics term of a clip: nothing for motion by inertia, in both modes; windows, cuts, padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics.term import Motion, PhysicsConfig, physics_term

ALL = PhysicsConfig()
whole = jax.jit(physics_term, static_argnames=("config", "group_count"))


def term(clip, config, group_count):
  return whole(clip, config, group_count).value


def _clip(t=6, n=40, seed=0, wild=0.0):
  """Residuals that accelerate evenly, covariances on a geodesic; `wild` mm of noise on the residuals."""
  rng = np.random.default_rng(seed)
  frame = np.arange(t)[:, None, None]
  residuals = rng.normal(size=(n, 3)) * 2e-3 + frame * rng.normal(size=(n, 3)) * 1e-4 + frame**2 * rng.normal(size=(n, 3)) * 2e-5
  residuals = residuals + wild * 1e-3 * rng.normal(size=residuals.shape)
  deviations = np.log(3e-3) + rng.normal(size=(n, 3)) * 0.4 + frame * rng.normal(size=(n, 3)) * 0.03
  turned = rng.normal(size=(n, 4))
  anchors = rng.normal(size=(n, 3)) * 0.05 + 0.004 * np.sin(frame * 1.7 + rng.uniform(0, 6, (n, 1)))
  carried = np.concatenate([np.ones((t, n, 1)), rng.normal(size=(t, n, 3)) * 0.1], axis=-1)
  f = lambda x: jnp.asarray(np.broadcast_to(x, (1, t, *np.shape(x)[-2:])), jnp.float32)
  return Motion(
    times=jnp.arange(t, dtype=jnp.float32)[None] * 0.04,
    valid=jnp.ones((1, t), bool),
    shots=jnp.zeros((1, t), jnp.int32),
    residuals=f(residuals),
    anchors=f(anchors),
    carried=f(carried),
    quaternions=f(np.broadcast_to(turned, (t, n, 4))),
    log_deviations=f(deviations),
    opacities=jnp.full((1, t, n), 0.8),
    groups=jnp.asarray(np.arange(n) % 3),
  )


def test_inertia_costs_nothing_and_noise_does():
  assert abs(float(term(_clip(), ALL, 3))) < 5e-5
  mild, strong = (float(term(_clip(wild=w), ALL, 3)) for w in (0.1, 1.0))
  assert 5e-4 < mild < strong < 1


def test_the_mesh_may_move_as_it_likes_in_anchor_mode_only():
  absolute = dataclasses.replace(ALL, mode="absolute")
  assert abs(float(term(_clip(), ALL, 3))) < 5e-5 < float(term(_clip(), absolute, 3))
  # Where the surface jerks, inertia is trusted less: without that the same motion costs more.
  trusting = dataclasses.replace(absolute, jerk_scale=1e3, blur_gain=0.0)
  assert float(term(_clip(), dataclasses.replace(absolute, blur_gain=0.0), 3)) < float(term(_clip(), trusting, 3))


@pytest.mark.parametrize("change", ["short", "cut", "missing"])
def test_what_cannot_be_predicted_costs_nothing(change):
  clip = _clip(t=3 if change == "short" else 4, wild=1.0)
  if change == "cut":
    clip = clip._replace(shots=jnp.asarray([[0, 0, 1, 1]]))
  elif change == "missing":
    clip = clip._replace(valid=jnp.asarray([[True, False, True, True]]))
  loss = lambda r: physics_term(clip._replace(residuals=r), ALL, 3).value
  value, slope = jax.jit(jax.value_and_grad(loss))(clip.residuals)
  assert value == 0 and not np.asarray(slope).any()


def test_a_padded_clip_equals_the_clip():
  """Padding repeats the last frame, in time too, and is marked."""
  clip = _clip(t=5, wild=0.5)
  again = lambda x: jnp.concatenate([x, x[:, -1:]], axis=1)
  padded = clip._replace(**{name: again(getattr(clip, name)) for name in clip._fields if name not in ("groups", "valid")})
  padded = padded._replace(valid=jnp.asarray([[True] * 5 + [False]]))
  assert float(term(clip, ALL, 3)) > 1e-3
  np.testing.assert_allclose(term(padded, ALL, 3), term(clip, ALL, 3), rtol=1e-5)
  slopes = jax.grad(lambda r: physics_term(padded._replace(residuals=r), ALL, 3).value)(padded.residuals)
  assert np.isfinite(slopes).all()


@pytest.mark.parametrize("predictor", ["airm1", "logeuclid2", "bures1"])
def test_other_predictors_and_orders_are_finite_and_hear_noise(predictor):
  config = dataclasses.replace(ALL, predictor=predictor, order=1)
  clip = _clip(wild=0.5)
  value, slopes = jax.jit(jax.value_and_grad(lambda c: physics_term(c, config, 3).value, allow_int=True))(clip)
  assert 1e-3 < value < 1
  assert all(np.isfinite(s).all() for s in (slopes.residuals, slopes.quaternions, slopes.log_deviations))


def test_two_clips_are_a_mean():
  one, other = _clip(seed=1, wild=0.5), _clip(seed=2, wild=1.0)
  config = dataclasses.replace(ALL, blur_gain=0.0)
  stack = lambda a, b: jnp.concatenate([a, b]) if a.ndim > 1 else a
  both = jax.tree.map(stack, one, other)
  np.testing.assert_allclose(term(both, config, 3), 0.5 * (term(one, config, 3) + term(other, config, 3)), rtol=1e-5)


def test_the_blur_remembers():
  """A step of much noise after calm ones is blurred by a tenth of itself; what was not seen keeps its memory; a first step is its own."""
  calm, wild = _clip(wild=0.2), _clip(wild=4.0)
  first = whole(calm, ALL, 4)  # the fourth group has no member
  np.testing.assert_array_equal(whole(calm, ALL, 4, jnp.zeros(4)).rms, first.rms)
  assert (first.rms[:3] > 0.1).all() and first.rms[3] == 0
  alone = whole(wild, ALL, 4)
  after = whole(wild, ALL, 4, first.rms.at[3].set(7.0))
  np.testing.assert_allclose(after.rms, [*(0.9 * first.rms[:3] + 0.1 * alone.rms[:3]), 7.0], rtol=1e-5)
  assert after.value > alone.value  # less blurred, so nearer to 1
  forgetful = whole(wild, dataclasses.replace(ALL, blur_memory=0.0), 4, first.rms)
  np.testing.assert_allclose(forgetful.rms, alone.rms, rtol=1e-5)
  unseen = whole(wild._replace(valid=jnp.zeros((1, 6), bool)), ALL, 4, first.rms)
  np.testing.assert_array_equal(unseen.rms, first.rms)
  assert unseen.value == 0
