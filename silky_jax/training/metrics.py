"""Metrics as mergeable states, and the file they are written to: one JSON object per line."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["JsonLines", "Means"]


@dataclasses.dataclass(frozen=True)
class Means:
  """Weighted means of named values: `empty`, `add`, `merge`, `compute`. Merging in any order gives the same means."""

  totals: Mapping[str, float] = dataclasses.field(default_factory=dict)
  weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @classmethod
  def empty(cls) -> "Means":
    """No values yet."""
    return cls()

  def add(self, values: Mapping[str, Any], weight: float = 1.0) -> "Means":
    """With one more set of values, each a number or a scalar array."""
    return self.merge(Means({k: float(v) * weight for k, v in values.items()}, dict.fromkeys(values, weight)))

  def merge(self, other: "Means") -> "Means":
    """Of both sets of values together."""

    def total(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
      return {k: a.get(k, 0.0) + b.get(k, 0.0) for k in {**a, **b}}

    return Means(total(self.totals, other.totals), total(self.weights, other.weights))

  def compute(self) -> dict[str, float]:
    """The means; NaN where all weight is 0."""
    return {k: v / self.weights[k] if self.weights[k] else math.nan for k, v in self.totals.items()}


class JsonLines:
  """Appends records to a file, one JSON object per line. A line cut short by a kill is dropped when the file is opened again."""

  def __init__(self, path: Path, *, keep_until: int | None = None):
    """Open for appending.

    Args:
      path: made if missing.
      keep_until: drop records of later steps, which a resumed run is about to write again; None keeps all.
    """
    self._path = Path(path)
    records = self.read(path)
    kept = [r for r in records if keep_until is None or r.get("step", 0) <= keep_until]
    text = "".join(_line(r) for r in kept)
    if self._path.exists() and self._path.read_text() == text:
      return
    part = self._path.with_name(f".{self._path.name}.part")
    part.write_text(text)
    os.replace(part, self._path)

  def write(self, record: Mapping[str, Any]) -> None:
    """Append one record; a number that JSON cannot hold is written as null."""
    with self._path.open("a") as file:
      file.write(_line(record))

  @staticmethod
  def read(path: Path) -> list[dict[str, Any]]:
    """All whole records of a file; none if it does not exist."""
    if not Path(path).exists():
      return []
    records = []
    for line in Path(path).read_text().split("\n"):
      try:
        records.append(json.loads(line))
      except json.JSONDecodeError:
        continue
    return records


def _line(record: Mapping[str, Any]) -> str:
  clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
  return json.dumps(clean, allow_nan=False) + "\n"
