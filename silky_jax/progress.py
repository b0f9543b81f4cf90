"""Progress that a person can read: a bar with ETA in a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Progress:
  """Counts up to a total. `with Progress("landmarks", 765, "frames") as bar: bar.update(1)`."""

  def __init__(self, what: str, total: int, unit: str = "it", *, every: float = 10.0, start: int = 0):
    """Start counting.

    Args:
      what: the label.
      total: the count that means done.
      unit: what is counted.
      every: seconds between plain lines.
      start: what was already done before (not counted in the rate).
    """
    self.what, self.total, self.unit = what, total, unit
    self.done = self._start = start
    self._every, self._born = every, time.perf_counter()
    self._spoke = self._born
    self._extra = ""
    terminal = sys.stderr.isatty()
    self._bar = tqdm(total=total, desc=what, unit=unit, initial=start, dynamic_ncols=True, leave=True) if terminal else None

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
    self.close()

  @property
  def rate(self) -> float:
    """Counts per second since the start."""
    return (self.done - self._start) / max(time.perf_counter() - self._born, 1e-9)

  def update(self, count: int = 1, extra: str = "") -> None:
    """Count on; `extra` is shown behind."""
    self.done += count
    self._extra = extra or self._extra
    if self._bar is not None:
      if extra:
        self._bar.set_postfix_str(extra, refresh=False)
      self._bar.update(count)
    elif time.perf_counter() - self._spoke >= self._every:
      self._spoke = time.perf_counter()
      self._line()

  def to(self, done: int, extra: str = "") -> None:
    """Count up to `done`."""
    self.update(done - self.done, extra)

  def _line(self) -> None:
    left = (self.total - self.done) / max(self.rate, 1e-9)
    print(f"  {self.what}: {self.done}/{self.total} {self.unit}, {self.rate:.1f}/s, {_clock(left)} left {self._extra}".rstrip(), flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
    elif self.done > self._start:
      spent = time.perf_counter() - self._born
      print(f"  {self.what}: {self.done}/{self.total} {self.unit} in {_clock(spent)} {self._extra}".rstrip(), flush=True)


def _clock(seconds: float) -> str:
  seconds = round(seconds)
  return f"{seconds // 60}:{seconds % 60:02d} min" if seconds >= 60 else f"{seconds} s"
