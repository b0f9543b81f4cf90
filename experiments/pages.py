"""What the scripts that write pages of docs/ share: Markdown tables, and the place between two marks that is theirs."""

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["DOCS", "fill", "number", "read", "table"]

_ROOT = Path(__file__).resolve().parents[1]
DOCS = _ROOT / "docs"
_END = "<!-- end of figures -->"


def read(name: str) -> dict[str, Any]:
  """A file of experiments/results/."""
  return json.loads((_ROOT / "experiments" / "results" / name).read_text())


def table(head: list[str], lines: list[list[str]]) -> str:
  return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def number(value: float) -> str:
  return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def fill(page: Path, module: str, body: str, *, part: str = "") -> None:
  """Put text between a page's marks, or between those of one of its parts.

  Raises:
    SystemExit: the page has no such marks.
  """
  begin, text = f"<!-- figures: python -m experiments.{module}{part and f', {part}'} -->", page.read_text()
  place = re.compile(f"{re.escape(begin)}.*?{re.escape(_END)}", flags=re.S)
  if not place.search(text):
    raise SystemExit(f"{page}: the marks {begin!r} and {_END!r} are gone; put them back where the tables belong")
  page.write_text(place.sub(lambda _: f"{begin}\n{body}\n{_END}", text))
