"""Memory stays with the process."""

import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import numpy as np
from silky_jax import heap
if sys.argv[1] == "keep":
  assert heap.keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for index in range(5):
  if index == 2:
    begun = faults()
  np.ones(2**24, np.float32)  # 64 MiB
print(faults() - begun)
"""


def _faults(how):
  clean = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES" and not name.startswith("MALLOC_")}
  done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, env=clean, check=True)
  return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
  assert _faults("keep") < 100 < _faults("leave")


def test_who_manages_memory_himself_is_left_alone(monkeypatch):
  from silky_jax.heap import keep_freed_memory

  monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
  assert not keep_freed_memory()
