"""How this process asks the system for memory."""

import ctypes
import os

__all__ = ["keep_freed_memory"]

# mallopt's names for: memory freed at the end of the heap goes back beyond so many bytes, blocks that are mapped one by one, heaps.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
  """Let freed memory stay with the process, so that it can be used again without a page fault. To be called before threads start.

  XLA's CPU runtime takes the scratch of a program anew in every call, and glibc gives blocks of more than 32 MB back to the system at once:
  a third of a training step was the kernel clearing pages (docs/rasterizer.md). One heap that is not trimmed ends that.

  Returns:
    Whether it was done: not where the C library is another one, and not where the environment says how memory is to be managed
    (GLIBC_TUNABLES or MALLOC_...).
  """
  if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
    return False
  try:
    set_option = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  return all([set_option(_ARENA_MAX, 1), set_option(_MMAP_MAX, 0), set_option(_TRIM_THRESHOLD, 2**31 - 1)])
