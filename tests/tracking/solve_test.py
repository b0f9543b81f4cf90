"""The three solvers against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.tracking import solve


def test_levenberg_marquardt_finds_the_minimum():
  rosenbrock = lambda x: jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])
  x, energy = solve.levenberg_marquardt(rosenbrock, jnp.array([-1.2, 1.0]), steps=60)
  np.testing.assert_allclose(x, [1.0, 1.0], atol=1e-4)
  assert float(energy) < 1e-8


def test_levenberg_marquardt_is_never_worse_than_its_start():
  wild = lambda x: jnp.stack([jnp.sin(40.0 * x[0]) + 0.1 * x[0], jnp.exp(x[0])])
  for start in np.linspace(-3, 3, 13):
    begin = 0.5 * float(jnp.sum(wild(jnp.array([start])) ** 2))
    _, energy = solve.levenberg_marquardt(wild, jnp.array([start]), steps=5)
    assert float(energy) <= begin + 1e-6


def test_shared_step_equals_the_dense_gauss_newton_step(x64):
  rng = np.random.default_rng(0)
  t, p, q, m = 4, 3, 2, 9
  jx, jz, r = rng.normal(size=(t, m, p)), rng.normal(size=(t, m, q)), rng.normal(size=(t, m))
  frame = lambda x, z, i: (jnp.asarray(r)[i] + jnp.asarray(jx)[i] @ x + jnp.asarray(jz)[i] @ z, jnp.asarray(jx)[i], jnp.asarray(jz)[i])
  x, z = solve.shared_step(frame, lambda z: 0.7 * z - 0.2, jnp.zeros((t, p)), jnp.zeros(q), jnp.asarray(0.0), 1.0)
  dense = np.zeros((t * m + q, t * p + q))
  for i in range(t):
    dense[i * m : (i + 1) * m, i * p : (i + 1) * p] = jx[i]
    dense[i * m : (i + 1) * m, t * p :] = jz[i]
  dense[t * m :, t * p :] = 0.7 * np.eye(q)
  expected = np.linalg.lstsq(dense, -np.concatenate([r.ravel(), np.full(q, -0.2)]), rcond=None)[0]
  np.testing.assert_allclose(np.concatenate([np.asarray(x).ravel(), z]), expected, atol=1e-5)


@pytest.mark.parametrize("cut", [None, 5])
def test_banded_smooth_equals_the_dense_solution(cut):
  rng = np.random.default_rng(1)
  t, p = 9, 3
  times = np.cumsum(rng.integers(1, 4, size=t)).astype(float)
  root = rng.normal(size=(t, p, p))
  normals, gradients, x = root @ np.swapaxes(root, 1, 2) + np.eye(p), rng.normal(size=(t, p)), rng.normal(size=(t, p))
  stiffness = np.array([0.5, 2.0, 30.0])
  joined = np.ones(t)
  joined[0] = 0
  if cut:
    joined[cut] = 0

  def energy(flat):
    d = flat.reshape(t, p)
    total = jnp.einsum("tp,tp->", gradients, d) + 0.5 * jnp.einsum("tp,tpq,tq->", d, normals, d)
    y = x + d
    for k in range(1, t - 1):
      if not (joined[k] and joined[k + 1]):
        continue
      a, b = times[k] - times[k - 1], times[k + 1] - times[k]
      bend = 2 * ((y[k + 1] - y[k]) / b - (y[k] - y[k - 1]) / a) / (a + b)
      total += 0.5 * jnp.sum(stiffness * bend**2) / max(a, b) ** 2
    return total

  jax.config.update("jax_enable_x64", True)
  try:
    zero = jnp.zeros(t * p)
    expected = x - np.linalg.solve(np.asarray(jax.hessian(energy)(zero)), np.asarray(jax.grad(energy)(zero))).reshape(t, p)
  finally:
    jax.config.update("jax_enable_x64", False)
  np.testing.assert_allclose(solve.banded_smooth(normals, gradients, x, times, joined, stiffness), expected, atol=1e-6)


def test_banded_smooth_leaves_constant_velocity_alone():
  t, p = 12, 2
  times = np.arange(t).astype(float)
  x = np.outer(times, [1.0, -2.0])
  joined = np.r_[0.0, np.ones(t - 1)]
  moved = solve.banded_smooth(np.tile(np.eye(p), (t, 1, 1)), np.zeros((t, p)), x, times, joined, np.full(p, 1e4))
  np.testing.assert_allclose(moved, x, atol=1e-6)
