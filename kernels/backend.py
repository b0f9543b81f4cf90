"""Which implementation of an op runs, decided once and said once."""

import functools
import logging
from typing import Literal, get_args

__all__ = ["Backend", "available_backends", "choose"]

Backend = Literal["xla", "cpu", "pallas"]

_LOGGER = logging.getLogger("silky_kernels")

# What is built, per op, best first. The reasons are what the error of a missing backend says.
_BUILT: dict[str, tuple[Backend, ...]] = {"bin_tiles": ("xla",), "rasterize_tiles": ("xla",)}
_REASONS: dict[str, str] = {
  "cpu": "the C++ custom call is not built yet",
  "pallas": "the Pallas kernel is not built yet",
}


def available_backends(op: str) -> tuple[Backend, ...]:
  """Backends that `op` can run with on this machine, best first.

  Args:
    op: name of a public op, such as "rasterize_tiles".

  Raises:
    ValueError: unknown op.
  """
  if op not in _BUILT:
    raise ValueError(f"op: expected one of {sorted(_BUILT)}, got {op!r}")
  return _BUILT[op]


def choose(op: str, backend: Backend | None = None) -> Backend:
  """The backend to run `op` with: the one named, else the best one available. Logged once per op and backend.

  Args:
    op: name of a public op.
    backend: a name, or None to choose by platform and availability.

  Raises:
    ValueError: unknown op or backend name.
    NotImplementedError: the named backend exists as a name but cannot run here; nothing else is tried in its place.
  """
  available = available_backends(op)
  if backend is None:
    chosen, why = available[0], "best available"
  elif backend not in get_args(Backend):
    raise ValueError(f"backend: expected one of {get_args(Backend)} or None, got {backend!r}")
  elif backend not in available:
    raise NotImplementedError(f"{op}: backend {backend!r} cannot run: {_REASONS[backend]}; available: {available}")
  else:
    chosen, why = backend, "asked for"
  _log_once(op, chosen, why)
  return chosen


@functools.cache
def _log_once(op: str, backend: str, why: str) -> None:
  _LOGGER.info("%s runs with backend %s (%s)", op, backend, why)
