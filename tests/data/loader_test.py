"""Reading ahead keeps the order, the values and the errors."""

import jax
import numpy as np
import pytest

from silky_jax.data.loader import prefetch


@pytest.mark.parametrize(("ahead", "threads"), [(0, 1), (1, 1), (3, 2)])
def test_order_and_values(ahead, threads):
  got = list(prefetch(lambda step: {"x": np.full(2, step)}, range(3, 9), ahead=ahead, threads=threads))
  assert [step for step, _ in got] == list(range(3, 9))
  assert all(isinstance(batch["x"], jax.Array) and int(batch["x"][0]) == step for step, batch in got)


def test_errors_come_out():
  def make(step):
    if step == 2:
      raise OSError("disk is gone")
    return np.zeros(1)

  batches = prefetch(make, range(5))
  assert [next(batches)[0] for _ in range(2)] == [0, 1]
  with pytest.raises(OSError, match="disk is gone"):
    next(batches)


def test_stopping_early_starts_no_more_reads():
  read = []

  def make(step):
    read.append(step)
    return np.zeros(1)

  batches = prefetch(make, range(100), ahead=2)
  next(batches)
  batches.close()
  assert len(read) <= 4
