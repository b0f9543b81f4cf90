"""Reads batches ahead of the train step, on threads, and puts them on the device."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from silky_jax.types import PyTree

__all__ = ["prefetch"]


def prefetch(
  make: Callable[[int], PyTree], steps: range, *, ahead: int = 2, threads: int = 1, placement: Any = None
) -> Iterator[tuple[int, PyTree]]:
  """Yield `(step, make(step))` in order, with up to `ahead` batches being read while the caller works.

  Args:
    make: step -> batch of numpy arrays; must depend on the step alone. Its errors come out here, at that step.
    steps: which steps.
    ahead: batches in flight; 0 reads when asked.
    threads: that read.
    placement: a device or sharding for `jax.device_put`; None is the default device.
  """

  def load(step: int) -> PyTree:
    return jax.device_put(make(step), placement)

  if ahead < 1:
    for step in steps:
      yield step, load(step)
    return
  with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="loader") as pool:
    waiting: deque[tuple[int, Future[PyTree]]] = deque()
    try:
      for step in steps:
        waiting.append((step, pool.submit(load, step)))
        if len(waiting) > ahead:
          first, future = waiting.popleft()
          yield first, future.result()
      while waiting:
        first, future = waiting.popleft()
        yield first, future.result()
    finally:
      for _, future in waiting:
        future.cancel()
