"""Covariances carried on: exact on the curves each predictor assumes, equivariant, short, finite."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from silky_jax.math import spd, symmetric3
from silky_jax.physics.transport import (
  LONGEST,
  between_covariances,
  deformation,
  history_of,
  predict_covariances,
  regular,
  transport_covariances,
)

PREDICTORS = ("airm1", "airm2", "logeuclid2", "bures1")
predict = jax.jit(predict_covariances, static_argnames=("predictor", "damping", "longest"))
geodesic = jax.jit(spd.geodesic, static_argnames="metric")


def _points(count=5, seed=0, spread=0.3):
  rng = np.random.default_rng(seed)
  axes = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
  made = np.einsum("nij,nj,nkj->nik", axes, 9 * np.exp(spread * rng.normal(size=(count, 3))), axes)
  made[0] = 9 * np.eye(3)
  return jnp.asarray(made)


def _times(*seconds):
  """Newest first, from oldest first."""
  return [jnp.asarray(t) for t in reversed(seconds)]


def _geodesic_history(predictor, times, seed=0):
  """On a geodesic of the predictor's metric: the frame to predict, then the history, newest first."""
  metric = {"logeuclid2": "log_euclidean", "bures1": "bures"}.get(predictor, "affine")
  a, b = _points(seed=seed), _points(seed=seed + 10)
  return [geodesic(a, b, t, metric=metric) for t in times]


