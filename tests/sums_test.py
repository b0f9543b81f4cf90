"""The installed jaxlib sums correctly under jit: one release did not (jax-ml/jax#39103), and every figure rests on it."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import silky_jax  # sets what some releases need


@pytest.mark.parametrize("rows", [100, 14_000, 40_000])
def test_a_jitted_sum_over_a_short_axis_equals_numpy(rows):
  rng = np.random.default_rng(0)
  points, turn = rng.normal(size=(rows, 3)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
  turned = jax.jit(lambda m, r: jnp.sum(r * m[:, None, :], axis=-1))(points, turn)
  np.testing.assert_allclose(turned, points @ turn.T, atol=1e-5)
  squared = jax.jit(jax.vmap(lambda row, r: jnp.sum((r @ row) ** 2), in_axes=(0, None)))(points, turn)
  np.testing.assert_allclose(squared, ((points @ turn.T) ** 2).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize(
  ("installed", "before", "after"),
  [
    ("", "", ""),
    ("jax_cuda12_plugin", "", "--xla_gpu_enable_triton_gemm=false"),
    ("jax_cuda13_plugin", "--xla_dump_to=x", "--xla_dump_to=x --xla_gpu_enable_triton_gemm=false"),
    ("jax_cuda12_plugin", "--xla_gpu_enable_triton_gemm=true", "--xla_gpu_enable_triton_gemm=true"),
  ],
)
def test_gpus_get_cublas_unless_the_user_says_otherwise(monkeypatch, installed, before, after):
  monkeypatch.setenv("XLA_FLAGS", before)
  monkeypatch.setattr(silky_jax.util, "find_spec", lambda name: object() if name == installed else None)
  silky_jax._start_soon_on_gpus()
  assert os.environ["XLA_FLAGS"] == after
