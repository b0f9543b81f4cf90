"""Which implementation of an op runs, decided once and said once."""

import functools
import logging
from typing import Literal, get_args

import jax
from silky_kernels import triton

__all__ = ["Backend", "available_backends", "choose"]

Backend = Literal["xla", "cpu", "pallas"]

_LOGGER = logging.getLogger("silky_kernels")

# What there is code for, per op, best first.
_BUILT: dict[str, tuple[Backend, ...]] = {
  "bin_tiles": ("xla",),
  "rasterize_tiles": ("xla",),
  "project": ("cpu", "pallas", "xla"),
  "splat": ("cpu", "pallas", "xla"),
  "eigen3": ("pallas", "xla"),
  "sinkhorn": ("pallas",),
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
  return tuple(backend for backend in _BUILT[op] if _why_not(op, backend) is None)


def _why_not(op: str, backend: Backend) -> str | None:
  """Why a backend cannot run an op on this machine; None where it can."""
  if backend not in _BUILT[op]:
    return f"there is none of it for this op; `splat` has {_BUILT['splat']}"
  if backend == "pallas":
    return triton.why_not()
  if backend == "cpu":
    from silky_kernels import native  # compiles: only when somebody asks

    platform = jax.default_backend()
    return f"it is for the platform cpu, and this is {platform}" if platform != "cpu" else native.why_not()
  return None


def choose(op: str, backend: Backend | None = None, *, exact: bool = False) -> Backend:
  """The backend to run `op` with: the one named, else the best one available. Logged once per op and backend.

  Args:
    op: name of a public op.
    backend: a name, or None to choose by platform and availability.
    exact: whether the arguments are of another type than float32, which only "xla" takes.

  Raises:
    ValueError: unknown op or backend name.
    NotImplementedError: the named backend exists as a name but cannot run here; nothing else is tried in its place.
  """
  if op not in _BUILT:
    raise ValueError(f"op: expected one of {sorted(_BUILT)}, got {op!r}")
  if backend is None:
    chosen, why = "xla", "the arguments are not float32"
    if not exact or "xla" not in _BUILT[op]:
      chosen, why = _best(op), "best available"
      _warn_of_plain_jax(op, chosen)
  elif backend not in get_args(Backend):
    raise ValueError(f"backend: expected one of {get_args(Backend)} or None, got {backend!r}")
  elif reason := _why_not(op, backend):
    raise NotImplementedError(f"{op}: backend {backend!r} cannot run: {reason}; available: {available_backends(op)}")
  else:
    chosen, why = backend, "asked for"
  if exact and chosen != "xla":
    other = ", or backend='xla'" if "xla" in _BUILT[op] else ""
    raise NotImplementedError(f"{op}: backend {chosen!r} takes float32 alone; give float32{other}")
  _log_once(op, chosen, why)
  return chosen


def _best(op: str) -> Backend:
  if found := available_backends(op):
    return found[0]
  reasons = "; ".join(f"{backend}: {_why_not(op, backend)}" for backend in _BUILT[op])
  raise NotImplementedError(f"{op}: no backend can run here: {reasons}")


def _warn_of_plain_jax(op: str, chosen: str) -> None:
  """Say why the fast backend of this platform is not the one that runs."""
  fast = "cpu" if jax.default_backend() == "cpu" else "pallas"
  if chosen == "xla" and fast in _BUILT[op]:
    _warn_once(_why_not(op, fast))


@functools.cache
def _warn_once(reason: str | None) -> None:
  _LOGGER.warning("rendering runs in plain JAX, many times slower than the kernels for this platform: %s", reason)


@functools.cache
def _log_once(op: str, backend: str, why: str) -> None:
  _LOGGER.info("%s runs with backend %s (%s)", op, backend, why)