@pytest.mark.parametrize("spacing", [(0.0, 0.1, 0.2, 0.3), (0.0, 0.05, 0.2, 0.27)], ids=["even", "uneven"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_geodesic_goes_on(x64, predictor, spacing):
  count = history_of(predictor)
  times = _times(*spacing)[: count + 1]
  target, *history = _geodesic_history(predictor, times)
  np.testing.assert_allclose(predict(history, times, predictor=predictor), target, rtol=1e-7, atol=1e-7)


def test_closed_forms(x64):
  times, (a, b) = _times(0.0, 1.0, 2.0), (_points(seed=1, spread=0.1), _points(seed=2, spread=0.1))
  np.testing.assert_allclose(predict([a, b], times, predictor="airm1"), a @ jnp.linalg.inv(b) @ a, rtol=1e-9, atol=1e-9)
  turn = 2 * spd.optimal_map(b, a) - jnp.eye(3)
  np.testing.assert_allclose(predict([a, b], times, predictor="bures1"), turn @ b @ turn, rtol=1e-8, atol=1e-8)
  c, times = _points(seed=3, spread=0.1), _times(0.0, 1.0, 2.0, 3.0)
  for k in range(len(a)):
    logs = [scipy.linalg.logm(np.asarray(m[k])) for m in (a, b, c)]
    flat = predict([a, b, c], times, predictor="logeuclid2")[k]
    np.testing.assert_allclose(flat, scipy.linalg.expm(3 * logs[0] - 3 * logs[1] + logs[2]), rtol=1e-8, atol=1e-8)
  first, second = -spd.log(a, b), spd.parallel_transport(b, a, -spd.log(b, c))
  np.testing.assert_allclose(predict([a, b, c], times, predictor="airm2"), spd.exp(a, 2 * first - second), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("predictor", ["airm1", "airm2"])
def test_anchor_4_a_linear_map_of_the_past_maps_the_prediction(x64, predictor):
  count = history_of(predictor)
  history, times = [_points(seed=k) for k in range(count)], _times(0.0, 0.04, 0.1, 0.13)[: count + 1]
  turn = jnp.asarray(np.random.default_rng(5).normal(size=(3, 3)))
  moved = predict([spd.congruence(turn, m) for m in history], times, predictor=predictor)
  np.testing.assert_allclose(moved, spd.congruence(turn, predict(history, times, predictor=predictor)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_no_past_predicts_more_than_a_doubling(predictor):
  """Needles, jumps of six orders of magnitude, ill-conditioned: finite, positive definite, within the longest step. float32."""
  count = history_of(predictor)
  extremes = [np.diag([0.0025, 400.0, 9.0]), np.eye(3) * 0.01, np.eye(3) * 1e4, np.diag([1e4, 0.01, 1.0])]
  rolled = [jnp.asarray(np.stack(extremes[k:] + extremes[:k]), jnp.float32) for k in range(count)]
  times = [jnp.asarray(t, jnp.float32) for t in (0.12, 0.08, 0.04, 0.0)][: count + 1]
  found = predict(rolled, times, predictor=predictor)
  assert np.isfinite(found).all() and (np.linalg.eigvalsh(np.asarray(found, np.float64)) > 0).all()
  if predictor != "logeuclid2":  # its norm is another one
    assert (spd.distance(rolled[0], found) < LONGEST * 1.05 + (predictor == "bures1")).all()
  slopes = jax.jit(jax.grad(lambda h: jnp.sum(predict_covariances(h, times, predictor=predictor))))(rolled)
  assert all(np.isfinite(s).all() for s in slopes)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_still_and_isotropic(predictor):
  """The first step of every training: prediction equals the past, and the gradient is finite. float32."""
  count = history_of(predictor)
  history = [jnp.broadcast_to(9 * jnp.eye(3), (4, 3, 3))] * count
  times = [jnp.asarray(t, jnp.float32) for t in (0.12, 0.08, 0.04, 0.0)][: count + 1]
  np.testing.assert_allclose(predict(history, times, predictor=predictor), history[0], atol=1e-5)
  weight = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 3)), jnp.float32)
  loss = lambda h: jnp.sum(predict_covariances(h, times, predictor=predictor) * weight)
  slopes = jax.jit(jax.grad(loss))(history)
  # Around equal covariances all predictors are the one of flat space: weights (3, -3, 1) or (2, -1).
  for slope, share in zip(slopes, (2, -1) if count == 2 else (3, -3, 1), strict=True):
    np.testing.assert_allclose(symmetric3.symmetric(slope), share * symmetric3.symmetric(weight), atol=2e-4)


@pytest.mark.parametrize("predictor", ["airm2", "logeuclid2", "bures1"])
def test_between_two_frames_is_on_their_geodesic(x64, predictor):
  """At a third of the time a third of the way, by distances that NumPy and SciPy know; at its ends the ends."""
  a, b = np.asarray(_points(seed=1)), np.asarray(_points(seed=2))
  way = jax.jit(lambda share: between_covariances(jnp.asarray(a), jnp.asarray(b), share, predictor=predictor))
  np.testing.assert_allclose(way(jnp.zeros(1)), a, rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(way(jnp.ones(1)), b, rtol=1e-9, atol=1e-9)
  found = np.asarray(way(jnp.full(1, 1 / 3)))
  root = lambda m: scipy.linalg.sqrtm(m).real
  distances = {
    "airm2": lambda p, q: np.linalg.norm(np.log(scipy.linalg.eigvalsh(q, p))),
    "logeuclid2": lambda p, q: np.linalg.norm(scipy.linalg.logm(p) - scipy.linalg.logm(q)),
    "bures1": lambda p, q: np.sqrt(np.trace(p + q - 2 * root(root(p) @ q @ root(p)))),
  }
  length = distances[predictor]
  for p, q, m in zip(a, b, found, strict=True):
    np.testing.assert_allclose([length(p, m), length(m, q)], length(p, q) * np.asarray([1 / 3, 2 / 3]), rtol=1e-6)


def test_damping_stands_still(x64):
  history = [_points(seed=k) for k in range(3)]
  np.testing.assert_allclose(predict(history, _times(0.0, 1.0, 2.0, 3.0), damping=0.0), history[0], rtol=1e-9, atol=1e-9)


def test_a_linear_motion_carries_a_gaussian_as_it_carries_its_points(x64):
  rng = np.random.default_rng(1)
  points, motion = rng.multivariate_normal(np.zeros(3), _points()[1], size=200_000), rng.normal(size=(3, 3))
  carried = transport_covariances(_points()[1:2], jnp.asarray(motion)[None])[0]
  np.testing.assert_allclose(carried, np.cov((points @ motion.T).T), rtol=0.05, atol=0.3)


def test_deformation_of_triangles(x64):
  rng = np.random.default_rng(2)
  rest = jnp.asarray(rng.normal(size=(3, 3, 3)))
  rest = rest * jnp.sign(symmetric3.determinant(rest))[:, None, None]
  motion = jnp.asarray(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
  np.testing.assert_allclose(deformation(motion @ rest, rest), jnp.broadcast_to(motion, (3, 3, 3)), atol=1e-9)
  mirrored, flat = rest * jnp.asarray([1.0, 1.0, -1.0]), rest.at[:, :, 1].set(rest[:, :, 0])
  for now, before in ((mirrored, rest), (flat, rest), (rest, flat)):
    np.testing.assert_array_equal(deformation(now, before), jnp.broadcast_to(jnp.eye(3), (3, 3, 3)))
    slope = jax.grad(lambda n, b: jnp.sum(deformation(n, b)), (0, 1))(now, before)
    assert all(np.isfinite(s).all() for s in slope)


def test_which_triangles_have_a_deformation():
  """Of a head's size in metres: what is thin but sound, and what is not."""
  plain = jnp.asarray([[1e-3, 0, 0], [0, 1e-3, 0], [0, 0, 1]])
  states = {
    "sound": (plain, True),
    "small": (plain * jnp.asarray([1e-2, 1e-2, 1]), True),
    "a sliver of a hundredth": (plain.at[:, 1].set(jnp.asarray([1e-3, 1e-5, 0])), True),
    "a sliver of a ten-thousandth": (plain.at[:, 1].set(jnp.asarray([1e-3, 1e-7, 0])), False),
    "flat": (plain.at[:, 1].set(plain[:, 0]).at[:, 2].set(0), False),
    "a point": (plain * jnp.asarray([0.0, 0, 0]), False),
    "below a micrometre": (plain * jnp.asarray([1e-4, 1e-4, 1]), False),
    "mirrored": (plain * jnp.asarray([1.0, 1, -1]), False),
    "not a number": (plain.at[0, 0].set(jnp.nan), False),
  }
  given, wanted = jnp.stack([m for m, _ in states.values()]), [fine for _, fine in states.values()]
  base = jnp.broadcast_to(plain, given.shape)
  assert regular(given, base).tolist() == regular(base, given).tolist() == wanted
  # No gradient of what there is not, and numbers all over.
  slopes = jax.grad(lambda n, b: jnp.sum(deformation(n, b)), (0, 1))
  for now, before in ((given, base), (base, given)):
    for slope in slopes(now, before):
      assert np.isfinite(slope).all() and [bool(np.asarray(s).any()) for s in slope] == wanted


def test_what_is_asked_for_wrongly():
  plain = inspect.unwrap(predict_covariances)
  one = jnp.eye(3)[None]
  with pytest.raises(ValueError, match="predictor: expected one of"):
    inspect.unwrap(history_of)("kalman")
  with pytest.raises(ValueError, match="'mesh' has no history"):
    plain([one], _times(0.0, 1.0), predictor="mesh")
  with pytest.raises(ValueError, match="airm2 wants 3 covariances and 4 times, got 2 and 3"):
    plain([one, one], _times(0.0, 1.0, 2.0), predictor="airm2")
