"""Test set-up: shape annotations are checked here and only here."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jaxtyping import install_import_hook

# types.py stays out: a checked pytree refuses `tree.map` and `eval_shape`.
_ROOMS = ("math", "geometry", "flame", "gaussians", "render", "nets", "losses", "models", "data", "training", "evaluation")
install_import_hook([f"silky_jax.{room}" for room in _ROOMS] + ["silky_kernels"], "beartype.beartype")


@pytest.fixture
def x64():
  """Run one test in float64."""
  before = jax.config.jax_enable_x64
  jax.config.update("jax_enable_x64", True)
  yield
  jax.config.update("jax_enable_x64", before)


def pytest_addoption(parser):
  parser.addoption("--slow", action="store_true", help="also run the slow tier")


def pytest_collection_modifyitems(config, items):
  has_gpu = any(device.platform == "gpu" for device in jax.devices())
  for item in items:
    if "slow" in item.keywords and not config.getoption("--slow"):
      item.add_marker(pytest.mark.skip(reason="slow tier: run with --slow"))
    if "gpu" in item.keywords and not has_gpu:
      item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))
