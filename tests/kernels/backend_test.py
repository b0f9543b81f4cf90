"""Choosing a backend: explicit, logged once, never another one in silence."""

import inspect
import logging

import pytest
from silky_kernels import backend as backend_module
from silky_kernels import triton
from silky_kernels.backend import _log_once, available_backends, choose


def test_the_default_is_the_best_available():
  assert available_backends("rasterize_tiles")[0] == choose("rasterize_tiles") == "xla"


@pytest.mark.parametrize("op", ["splat", "project"])
def test_it_runs_in_the_compiled_kernel_wherever_tests_run(op):
  assert available_backends(op) == ("cpu", "xla")
  assert choose(op) == "cpu" and choose(op, exact=True) == "xla"


@pytest.mark.parametrize("backend", ["cpu", "pallas"])
@pytest.mark.parametrize("op", ["rasterize_tiles", "bin_tiles"])
def test_a_backend_that_is_not_built_says_so(op, backend):
  with pytest.raises(NotImplementedError, match=f"{op}: backend '{backend}' cannot run: there is none of it for this op; `splat` has"):
    choose(op, backend)


def test_pallas_without_a_gpu_says_what_it_wants():
  with pytest.raises(NotImplementedError, match="splat: backend 'pallas' cannot run: it is for NVIDIA GPUs, and this is cpu"):
    choose("splat", "pallas")


class _Gpu:
  device_kind = "NVIDIA Ancient"

  def __init__(self, capability):
    self.compute_capability = capability


@pytest.mark.parametrize(
  ("capability", "reason"), [("7.5", "compute capability 8.0 or more, and NVIDIA Ancient has 7.5"), ("gfx942", "NVIDIA Ancient is none")]
)
def test_a_gpu_that_cannot_run_it_is_named(monkeypatch, capability, reason):
  monkeypatch.setattr(triton.jax, "devices", lambda: [_Gpu(capability)])
  assert reason in triton._why_not.__wrapped__("gpu")


def test_a_gpu_that_cannot_run_it_gets_plain_jax_and_is_told_once(monkeypatch, caplog):
  monkeypatch.setattr(backend_module.jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(backend_module.triton, "why_not", lambda: "this GPU is too old")
  backend_module._warn_once.cache_clear()
  with caplog.at_level(logging.WARNING, "silky_kernels"):
    assert choose("splat") == choose("splat") == "xla"
  assert caplog.text.count("this GPU is too old") == 1


def test_a_jax_without_the_lowering_is_named(monkeypatch):
  monkeypatch.setattr(triton.jax, "devices", lambda: [_Gpu("9.0")])
  assert triton._why_not.__wrapped__("gpu") is None
  import jax.experimental.pallas.triton as lowering

  monkeypatch.delattr(lowering, "store")
  assert "jax.experimental.pallas.triton has no store" in triton._why_not.__wrapped__("gpu")


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match="backend: expected"):
    inspect.unwrap(choose)("bin_tiles", "cuda")
  with pytest.raises(ValueError, match="op: expected"):
    choose("sort")


def test_the_choice_is_logged_once(caplog):
  _log_once.cache_clear()
  with caplog.at_level(logging.INFO, "silky_kernels"):
    for _ in range(3):
      choose("bin_tiles", "xla")
  assert caplog.text.count("bin_tiles runs with backend xla (asked for)") == 1
