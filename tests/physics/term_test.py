"""The physics term of a clip: nothing for motion by inertia, in both modes and from both sides; windows, cuts, padding, memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics.term import PhysicsConfig, physics_term
from tests.physics.clips import ABSOLUTE, GROUPS, advected, assert_finite, clip, judge, only

ALL = PhysicsConfig()
BOTH = PhysicsConfig(sided="both")
MESH = PhysicsConfig(predictor="mesh")


def value(motion, config=ALL):
  return float(judge(motion, config)[0].value)


def _trust(motion):
  """The weights of mode "absolute", [u n], by NumPy."""
  x = 1e3 * np.asarray(motion.anchors[0], np.float64)
  jerk = x[3:] - 3 * x[2:-1] + 3 * x[1:-2] - x[:-3]
  return 1 / (1 + np.sum(jerk**2, axis=-1))


def test_inertia_costs_nothing_and_noise_does():
  assert abs(value(clip())) < 5e-5
  mild, strong = (value(clip(wild=w)) for w in (0.1, 1.0))
  assert 5e-4 < mild < strong < 1


def test_the_mesh_may_move_as_it_likes_in_anchor_mode_only():
  motion = clip()
  assert abs(value(motion)) < 5e-5 < value(motion, ABSOLUTE)
  # Where the surface jerks more, inertia is trusted less: a mean of two Gaussians in one frame leans to the calmer.
  alone = [value(motion._replace(opacities=only(4, k)), ABSOLUTE) for k in (0, 1)]
  trust = _trust(motion)[1, :2]
  assert abs(trust[0] / trust[1] - 1) > 0.2
  pair = value(motion._replace(opacities=only(4, 0) + only(4, 1)), ABSOLUTE)
  np.testing.assert_allclose(pair, np.average(alone, weights=trust), rtol=1e-3)


def test_a_padded_clip_equals_the_clip():
  """Padding repeats the last frame, in time too, and is marked."""
  short = clip(t=5, wild=0.5)
  again = lambda x: jnp.concatenate([x, x[:, -1:]], axis=1)
  padded = short._replace(**{name: again(x) for name, x in short._asdict().items() if name not in ("groups", "valid", "edges")})
  padded = padded._replace(valid=jnp.asarray([[True] * 5 + [False]]))
  wanted = jax.jit(lambda c: physics_term(c, ALL, GROUPS).value)(short)
  result, slopes = judge(padded, ALL)
  assert wanted > 1e-3
  np.testing.assert_allclose(result.value, wanted, rtol=1e-5)
  assert_finite(result, slopes)


@pytest.mark.parametrize(("predictor", "order"), [("airm1", 2), ("logeuclid2", 1), ("bures1", 1)])
def test_other_predictors_and_orders_are_finite_and_hear_noise(predictor, order):
  result, slopes = judge(clip(wild=0.5), dataclasses.replace(ALL, predictor=predictor, order=order))
  assert 1e-3 < result.value < 1
  assert_finite(result, slopes)


def test_two_clips_are_a_mean():
  one, other = clip(seed=1, wild=0.5), clip(seed=2, wild=1.0)
  both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]) if a.ndim > 1 else a, one, other)
  found = [judge(motion, ABSOLUTE)[0].value for motion in (both, one, other)]
  weights = [_trust(motion).sum() for motion in (one, other)]
  np.testing.assert_allclose(found[0], np.average(found[1:], weights=weights), rtol=1e-5)


def test_the_blur_remembers():
  """A step of much noise after calm ones is blurred by a tenth of itself; what was not seen keeps its memory; a first step is its own."""
  calm, wild = clip(wild=0.2), clip(wild=4.0)
  first, alone = judge(calm, ALL)[0], judge(wild, ALL)[0]
  assert (first.rms[:3] > 0.1).all() and first.rms[3] == 0
  after = judge(wild, ALL, first.rms.at[3].set(7.0))[0]
  np.testing.assert_allclose(after.rms, [*(0.9 * first.rms[:3] + 0.1 * alone.rms[:3]), 7.0], rtol=1e-5)
  assert after.value > alone.value  # less blurred, so nearer to 1
  unseen = judge(wild._replace(valid=jnp.zeros((1, 6), bool)), ALL, first.rms)[0]
  np.testing.assert_array_equal(unseen.rms, first.rms)
  assert unseen.value == 0
  short = physics_term(clip(t=3), ALL, GROUPS, first.rms)
  np.testing.assert_array_equal(short.rms, first.rms)
  np.testing.assert_array_equal(physics_term(clip(t=3), ALL, GROUPS).rms, np.zeros(GROUPS))


# ---- carried by the mesh ---------------------------------------------------------------------------------------------------------


def test_what_triangles_carry_costs_nothing_if_they_are_asked():
  """A jerky surface that shears: the covariances are where it carried them; their own past knows nothing of it."""
  motion = advected()
  result, slopes = judge(motion, MESH)
  assert abs(result.value) < 2e-6
  assert_finite(result, slopes)
  assert value(motion._replace(edges=None)) > 1e-3
  # The triangles are heard: others cost, and their slope is not zero.
  result, slopes = judge(motion._replace(edges=motion.edges[:, ::-1]), MESH)
  assert result.value > 1e-3 and np.abs(slopes.edges).max() > 0


def test_from_both_sides_triangles_carry_in_the_head_s_axes_too():
  even = advected()
  even = even._replace(anchors=jnp.zeros_like(even.anchors))  # an even motion of the means
  result, slopes = judge(even, dataclasses.replace(BOTH, predictor="mesh", mode="absolute"))
  assert abs(result.value) < 2e-6
  assert_finite(result, slopes)
  assert value(even._replace(edges=None), BOTH) > 1e-3


def test_mesh_without_triangles_says_so():
  with pytest.raises(ValueError, match=r"motion.edges: predictor 'mesh' wants \[b, t, n, 3, 3\].*got None"):
    physics_term(clip(), MESH, GROUPS)


# ---- from both sides -------------------------------------------------------------------------------------------------------------


def test_windows_are_as_long_as_they_say():
  settings = [ALL, BOTH, MESH, PhysicsConfig(order=1), PhysicsConfig(order=1, predictor="airm1"), PhysicsConfig(order=1, predictor="mesh")]
  assert [c.frames for c in settings] == [4, 3, 4, 4, 3, 3]
  assert all(c.history == c.frames - 1 for c in settings)
  term = jax.jit(lambda c, config: physics_term(c, config, GROUPS).value, static_argnames="config")
  for config in (ALL, BOTH):
    assert term(clip(t=config.frames, wild=1.0), config) > 1e-3
    assert term(clip(t=config.frames - 1, wild=1.0), config) == 0


def test_from_both_sides_even_motion_costs_nothing():
  """Lines and geodesics, at uneven times; what accelerates does cost, by half its second difference."""
  frame = jnp.asarray([0.0, 1.0, 1.7, 3.0, 4.0, 4.5])
  wavy = clip()
  slope, growth = wavy.residuals[:, 1:2] - wavy.residuals[:, :1], wavy.log_deviations[:, 1:2] - wavy.log_deviations[:, :1]
  along = frame[None, :, None, None]
  even = wavy._replace(
    times=0.04 * frame[None],
    residuals=wavy.residuals[:, :1] + along * slope,
    log_deviations=wavy.log_deviations[:, :1] + along * growth,
  )
  assert abs(value(even, BOTH)) < 2e-6
  assert value(even._replace(times=wavy.times), BOTH) > 1e-5
  bent = even._replace(residuals=even.residuals.at[..., 0].add(1e-3 * frame[None, :, None] ** 2))
  result, slopes = judge(bent, BOTH)
  assert_finite(result, slopes)
  # x = f^2 between f1 and f2 is missed by (f - f1) (f2 - f) at f.
  misses = [(frame[k] - frame[k - 1]) * (frame[k + 1] - frame[k]) for k in range(1, 5)]
  np.testing.assert_allclose(result.rms[:3], np.sqrt(np.mean(np.square(misses))), rtol=1e-3)


def test_from_both_sides_the_future_is_heard():
  """One Gaussian in one frame: pulled by the frame before it, itself and the frame after it, and by nothing else."""
  for config, heard in ((BOTH, [2, 3, 4]), (ALL, [0, 1, 2, 3])):
    slopes = judge(clip(wild=1.0)._replace(opacities=only(3, 5)), config)[1]
    for slope in (slopes.residuals, slopes.log_deviations):
      loud = np.abs(np.asarray(slope[0])).max(axis=-1) > 0
      assert np.flatnonzero(loud.any(axis=1)).tolist() == heard
      assert np.flatnonzero(loud.any(axis=0)).tolist() == [5]


def test_from_both_sides_a_cut_parts_and_a_gap_is_left_out():
  motion = clip(wild=1.0)
  for change, left in (
    ({"shots": jnp.asarray([[0, 0, 0, 1, 1, 1]])}, [1, 4]),
    ({"valid": jnp.asarray([[True, True, True, True, False, True]])}, [1, 2]),
    ({"shots": jnp.asarray([[0, 0, 1, 1, 2, 2]])}, []),
  ):
    result, slopes = judge(motion._replace(**change), BOTH)
    assert_finite(result, slopes)
    costs = [k for k in range(6) if judge(motion._replace(opacities=only(k, 0), **change), BOTH)[0].value > 0]
    assert costs == left
