"""eigen3's kernel against plain JAX, whose own judge is tests/math; batches, and what it lowers to. In Pallas' interpreter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import eigen3, triton
from silky_kernels.eigen3 import pallas

from tests.checks import sound_triton_kernels


@pytest.fixture
def interpreter(monkeypatch):
  monkeypatch.setenv(triton.INTERPRET, "interpret")


def _matrices(*shape, seed=0):
  made = np.random.default_rng(seed).normal(size=(*shape, 3, 3)).astype(np.float32)
  return made + np.swapaxes(made, -1, -2)


def test_the_kernel_is_plain_jax(interpreter):
  matrices = _matrices(2, 131)
  matrices[0, 0], matrices[0, 1], matrices[0, 2] = np.eye(3), 0, np.diag([3, 1e-6, 3])
  for found, wanted in zip(eigen3(matrices, backend="pallas"), eigen3(matrices, backend="xla"), strict=True):
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_batches_are_more_rows(interpreter):
  matrices = _matrices(3, 2, 5)
  one = lambda matrix: eigen3(matrix, backend="pallas")
  for found, wanted in zip(jax.vmap(jax.vmap(one))(matrices), one(matrices), strict=True):
    np.testing.assert_array_equal(found, wanted)


def test_no_matrices_are_no_launch(interpreter):
  values, vectors = eigen3(jnp.zeros((0, 3, 3)))
  assert values.shape == (0, 3) and vectors.shape == (0, 3, 3)


def test_other_types_than_float32_run_in_plain_jax(interpreter, x64):
  matrices = _matrices(4).astype(np.float64)
  values, vectors = eigen3(matrices)
  assert values.dtype == np.float64
  np.testing.assert_allclose(matrices @ vectors, vectors * values[:, None], atol=1e-12)
  with pytest.raises(NotImplementedError, match="eigen3: backend 'pallas' takes float32 alone; give float32, or backend='xla'"):
    eigen3(matrices, backend="pallas")


def test_it_lowers_to_sound_triton_code_without_a_gpu():
  assert sound_triton_kernels(pallas.decompose, jnp.zeros((5, 9))) == ["silky_eigen3"]
