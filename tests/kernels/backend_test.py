"""Choosing a backend: explicit, logged once, never another one in silence."""

import inspect
import logging

import pytest
from silky_kernels.backend import _log_once, available_backends, choose


def test_the_default_is_the_best_available():
  assert available_backends("rasterize_tiles")[0] == choose("rasterize_tiles") == "xla"


@pytest.mark.parametrize("op", ["splat", "project"])
def test_it_runs_in_the_compiled_kernel_wherever_tests_run(op):
  assert available_backends(op) == ("cpu", "xla")
  assert choose(op) == "cpu" and choose(op, exact=True) == "xla"


@pytest.mark.parametrize(
  ("backend", "reason"), [("cpu", "there is none of it for this op; `splat` has"), ("pallas", "it is not built yet")]
)
@pytest.mark.parametrize("op", ["rasterize_tiles", "bin_tiles"])
def test_a_backend_that_is_not_built_says_so(op, backend, reason):
  with pytest.raises(NotImplementedError, match=f"{op}: backend '{backend}' cannot run: {reason}"):
    choose(op, backend)


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
