"""How long a GPU works for a call, told by CUPTI through PyTorch's profiler, which sees the kernels of every library in the process."""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Busy", "busy"]


class Busy(NamedTuple):
  """Of one call, on average."""

  ms: float  # of all kernels and copies, one after the other
  launches: float
  kernels: dict[str, float]  # name -> ms, the longest first


def busy(function: Callable[[int], Any], count: int = 10) -> Busy:
  """What the GPU did.

  Args:
    function: called with 0 ... count - 1; must not return before its work on the device is done.
    count: of calls.
  """
  from torch.profiler import ProfilerActivity, profile

  with profile(activities=[ProfilerActivity.CUDA]) as found:
    for i in range(count):
      function(i)
  events = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)
  kernels = {event.key: event.self_device_time_total / 1e3 / count for event in events}
  return Busy(sum(kernels.values()), sum(event.count for event in events) / count, kernels)
