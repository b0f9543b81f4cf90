"""sinkhorn's kernel against OTT, problem by problem, and what it refuses; batches, and what it lowers to. In Pallas' interpreter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import sinkhorn, triton
from silky_kernels.sinkhorn import pallas
from silky_kernels.sinkhorn.api import LARGEST

from silky_jax.ot.sinkhorn import _normalised, sinkhorn_divergence, square_costs
from tests.checks import sound_triton_kernels

REACHES = (None, 10.0, 10.0)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
  monkeypatch.setenv(triton.INTERPRET, "interpret")


def _clouds(m=23, k=17, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(3, m, 3)) * 12
  y = rng.normal(size=(3, k, 3)) * 12 + rng.normal(size=(3, 1, 3)) * 4
  a, b = rng.uniform(0.2, 1, (3, m)), rng.uniform(0.2, 1, (3, k))
  a[:, -4:] = 0  # padding
  return [jnp.asarray(array, jnp.float32) for array in (x, a, y, b)]


@functools.cache
def _divergence(solver, threshold=1e-4, max_iterations=2000):
  settings = {"reach": REACHES, "threshold": threshold, "max_iterations": max_iterations, "solver": solver}

  def total(x, a, y, b):
    found = sinkhorn_divergence(x, a, y, b, **settings)
    return found.value.sum(), found

  return jax.jit(jax.value_and_grad(total, argnums=(0, 2), has_aux=True))


def test_values_and_gradients_are_those_by_ott():
  clouds = _clouds()
  ((_, found), slopes), ((_, wanted), wanted_slopes) = _divergence("pallas")(*clouds), _divergence("ott")(*clouds)
  assert found.converged.all() and wanted.converged.all()
  np.testing.assert_allclose(found.value, wanted.value, rtol=1e-5)
  for slope, wanted_slope in zip(slopes, wanted_slopes, strict=True):
    np.testing.assert_allclose(slope, wanted_slope, atol=1e-4)


def _solve(arrays, rho, **settings):
  x, a, y, b = arrays
  given = {"epsilon": 9.0, "threshold": 1e-3, "max_iterations": 500} | settings
  a, b = _normalised(a), _normalised(b)
  return sinkhorn(square_costs(x, y), a, b, (jnp.zeros_like(a), jnp.zeros_like(b)), rho=rho, **given)


def test_each_problem_takes_its_own_iterations():
  found = _solve(_clouds(), [None, 900.0, 100.0])
  assert found.converged.all() and len(set(found.iterations.tolist())) == 3
  alone = _solve([array[2:] for array in _clouds()], [100.0])
  np.testing.assert_allclose(found.f[2], alone.f[0], rtol=1e-5)  # the interpreter's rounding depends on the grid
  assert found.iterations[2] == alone.iterations[0]


def test_what_does_not_converge_or_is_not_finite_says_so_and_ends():
  (_, (value, converged)), slopes = _divergence("pallas", 1e-6, 3)(*_clouds())
  assert not converged.any() and not value.any() and not any(slope.any() for slope in slopes)
  clouds = _clouds()
  clouds[0] = clouds[0].at[1, 0].set(jnp.nan)
  found = _solve(clouds, [None] * 3)
  assert found.converged.tolist() == [True, False, True] and found.iterations[1] == 1


def test_batches_are_more_problems():
  clouds = _clouds()
  shifts = jnp.asarray([0.0, 2.0])
  moved = lambda shift: _solve([clouds[0] + shift, *clouds[1:]], [100.0] * 3)
  batched = jax.vmap(moved)(shifts)
  for i, shift in enumerate(shifts):
    # Potentials of up to 150 mm^2: on a GPU the shift is rounded otherwise in the batch, two units in the last place.
    np.testing.assert_allclose(batched.f[i], moved(shift).f, rtol=1e-5, atol=1e-4)


def test_what_it_cannot_do_is_refused(monkeypatch):
  with pytest.raises(ValueError, match="rho: expected one of each of the 3 problems, got 2"):
    _solve(_clouds(), [None] * 2)
  with pytest.raises(ValueError, match=f"costs: expected at most {LARGEST} atoms, got {LARGEST + 1} x 17"):
    _solve(_clouds(m=LARGEST + 1), [None] * 3)
  monkeypatch.delenv(triton.INTERPRET)
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  with pytest.raises(NotImplementedError, match="sinkhorn: no backend can run here: pallas: it is for NVIDIA GPUs"):
    _solve(_clouds(), [None] * 3)


def test_larger_problems_than_the_kernels_go_to_ott():
  x, a, _, _ = _clouds(m=LARGEST + 1)
  solve = lambda solver: jax.eval_shape(lambda x, a: sinkhorn_divergence(x, a, x, a, solver=solver), x, a)
  assert solve("auto").value.shape == (3,)
  with pytest.raises(ValueError, match="solves larger ones with OTT"):
    solve("pallas")


def test_it_lowers_to_sound_triton_code_without_a_gpu(monkeypatch):
  monkeypatch.delenv(triton.INTERPRET)
  one = lambda alike: functools.partial(pallas.solve, epsilon=9.0, threshold=1e-2, max_iterations=100, alike=alike)
  arrays = [jnp.zeros(shape) for shape in ((2, 18, 20), (2, 18), (2, 20), (2, 18), (2, 20), (2, 3))]
  both = lambda *arrays: (one(True)(*arrays), one(False)(*arrays))
  assert sound_triton_kernels(both, *arrays) == ["silky_sinkhorn"] * 2
