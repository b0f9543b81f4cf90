"""The SPD manifold: closed forms against SciPy, the laws that define each operation, gradients at equal eigenvalues."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from silky_jax.math import spd, symmetric3

# Compiled once per shape and metric: operation by operation they are slow.
exp, log, distance, geodesic, transport = (
  jax.jit(function, static_argnames="metric") for function in (spd.exp, spd.log, spd.distance, spd.geodesic, spd.parallel_transport)
)
METRICS = ("affine", "log_euclidean", "bures")


def _points(count=6, seed=0, spread=0.4):
  """Covariances in mm^2 about 9, isotropic ones among them."""
  rng = np.random.default_rng(seed)
  axes = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
  values = 9 * np.exp(spread * rng.normal(size=(count, 3)))
  made = np.einsum("nij,nj,nkj->nik", axes, values, axes)
  made[0] = 9 * np.eye(3)
  return jnp.asarray(made)


def _tangents(count=6, seed=1, size=1.0):
  return symmetric3.symmetric(jnp.asarray(np.random.default_rng(seed).normal(size=(count, 3, 3)) * size))


def _inner(metric, point, u, v):
  """The metric itself, in NumPy."""
  point, u, v = (np.asarray(m) for m in (point, u, v))
  if metric == "affine":
    back = np.linalg.inv(point)
    return np.trace(back @ u @ back @ v)
  if metric == "bures":  # <U, V>_P = tr(G_U P G_V), G P + P G = U
    g, h = (scipy.linalg.solve_continuous_lyapunov(point, m) for m in (u, v))
    return np.trace(g @ point @ h)
  step = 1e-5
  moves = [(scipy.linalg.logm(point + step * m) - scipy.linalg.logm(point - step * m)) / (2 * step) for m in (u, v)]
  return np.sum(moves[0] * moves[1])


@pytest.mark.parametrize("metric", METRICS)
def test_log_and_exp_undo_each_other(x64, metric):
  a, b = _points(seed=0), _points(seed=2)
  tangent = log(a, b, metric=metric)
  np.testing.assert_allclose(exp(a, tangent, metric=metric), b, rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(log(a, a, metric=metric), 0, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_distance_is_the_length_of_log_and_splits_along_the_geodesic(x64, metric):
  a, b = _points(seed=0), _points(seed=2)
  length = distance(a, b, metric=metric)
  for k in range(len(a)):
    tangent = log(a[k], b[k], metric=metric)
    np.testing.assert_allclose(length[k] ** 2, _inner(metric, a[k], tangent, tangent), rtol=1e-6)
  middle = geodesic(a, b, 0.3, metric=metric)
  np.testing.assert_allclose(distance(a, middle, metric=metric), 0.3 * length, rtol=1e-8)
  np.testing.assert_allclose(distance(middle, b, metric=metric), 0.7 * length, rtol=1e-8)
  np.testing.assert_allclose(length, distance(b, a, metric=metric), rtol=1e-9)


def test_distances_in_closed_form(x64):
  a, b = _points(seed=0), _points(seed=2)
  for k in range(len(a)):
    p, q = np.asarray(a[k]), np.asarray(b[k])
    values = scipy.linalg.eigvalsh(q, p)
    np.testing.assert_allclose(distance(a[k], b[k]), np.linalg.norm(np.log(values)), rtol=1e-9)
    flat = np.linalg.norm(scipy.linalg.logm(p) - scipy.linalg.logm(q))
    np.testing.assert_allclose(distance(a[k], b[k], metric="log_euclidean"), flat, rtol=1e-9)
    half = scipy.linalg.sqrtm(p)
    squared = np.trace(p) + np.trace(q) - 2 * np.trace(scipy.linalg.sqrtm(half @ q @ half))
    np.testing.assert_allclose(distance(a[k], b[k], metric="bures"), np.sqrt(squared.real), rtol=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_transport_is_an_isometry_that_turns_the_geodesic_into_itself(x64, metric):
  a, b = _points(seed=0), _points(seed=2)
  u, v = _tangents(seed=3), _tangents(seed=4)
  moved_u, moved_v = (transport(a, b, t, metric=metric) for t in (u, v))
  forward = transport(a, b, log(a, b, metric=metric), metric=metric)
  tolerance = 2e-5 if metric == "bures" else 1e-6  # eight Runge-Kutta steps
  for k in range(len(a)):
    np.testing.assert_allclose(
      _inner(metric, b[k], moved_u[k], moved_v[k]), _inner(metric, a[k], u[k], v[k]), rtol=tolerance, atol=tolerance * 0.1
    )
  np.testing.assert_allclose(forward, -log(b, a, metric=metric), rtol=tolerance, atol=20 * tolerance)
  back = transport(b, a, moved_u, metric=metric)
  np.testing.assert_allclose(back, u, atol=20 * tolerance)


def test_affine_geometry_is_unchanged_by_linear_maps(x64):
  a, b, tangent = _points(seed=0), _points(seed=2), _tangents()
  turn = jnp.asarray(np.random.default_rng(5).normal(size=(3, 3)))
  move = lambda m: spd.congruence(turn, m)
  np.testing.assert_allclose(distance(move(a), move(b)), distance(a, b), rtol=1e-8, atol=1e-12)
  np.testing.assert_allclose(exp(move(a), move(tangent)), move(exp(a, tangent)), rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(transport(move(a), move(b), move(tangent)), move(transport(a, b, tangent)), atol=1e-7)


def test_anchor_4_affine_closed_forms(x64):
  """Exp_Q(-Log_Q P) = Q P^-1 Q; E = (Q P^-1)^1/2 has E P E^T = Q, carries tangents, and keeps their length."""
  p, q, v = _points(seed=0), _points(seed=2), _tangents()
  np.testing.assert_allclose(exp(q, -log(q, p)), q @ jnp.linalg.inv(p) @ q, rtol=1e-9, atol=1e-9)
  for k in range(len(p)):
    e = scipy.linalg.sqrtm(np.asarray(q[k]) @ np.linalg.inv(p[k])).real
    np.testing.assert_allclose(e @ p[k] @ e.T, q[k], rtol=1e-9, atol=1e-9)
    moved = transport(p[k], q[k], v[k])
    np.testing.assert_allclose(moved, e @ v[k] @ e.T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(_inner("affine", q[k], moved, moved), _inner("affine", p[k], v[k], v[k]), rtol=1e-9)


def test_anchor_7_bures_closed_forms(x64):
  """T P T = Q; Exp_P(V) = P + V + G P G with G P + P G = V."""
  p, q, v = _points(seed=0), _points(seed=2), _tangents()
  found = exp(p, v, metric="bures")
  for k in range(len(p)):
    g = scipy.linalg.solve_continuous_lyapunov(np.asarray(p[k]), np.asarray(v[k]))
    np.testing.assert_allclose(found[k], p[k] + v[k] + g @ p[k] @ g, rtol=1e-9, atol=1e-9)
  t = spd.optimal_map(p, q)
  np.testing.assert_allclose(t @ p @ t, q, rtol=1e-9, atol=1e-9)


def test_bures_leaves_the_manifold_as_nan_never_as_an_indefinite_matrix(x64):
  p = jnp.eye(3) * 4
  assert np.isnan(exp(p, -p * 2.5, metric="bures")).all()
  assert np.isfinite(exp(p, -p * 1.5, metric="bures")).all()


def test_a_tangent_is_shortened_not_turned(x64):
  p, v = _points(), _tangents(size=30.0)
  clipped = spd.clip_tangent(p, v, 1.2)
  for k in range(len(p)):
    length = np.sqrt(_inner("affine", p[k], clipped[k], clipped[k]))
    assert length <= 1.2 + 1e-9
    np.testing.assert_allclose(clipped[k] / jnp.linalg.norm(clipped[k]), v[k] / jnp.linalg.norm(v[k]), atol=1e-9)
  short = _tangents(size=1e-3)
  np.testing.assert_allclose(spd.clip_tangent(p, short, 1.2), short, rtol=1e-12)
  gradient = jax.grad(lambda t: spd.clip_tangent(p, t, 1.2).sum())(jnp.zeros((6, 3, 3)))
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_at_isotropic_and_equal_points(x64, metric):
  """The start of every training: all covariances a multiple of the identity, all frames the same."""
  same = jnp.broadcast_to(9 * jnp.eye(3), (2, 3, 3))
  near = _points(2, seed=6)
  p, q, tangent = jnp.concatenate([same, same, near]), jnp.concatenate([same, near, same]), _tangents(6)
  way = _tangents(6, seed=8), _tangents(6, seed=9)
  functions = {
    "exp": lambda p, q, v: spd.exp(p, 0.3 * spd.log(p, q, metric=metric) + v, metric=metric),
    "transport": lambda p, q, v: spd.parallel_transport(p, q, v, metric=metric),
    "distance": lambda p, q, v: spd.distance(p, q, metric=metric)[:, None, None] ** 2 * v,
  }
  for name, function in functions.items():
    loss = jax.jit(lambda p, q, v, f=function: jnp.sum(f(p, q, v) * way[0].astype(p.dtype), axis=(1, 2)))
    slopes = jax.jit(jax.grad(lambda *given, f=loss: jnp.sum(f(*given)), (0, 1)))
    gradient, step = slopes(p, q, tangent), 1e-5
    wanted = (loss(p + step * way[0], q + step * way[1], tangent) - loss(p - step * way[0], q - step * way[1], tangent)) / (2 * step)
    found = sum(jnp.sum(g * w, axis=(1, 2)) for g, w in zip(gradient, way, strict=True))
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6, err_msg=name)
    for a, b in zip(slopes(*(m.astype(jnp.float32) for m in (p, q, tangent))), gradient, strict=True):
      np.testing.assert_allclose(a, b, atol=2e-3 * float(jnp.abs(b).max()) + 1e-5, err_msg=f"float32 {name}")


def test_an_unknown_metric_is_named():
  with pytest.raises(ValueError, match="metric: expected one of"):
    inspect.unwrap(spd.distance)(jnp.eye(3), jnp.eye(3), metric="euclidean")
