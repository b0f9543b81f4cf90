"""What the rows of `ablate_physics` say: changes against the film without the terms, means over seeds, and whether controls do as well."""

from typing import Any, NamedTuple

import numpy as np

from experiments.ablation_drivers import LOW_PASSES

__all__ = ["Look", "change", "figure", "summary"]

_EQUAL = 0.1  # dB: a control that loses no more than this against the claim is as good a picture
_RATIOS = {
  "own_jitter": "heldout.own_jitter_mm",
  "covariance_jitter": "heldout.covariance_jitter",
  "tearing": "tearing",
  "tearing_doubled": "tearing_doubled",
  "crack": "crack",
  "seam": "seam",
}
_NOISES = (0.5, 1.0, 2.0)


class Look(NamedTuple):
  """One case, driven one way."""

  case: str
  way: str = "tracked"

  def key(self, name: str) -> str:
    """Of a figure in the runs; training frames are driven in one way, the case's."""
    return name if self.way == "tracked" or name.startswith("train.") else f"{self.way}: {name}"


def figure(rows: dict[str, dict[str, Any]], look: Look, name: str) -> np.ndarray | None:
  """A figure at every seed; None where it was not measured."""
  if look.case not in rows:
    return None
  key, runs = look.key(name), rows[look.case]["runs"]
  return np.asarray([run[key] for run in runs], float) if all(run.get(key) is not None for run in runs) else None


def change(rows: dict[str, dict[str, Any]], look: Look, base: Look) -> dict[str, float] | None:
  """What a case and a way change against another, means over seeds, of held-out frames. None where one of them was not run.

  jitter_reduction: 1 - |jitter - true| / |base's jitter - true|: 0.4 is 40 % nearer to the true jitter. On the demo clip, whose truth
  nobody knows, 1 - jitter / base's jitter.
  skull_jitter_reduction: the same in the skull's axes; ratios of own_jitter, covariance_jitter, tearing, crack, seam: over the base's.
  psnr_change_db, its spread over seeds; mouth, eyes, LPIPS, tLP; error_change_mm of positions.
  """
  get = lambda which, name: figure(rows, which, name)
  if get(look, "psnr") is None or get(base, "psnr") is None:
    return None
  found: dict[str, float] = {}
  for kind in ("", "skull_"):
    own, other, true = (
      get(look, f"heldout.{kind}jitter_mm"),
      get(base, f"heldout.{kind}jitter_mm"),
      get(base, f"heldout.{kind}true_jitter_mm"),
    )
    if own is None or other is None:
      continue
    off = (lambda x, true=true: np.mean(np.abs(x - true))) if true is not None else np.mean
    found[f"{kind}jitter_reduction"] = float(1 - off(own) / off(other))
  for name, key in _RATIOS.items():
    own, other = get(look, key), get(base, key)
    if own is not None and other is not None and other.mean() > 0:
      found[f"{name}_ratio"] = float(own.mean() / other.mean())
  differences = {"psnr_change_db": "psnr", "mouth_psnr_change_db": "mouth.psnr", "eyes_psnr_change_db": "eyes.psnr"}
  differences |= {"lpips_change": "lpips_alex", "tlp_change": "tlp", "error_change_mm": "heldout.error_mm"}
  for name, key in differences.items():
    own, other = get(look, key), get(base, key)
    if own is not None and other is not None:
      found[name] = float(np.mean(own - other))
  found = {name: value for name, value in found.items() if np.isfinite(value)}  # eyes may be seen in no frame
  found["psnr_change_spread_db"] = float(np.std(get(look, "psnr") - get(base, "psnr")))
  return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
  """See the module's text. None where the rows it needs are not there.

  The claim is the whole of the method: both terms in training, and the drivers calmed by inertia at run time; its base has neither.
  `studio` and `demo` say what each of the two does by itself. `beats_controls`: nearer to the true jitter than every control whose PSNR
  is not more than 0.1 dB below the claim's: frozen network, stronger penalties, and low passes of the drivers of several strengths (of
  the film without the terms, and of a film trained on low-passed drivers). `beats_calm_controls` lets the frozen network and the penalties
  have the calm drivers too: what the terms in training add to those.
  """
  by_name = {row["case"]: row for row in rows}
  base, method = Look("none, noise 1"), Look("both, noise 1", "calm")
  ladder = lambda suffix, start: {
    label: change(by_name, Look(f"{case}, {suffix}", way), start)
    for label, case, way in (
      ("physics", "physics", "tracked"),
      ("transport", "transport", "tracked"),
      ("terms", "both", "tracked"),
      ("calm", "none", "calm"),
      ("terms and calm", "both", "calm"),
      ("smooth", "none", "smooth"),
      ("terms and smooth", "both", "smooth"),
    )
  }
  found: dict[str, Any] = {"studio": ladder("noise 1", base), "demo": ladder("demo", Look("none, demo"))}
  found["noise_ladder"] = {
    f"{noise:g}": change(by_name, Look(f"both, noise {noise:g}", "calm"), Look(f"none, noise {noise:g}")) for noise in _NOISES
  }
  for film in ("studio", "demo"):
    whole = found[film]["terms and calm"] or {}
    found[f"{film}_jitter_reduction"] = whole.get("jitter_reduction")
    found[f"{film}_psnr_change_db"] = whole.get("psnr_change_db")
  film = Look("smooth film", "smooth"), Look("smooth film, demo", "smooth")
  found["smooth_film"] = {"studio": change(by_name, film[0], base), "demo": change(by_name, film[1], Look("none, demo"))}
  found["studio_error_change_mm"] = (found["studio"]["terms and calm"] or {}).get("error_change_mm")
  borders = "tearing_ratio", "tearing_doubled_ratio", "crack_ratio", "seam_ratio"
  for name in borders:
    found[name] = (found["studio"]["transport"] or {}).get(name)
  free = change(by_name, Look("free network, transport"), Look("free network, none")) or {}
  found["free_network"] = {name: free.get(name) for name in (*borders, "psnr_change_db", "error_change_mm")}
  looks = {name: Look(name, row.get("drivers", "tracked")) for name, row in by_name.items() if name.startswith("control")}
  looks |= {f"control: {way}": Look(base.case, way) for way in LOW_PASSES}
  controls = {name: change(by_name, look, base) for name, look in looks.items()}
  found["controls"] = {name: one for name, one in controls.items() if one is not None}
  found["beats_controls"] = _beats(change(by_name, method, base), found["controls"])
  calm = {name: change(by_name, look._replace(way="calm"), base) for name, look in looks.items() if name in by_name}
  found["calm_controls"] = {name: one for name, one in calm.items() if one is not None}
  found["beats_calm_controls"] = _beats(change(by_name, method, base), found["calm_controls"])
  return found


def _beats(claim: dict[str, float] | None, controls: dict[str, dict[str, float]]) -> bool | None:
  if claim is None or not controls:
    return None
  rivals = [one for one in controls.values() if one["psnr_change_db"] >= claim["psnr_change_db"] - _EQUAL]
  return claim["jitter_reduction"] > 0 and all(claim["jitter_reduction"] > one["jitter_reduction"] for one in rivals)
