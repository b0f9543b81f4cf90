"""What the rows of `ablate_physics` say: changes against the film without the terms, means over seeds, and whether controls do as well."""

from typing import Any

import numpy as np

__all__ = ["mean_of", "summary"]

_NONE, _BOTH, _TRANSPORT = "none, noise 1", "both, noise 1", "transport, noise 1"
_EQUAL = 0.1  # dB: a control that loses no more than this is as good a picture
_JITTER = "heldout.jitter_mm"


def mean_of(row: dict[str, Any], key: str) -> float:
  """Of a figure, over a case's seeds."""
  return float(np.mean([run[key] for run in row["runs"]]))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
  """See the module's text. None where the rows it needs are not there.

  studio_jitter_reduction: 1 - |jitter - true| / |jitter - true| without the terms, of held-out frames as tracked; 0.4 is 40 % nearer.
  studio_skull_jitter_reduction: the same in the skull's axes.
  studio_error_change_mm, studio_psnr_change_db; tearing_ratio: transport alone over none.
  demo_psnr_change_db; demo_jitter_reduction: 1 - jitter / jitter without.
  controls: jitter and PSNR as above, of each. beats_controls: nearer to the true jitter than every control that keeps its PSNR within
  0.1 dB of the claim's or is better.
  """
  by_name = {row["case"]: row for row in rows}
  found: dict[str, Any] = {
    "studio_jitter_reduction": _nearer(by_name, _BOTH),
    "studio_error_change_mm": _change(by_name, _BOTH, _NONE, "heldout.error_mm"),
    "studio_psnr_change_db": _change(by_name, _BOTH, _NONE, "psnr"),
    "tearing_ratio": _ratio(by_name, _TRANSPORT, _NONE, "tearing"),
    "demo_psnr_change_db": _change(by_name, "both, demo", "none, demo", "psnr"),
  }
  ratio = _ratio(by_name, "both, demo", "none, demo", _JITTER)
  found["studio_skull_jitter_reduction"] = _nearer(by_name, _BOTH, "skull_")
  found["demo_jitter_reduction"] = None if ratio is None else 1 - ratio
  names = [name for name in by_name if name.startswith("control")]
  found["controls"] = {
    name: {"jitter_reduction": _nearer(by_name, name), "psnr_change_db": _change(by_name, name, _NONE, "psnr")} for name in names
  }
  found["beats_controls"] = _beats(found) if found["studio_jitter_reduction"] is not None and names else None
  return found


def _beats(found: dict[str, Any]) -> bool:
  rivals = [one for one in found["controls"].values() if one["psnr_change_db"] >= found["studio_psnr_change_db"] - _EQUAL]
  return found["studio_jitter_reduction"] > 0 and all(found["studio_jitter_reduction"] > one["jitter_reduction"] for one in rivals)


def _nearer(by_name: dict[str, dict[str, Any]], name: str, kind: str = "") -> float | None:
  """How much nearer to the true jitter a case is than the case without the terms."""
  if not {name, _NONE} <= by_name.keys():
    return None
  off = lambda row: float(np.mean([abs(run[f"heldout.{kind}jitter_mm"] - run[f"heldout.{kind}true_jitter_mm"]) for run in row["runs"]]))
  return 1 - off(by_name[name]) / off(by_name[_NONE])


def _change(by_name: dict[str, dict[str, Any]], name: str, against: str, key: str) -> float | None:
  return mean_of(by_name[name], key) - mean_of(by_name[against], key) if {name, against} <= by_name.keys() else None


def _ratio(by_name: dict[str, dict[str, Any]], name: str, against: str, key: str) -> float | None:
  if not {name, against} <= by_name.keys() or not mean_of(by_name[against], key):
    return None
  return mean_of(by_name[name], key) / mean_of(by_name[against], key)
