"""The physics term where it could break: a test for each singular case and for input at the edge. float32, jitted, all slopes looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.physics import consistency
from silky_jax.physics.term import PhysicsConfig, physics_term
from tests.physics.clips import ABSOLUTE, FRAMES, GROUPS, advected, assert_finite, clip, judge, only

ALL = PhysicsConfig()
FIRST = PhysicsConfig(predictor="airm1")
MESH = PhysicsConfig(predictor="mesh")
BOTH = PhysicsConfig(sided="both")


def _deviations(motion, *millimetres):
  """The clip with these deviations in all frames."""
  logs = jnp.log(jnp.asarray(millimetres, jnp.float32) * 1e-3)
  return motion._replace(log_deviations=jnp.broadcast_to(logs, motion.log_deviations.shape))


def _turning(motion, seed=7):
  """The clip with axes that turn anyhow from frame to frame."""
  return motion._replace(quaternions=jnp.asarray(np.random.default_rng(seed).normal(size=motion.quaternions.shape), jnp.float32))


def _sound(motion, config):
  result, slopes = judge(motion, config)
  assert_finite(result, slopes)
  assert -1e-6 < result.value <= 1
  return result, slopes


@pytest.mark.parametrize("config", [ALL, ABSOLUTE], ids=["anchor", "absolute"])
def test_case_underflowing_sigma(config):
  """A deviation that is 0 in float32 counts as 0.05 mm, and has no slope: alone, in a plate, in all axes."""
  motion = clip(wild=1.0)
  gone = motion.log_deviations.at[..., :4, 0].set(-200.0).at[:, 2, 4:8].set(-jnp.inf).at[..., 8:, :].set(-120.0)
  result, slopes = _sound(motion._replace(log_deviations=gone), config)
  wanted = judge(motion._replace(log_deviations=jnp.maximum(gone, np.log(0.05e-3))), config)[0]
  np.testing.assert_allclose(result.value, wanted.value, rtol=1e-5)
  assert not np.asarray(slopes.log_deviations)[np.asarray(gone) < -100].any()
  assert np.abs(slopes.log_deviations).max() > 0 and np.abs(slopes.residuals).max() > 0


@pytest.mark.parametrize("config", [ALL, ABSOLUTE], ids=["anchor", "absolute"])
def test_case_needles_of_a_condition_above_a_million(config):
  needles = _deviations(clip(), 0.05, 60.0, 0.05)
  assert (60 / 0.05) ** 2 > 1e6
  result, slopes = _sound(_turning(needles), config)
  assert result.value > 1e-3 and np.abs(slopes.quaternions).max() > 0
  # Where they stay as they are the term hears only what moves them.
  still = needles._replace(residuals=jnp.zeros_like(needles.residuals))
  if config.mode == "anchor":
    assert abs(_sound(still, config)[0].value) < 1e-4  # rounding, at a condition of a million


def test_case_equal_states():
  """All frames the same: no distance, and no slope, where a root would have an infinite one."""
  motion = clip(wild=1.0)
  first = lambda x: jnp.broadcast_to(x[:, :1], x.shape)
  same = motion._replace(**{name: first(getattr(motion, name)) for name in ("residuals", "anchors", "carried", "log_deviations")})
  for config in (ALL, ABSOLUTE, BOTH):
    result, slopes = _sound(same, config)
    assert abs(result.value) < 1e-6 and (result.rms < 1e-4).all()
    for name in ("quaternions", "log_deviations"):
      assert np.abs(getattr(slopes, name)).max() < 1e-5, name
    assert np.abs(slopes.residuals).max() < 1e-2  # per metre


def test_case_isotropic():
  """No axes are to be seen, so none are heard: any others give the same, and turning has no slope."""
  round_ = _deviations(clip(wild=1.0), 3.0, 3.0, 3.0)
  for config in (ALL, ABSOLUTE):
    result, slopes = _sound(round_, config)
    np.testing.assert_allclose(_sound(_turning(round_), config)[0].value, result.value, rtol=1e-5)
    assert np.abs(slopes.quaternions).max() < 1e-6
    assert np.abs(slopes.log_deviations).max() > 1e-6


def test_case_a_quaternion_and_its_negative_and_permuted_axes():
  """Neither the sign nor the order of axes is in a covariance, in whichever frames they change."""
  motion = _turning(clip(wild=0.3))
  wanted, slopes = _sound(motion, ALL)
  sign = jnp.asarray(np.random.default_rng(1).choice([-1.0, 1.0], (1, FRAMES, 12, 1)), jnp.float32)
  result, others = _sound(motion._replace(quaternions=sign * motion.quaternions), ALL)
  np.testing.assert_allclose(result.value, wanted.value, rtol=1e-6)
  np.testing.assert_allclose(sign * others.quaternions, slopes.quaternions, atol=1e-6)
  # q (1 + i + j + k) / 2 takes x to y, y to z and z to x.
  w, x, y, z = jnp.moveaxis(motion.quaternions, -1, 0)
  turned = 0.5 * jnp.stack([w - x - y - z, w + x + y - z, w - x + y + z, w + x - y + z], axis=-1)
  odd = jnp.asarray(np.arange(FRAMES) % 2 == 1)[None, :, None, None]
  permuted = motion._replace(
    quaternions=jnp.where(odd, turned, motion.quaternions),
    log_deviations=jnp.where(odd, jnp.roll(motion.log_deviations, -1, axis=-1), motion.log_deviations),
  )
  result, others = _sound(permuted, ALL)
  np.testing.assert_allclose(result.value, wanted.value, rtol=1e-5)
  np.testing.assert_allclose(others.residuals, slopes.residuals, atol=1e-3 * float(jnp.abs(slopes.residuals).max()))


def test_case_an_ill_conditioned_covariance_before_the_last():
  """S1 S2^-1 S1 of a flake 0.05 mm thick before a ball of 3 mm is 180 mm wide; the tangent is shortened, so it is believed 6 mm at most."""
  flat = _deviations(clip(), 3.0, 3.0, 3.0)
  flat = flat._replace(log_deviations=flat.log_deviations.at[:, 1, :, 0].set(np.log(0.05e-3)), opacities=only(3, 2))
  result, slopes = _sound(flat, FIRST)
  assert np.abs(slopes.log_deviations[0, 1]).max() < np.inf
  hellinger = lambda wide: 1 - np.sqrt(3 * wide) / np.sqrt((3**2 + wide**2) / 2)
  assert 0.05 < result.value < hellinger(6.01 * np.sqrt(2)) < 0.9 < hellinger(180) + 0.2


@pytest.mark.parametrize(
  ("change", "left"),
  [
    ({}, [3, 4, 5]),
    ({"shots": [0, 1, 1, 1, 1, 1]}, [4, 5]),
    ({"shots": [0, 0, 0, 0, 1, 1]}, [3]),
    ({"shots": [0, 0, 0, 1, 1, 1]}, []),
    ({"valid": [True, False, True, True, True, True]}, [5]),
    ({"valid": [True, True, True, True, True, False]}, [3, 4]),
    ({"valid": [False] * 6}, []),
    ({"times": [0.0, 0.04, 0.08, 0.12, 0.12, 0.12]}, [3]),
  ],
  ids=["first frames", "cut early", "cut late", "cut amid", "gap", "padded", "nothing there", "time stands still"],
)
def test_case_first_frames_cuts_and_missing_frames(change, left):
  """Frames with too little behind them have no weight; where none is left there is neither value nor slope, and what was known stays."""
  motion = clip(wild=1.0)._replace(**{name: jnp.asarray([x]) for name, x in change.items()})
  memory = jnp.full(GROUPS, 0.7)
  result, slopes = judge(motion, ALL, memory)
  assert_finite(result, slopes)
  heard = [k for k in range(FRAMES) if judge(motion._replace(opacities=only(k, 0)), ALL)[0].value > 0]
  assert heard == left
  if left:
    assert result.value > 1e-3 and np.abs(slopes.residuals).max() > 0
    assert not np.asarray(slopes.residuals[0, max(left) + 1 :]).any()
  else:
    np.testing.assert_array_equal(result.rms, memory)
    assert result.value == 0 and not np.asarray(slopes.residuals).any() and not np.asarray(slopes.log_deviations).any()


def test_case_mirrored_and_degenerate_triangles():
  """Where a triangle of frame 3 is of no use, frames 3 and 4 of that Gaussian alone go by their past (airm1), with numbers for slopes."""
  motion = advected()
  base = motion.edges[0, 3]
  spoilt = base.at[0, :, 2].multiply(-1)  # mirrored
  spoilt = spoilt.at[1, :, 1].set(spoilt[1, :, 0]).at[1, :, 2].set(0)  # flat, no normal
  spoilt = spoilt.at[2].set(0)  # a point
  spoilt = spoilt.at[3, :, 1].set(1.0001 * spoilt[3, :, 0])  # flat, with a normal
  spoilt = spoilt.at[4].set(jnp.nan)
  spoilt = motion._replace(edges=motion.edges.at[0, 3].set(spoilt))
  slopes = _sound(spoilt, MESH)[1]
  assert not np.asarray(slopes.edges[0, 3, :5]).any() and np.abs(slopes.edges[0, 3, 5]).max() > 0
  plain = motion._replace(edges=None)
  for frame, gaussian in [*((3, i) for i in range(6)), (4, 0), (4, 4), (5, 0)]:
    found = judge(spoilt._replace(opacities=only(frame, gaussian)), MESH)[0].value
    if gaussian < 5 and frame < 5:
      np.testing.assert_allclose(found, judge(plain._replace(opacities=only(frame, gaussian)), FIRST)[0].value, rtol=1e-6)
      assert found > 1e-4
    else:
      assert abs(found) < 2e-6


# ---- input at the edge -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [ALL, BOTH, FIRST], ids=["past", "both", "airm1"])
@pytest.mark.parametrize("short_of", [1, 2, 3])
def test_windows_shorter_than_their_history(config, short_of):
  """No frame to predict, down to no frame at all: no cost, and the memory is handed on."""
  frames = max(config.frames - short_of, 0)
  memory = jnp.arange(GROUPS, dtype=jnp.float32)
  motion = jax.tree.map(lambda x: x[:, :frames] if x.ndim > 1 else x, clip(wild=1.0))
  result = physics_term(motion, config, GROUPS, memory)
  assert result.value == 0
  np.testing.assert_array_equal(result.rms, memory)


EXTREMES = {
  "dots": (1e-6, 1e-6, 1e-6),
  "clouds": (1e3, 1e3, 1e3),
  "needles": (1e-6, 1e-6, 1e3),
  "plates": (1e3, 1e-6, 1e3),
}


@pytest.mark.parametrize("config", [ALL, ABSOLUTE, FIRST, BOTH], ids=["anchor", "absolute", "airm1", "both"])
def test_deviations_at_the_edge_of_float32(config):
  """From a millionth of a millimetre to a metre, turning anyhow; and one after the other in one Gaussian."""
  for name, millimetres in EXTREMES.items():
    result, _ = _sound(_turning(_deviations(clip(), *millimetres)), config)
    assert result.value < 1, name
  logs = np.log(1e-3 * np.asarray(list(EXTREMES.values()), np.float32))
  mixed = np.random.default_rng(4).integers(0, 4, (1, FRAMES, 12))
  _sound(_turning(clip())._replace(log_deviations=jnp.asarray(logs[mixed])), config)


@pytest.mark.parametrize("measure", ["hellinger", "bhattacharyya", "airm", "w2"])
def test_measures_at_the_edge_of_float32(measure):
  """Each extreme against each, and against a head's own size, blurred by half a millimetre: numbers."""
  sizes = np.asarray([*EXTREMES.values(), (3.0, 3.0, 3.0)])
  turned = np.linalg.qr(np.random.default_rng(5).normal(size=(25, 3, 3)))[0]
  made = turned @ (sizes[np.arange(25) % 5, :, None] ** 2 * turned.swapaxes(1, 2))
  a, b = jnp.asarray(made, jnp.float32), jnp.asarray(made[np.arange(25) // 5], jnp.float32)
  means = jnp.asarray(np.random.default_rng(6).normal(size=(2, 25, 3)) * 5, jnp.float32)

  def loss(means, a, b):
    values = consistency.adaptive_distance(means[0], a, means[1], b, jnp.full(25, 0.5), measure=measure)
    return values.sum(), values

  (_, values), slopes = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(means, a, b)
  assert np.isfinite(values).all() and (values > -1e-4).all()
  assert all(np.isfinite(s).all() for s in slopes)


# ---- numeric anchor 6 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["isotropic", "identical", "random", "needles", "inertia"])
def test_anchor_6_the_whole_loss_in_single_precision(state):
  """Absolute, airm2, blurred by 0.5 mm: finite everywhere; nothing for equal frames, below 1e-6 for even acceleration along a geodesic."""
  motion = clip(wild=2.0)
  eye = jnp.broadcast_to(jnp.asarray([1.0, 0, 0, 0]), motion.carried.shape)
  motion = _turning(_deviations(motion, 3.0, 3.0, 3.0))._replace(anchors=jnp.zeros_like(motion.anchors), carried=eye)
  first = lambda x: jnp.broadcast_to(x[:, :1], x.shape)
  spread = jnp.asarray(np.random.default_rng(8).normal(size=motion.log_deviations.shape), jnp.float32)
  if state == "identical":
    motion = motion._replace(residuals=first(motion.residuals), quaternions=first(motion.quaternions))
    motion = motion._replace(log_deviations=first(motion.log_deviations + 0.5 * spread))
  elif state == "random":
    motion = motion._replace(log_deviations=motion.log_deviations + spread)
  elif state == "needles":
    motion = _deviations(motion, 0.05, 20.0, 3.0)
  elif state == "inertia":
    frame = jnp.arange(FRAMES, dtype=jnp.float32)[None, :, None, None]
    motion = motion._replace(
      residuals=first(motion.residuals) + 1e-3 * (frame * spread[:, :1] + 0.1 * frame**2 * spread[:, 1:2]),
      log_deviations=first(motion.log_deviations) + 0.05 * frame * spread[:, 2:3],
      quaternions=first(motion.quaternions),
    )
  result, slopes = _sound(motion, ABSOLUTE)
  if state in ("identical", "inertia"):
    assert abs(result.value) < 1e-6
  if state == "identical":
    assert np.abs(slopes.log_deviations).max() < 1e-5 and np.abs(slopes.residuals).max() < 1e-2  # per metre
  if state == "random":
    assert np.abs(slopes.residuals).max() > 1e-3
