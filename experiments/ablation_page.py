"""The tables and charts of docs/ablation.md, from experiments/results/ablate_physics.json.

python -m experiments.ablation_page
"""

import re
from typing import Any

import numpy as np

from experiments.ablation_drivers import LOW_PASSES
from experiments.ablation_summary import Look, change, figure
from experiments.pages import DOCS, fill, read, table
from silky_jax.charts import INKS

_CHARTS = DOCS / "images"
_LADDER = {
  "neither": ("none", "tracked"),
  "physics": ("physics", "tracked"),
  "transport": ("transport", "tracked"),
  "both": ("both", "tracked"),
  "neither, calm": ("none", "calm"),
  "physics, calm": ("physics", "calm"),
  "both, calm": ("both", "calm"),
  "neither, smooth": ("none", "smooth"),
  "both, smooth": ("both", "smooth"),
}
_NOISES = ("0.5", "1", "2")
# Heading -> figure in the rows, digits.
_PICTURES = {
  "PSNR, dB": ("psnr", 2),
  "mouth": ("mouth.psnr", 2),
  "eyes": ("eyes.psnr", 2),
  "SSIM": ("ssim", 3),
  "LPIPS": ("lpips_alex", 4),
  "of the mouth": ("mouth.lpips_alex", 4),
  "of the eyes": ("eyes.lpips_alex", 4),
  "tLP": ("tlp", 4),
  "PSNR of differences": ("temporal.psnr", 2),
}
_MOTION = {
  "jitter": ("heldout.jitter_mm", 2),
  "in the skull": ("heldout.skull_jitter_mm", 2),
  "network's own": ("heldout.own_jitter_mm", 3),
  "covariances": ("heldout.covariance_jitter", 3),
  "error, mm": ("heldout.error_mm", 2),
  "in the skull, mm": ("heldout.skull_error_mm", 2),
}
_TRAIN = {
  "training frames, corrected: jitter": ("train.jitter_mm", 2),
  "jitter in the skull": ("train.skull_jitter_mm", 2),
  "error there, mm": ("train.error_mm", 2),
}
_BORDERS = {"tearing": ("tearing", 4), "doubled": ("tearing_doubled", 4), "crack": ("crack", 3), "seam": ("seam", 3)}
_LABEL, _LINE = 130, 12  # px that a label takes
# Heading -> the cases under it, by the regular expression that all of a name matches.
_SECTIONS = {
  "Physics, part by part": r"means of order 1|covariances .*|absolute.*|world.*|two-sided|physics x .*",
  "Transport, part by part": r"weights .*|without E.|groups .*|transport (x|against) .*",
  "A network that nothing else holds back": r"free network.*",
  "The film and its corrections": r"(calm|smooth) film.*|.*corrections.*",
  "The UV splatter image": r"uv.*",
  "Without a network, demo": r"no network.*",
}
_CHANGES = {
  "nearer to true jitter": ("jitter_reduction", 100, 0, " %"),
  "network's own jitter": ("own_jitter_ratio", 100, 0, " %"),
  "covariances": ("covariance_jitter_ratio", 100, 0, " %"),
  "error, mm": ("error_change_mm", 1, 2, ""),
  "PSNR, dB": ("psnr_change_db", 1, 2, ""),
  "mouth, dB": ("mouth_psnr_change_db", 1, 2, ""),
  "eyes, dB": ("eyes_psnr_change_db", 1, 2, ""),
  "tLP": ("tlp_change", 1, 4, ""),
  "crack": ("crack_ratio", 100, 0, " %"),
}
_SHORT = {name: (_PICTURES | _MOTION)[name] for name in ("PSNR, dB", "jitter", "network's own", "covariances", "error, mm")}
_REST = {"PSNR, dB": _PICTURES["PSNR, dB"], "mouth": _PICTURES["mouth"]} | _SHORT | _TRAIN | _BORDERS


def _cell(rows: dict[str, Any], look: Look, key: str, digits: int) -> str:
  values = figure(rows, look, key)
  if values is None or not np.isfinite(values).all():
    return "-"
  return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def _lines(rows: dict[str, Any], looks: dict[str, Look], columns: dict[str, tuple[str, int]]) -> str:
  """A table of cases that were run: means over seeds, and their deviations."""
  lines = [
    [name, *(_cell(rows, look, *column) for column in columns.values())]
    for name, look in looks.items()
    if figure(rows, look, "psnr") is not None
  ]
  return table(["", *columns], lines)


def _change_table(found: dict[str, dict[str, float] | None]) -> str:
  """Changes against a base: ratios in per cent of it, the first column how much nearer to the truth (on a clip: lower)."""
  lines = []
  for name, one in found.items():
    if one is None:
      continue
    cell = lambda key, times, digits, unit, one=one: f"{times * one[key]:.{digits}f}{unit}" if key in one else "-"
    lines.append([name, *(cell(*column) for column in _CHANGES.values())])
  return table(["", *_CHANGES], lines)


def _scatter(title: str, groups: dict[str, list[tuple[float, float, str]]], x_label: str, y_label: str) -> str:
  """Named points in a plane, as SVG."""
  width, height, left, right, top, bottom = 860, 420, 64, 20, 60, 44
  font = "font-family='system-ui,sans-serif' font-size='11'"
  points = np.asarray([point[:2] for group in groups.values() for point in group])
  low, high = points.min(axis=0), points.max(axis=0)
  room = 0.07 * (high - low)
  low, high = low - room, high + room
  across = lambda x: left + (x - low[0]) / (high[0] - low[0]) * (width - left - right)
  up = lambda y: top + (high[1] - y) / (high[1] - low[1]) * (height - top - bottom)
  parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {font}>"]
  parts.append(
    f"<rect width='{width}' height='{height}' fill='#ffffff'/><text x='8' y='18' font-size='13' font-weight='600'>{title}</text>"
  )
  for tick in np.linspace(low[1] + room[1], high[1] - room[1], 4):
    parts.append(f"<line x1='{left}' x2='{width - right}' y1='{up(tick):.1f}' y2='{up(tick):.1f}' stroke='#e4e8ec'/>")
    parts.append(f"<text x='{left - 6}' y='{up(tick) + 4:.1f}' text-anchor='end' fill='#56616b'>{tick:.2f}</text>")
  for tick in np.linspace(low[0] + room[0], high[0] - room[0], 5):
    parts.append(f"<text x='{across(tick):.1f}' y='{height - 26}' text-anchor='middle' fill='#56616b'>{tick:.1f}</text>")
  parts.append(f"<text x='{width - right}' y='{height - 8}' text-anchor='end' fill='#56616b'>{x_label}</text>")
  parts.append(f"<text x='8' y='{top - 10}' fill='#56616b'>{y_label}</text>")
  written: list[tuple[float, float]] = []
  for number, (name, group) in enumerate(groups.items()):
    ink = INKS[number % len(INKS)]
    parts.append(f"<circle cx='{left + 200 * number}' cy='32' r='4' fill='{ink}'/><text x='{left + 8 + 200 * number}' y='36'>{name}</text>")
    for x, y, label in sorted(group, key=lambda point: -point[1]):
      late = across(x) > 0.8 * width
      here, line = across(x), up(y) - 5
      while any(abs(here - other) < _LABEL and abs(line - row) < _LINE for other, row in written):
        line += 2  # under what is written there
      written.append((here, line))
      parts.append(f"<circle cx='{here:.1f}' cy='{up(y):.1f}' r='4' fill='{ink}'/>")
      side = f"x='{here - 7:.1f}' text-anchor='end'" if late else f"x='{here + 7:.1f}'"
      parts.append(f"<text {side} y='{line:.1f}' fill='{ink}'>{label}</text>")
  return "".join(parts) + "</svg>\n"


def _plane(rows: dict[str, Any], film: str) -> dict[str, list[tuple[float, float, str]]]:
  """PSNR over jitter: terms as tracked, low passes of the film without terms, terms and calm drivers, controls."""
  at = lambda look, label: (float(figure(rows, look, "heldout.jitter_mm").mean()), float(figure(rows, look, "psnr").mean()), label)
  there = lambda look: figure(rows, look, "psnr") is not None
  name = lambda case: Look(f"{case}, {film}")
  groups = {
    "as tracked": [(name(case), label) for label, (case, way) in _LADDER.items() if way == "tracked"],
    "calm, smooth": [(name(case)._replace(way=way), label) for label, (case, way) in _LADDER.items() if way in ("calm", "smooth")],
    "low passes, neither term": [(name("none")._replace(way=way), way) for way in LOW_PASSES],
    "other controls": [
      (Look(case, rows[case].get("drivers", "tracked")), case.removeprefix("control: ")) for case in rows if case.startswith("control")
    ]
    if "noise" in film
    else [],
  }
  return {kind: [at(*pair) for pair in pairs if there(pair[0])] for kind, pairs in groups.items() if any(there(pair[0]) for pair in pairs)}


def short(found: dict[str, Any]) -> str:
  """What was asked of the method, and what the rows say of it."""
  rows, told = {row["case"]: row for row in found["rows"]}, found["summary"]
  studio, demo = told["studio"]["terms and calm"], told["demo"]["terms and calm"]
  light = change(rows, Look("physics, demo", "calm"), Look("none, demo"))
  share = lambda case: f"{figure(rows, Look(case), 'tearing_doubled').mean():.4f}"
  per = lambda value: f"{100 * value:.0f} %"
  verdict = {True: "yes", False: "**no**", None: "not run"}
  torn = max(figure(rows, Look(case), "tearing").max() for case in rows if figure(rows, Look(case), "tearing") is not None)
  runs = [run for row in found["rows"] for run in row["runs"]]
  broken, skipped = sum(run["not_finite"] for run in runs), sum(run["skipped"] for run in runs)
  lines = [
    ["studio, noise 1: jitter of held-out frames 40 % nearer to the true one", per(studio["jitter_reduction"])],
    ["there, PSNR at most 0.1 dB lower", f"{studio['psnr_change_db']:+.2f} dB"],
    ["there, positions nearer to the true ones", f"{studio['error_change_mm']:+.2f} mm"],
    ["there, nearer to the true jitter than every control of equal PSNR, driven as tracked", verdict[told["beats_controls"]]],
    ["and than the same controls with calm drivers", verdict[told["beats_calm_controls"]]],
    [
      "demo clip: jitter 25 % lower at 0.2 dB",
      f"{per(demo['jitter_reduction'])} at {demo['psnr_change_db']:+.2f} dB; without transport {per(light['jitter_reduction'])} at "
      f"{light['psnr_change_db']:+.2f} dB",
    ],
    [
      "tearing halved by transport, in expressions as filmed",
      f"at most {torn:.4f} of the neighbours, in any case" if torn else "nothing to halve: none tears, in any case",
    ],
    ["in expressions twice as wide, noise 2", f"{share('none, noise 2')} -> {share('transport, noise 2')}"],
    ["and for a network that nothing else holds back", f"{share('free network, none')} -> {share('free network, transport')}"],
    ["not one value that is not finite", f"{broken} in {len(runs)} runs; {skipped:g} steps skipped"],
  ]
  return table(["asked", "found"], lines)


def body(found: dict[str, Any]) -> str:
  """Everything between the marks, as Markdown."""
  rows = {row["case"]: row for row in found["rows"]}
  ladder = lambda film: {label: Look(f"{case}, {film}", way) for label, (case, way) in _LADDER.items()}
  steps = {f"noise {name}": one for name, one in found["summary"]["noise_ladder"].items()}
  parts = [
    f"{found['frames']} frames at {found['size']} px, {found['steps']} steps, seeds {', '.join(map(str, found['seeds']))}; means over "
    f"seeds ± their deviation; {found['machine']['device']}, commit {found['commit']}."
  ]
  for heading, changes in (
    ("Studio at noise 1, against neither term as tracked", found["summary"]["studio"]),
    ("Both terms and calm drivers, over the noise ladder", steps),
    ("Demo clip, against neither term as tracked", found["summary"]["demo"]),
    ("Controls with the same calm drivers, studio at noise 1", found["summary"]["calm_controls"]),
  ):
    if any(changes.values()):
      parts += [f"### {heading}", _change_table(changes)]
  for noise in _NOISES:
    looks = ladder(f"noise {noise}")
    if (true := figure(rows, looks["neither"], "heldout.true_jitter_mm")) is None:
      continue
    parts += [f"### Studio, noise {noise}: pictures", _lines(rows, looks, _PICTURES)]
    parts += [
      f"### Studio, noise {noise}: motion (true jitter {true.mean():.2f} mm per frame^3)",
      _lines(rows, looks, _MOTION | _TRAIN | _BORDERS),
    ]
  if "none, demo" in rows:
    looks = ladder("demo")
    parts += ["### Demo clip: pictures", _lines(rows, looks, _PICTURES)]
    motion = {name: column for name, column in _MOTION.items() if column[0] in rows["none, demo"]["runs"][0]}
    parts += ["### Demo clip: motion", _lines(rows, looks, motion | _BORDERS)]
  base = "none, noise 1"
  own = lambda case: Look(case, rows[case].get("drivers", "tracked"))
  controls = {name.removeprefix("control: "): own(name) for name in rows if name.startswith("control")}
  controls |= {f"{name}, calm": look._replace(way="calm") for name, look in controls.items()} | {way: Look(base, way) for way in LOW_PASSES}
  parts += ["### Controls, noise 1", _lines(rows, {"neither": Look(base), "both, calm": Look("both, noise 1", "calm")} | controls, _SHORT)]
  for heading, pattern in _SECTIONS.items():
    chosen = [name for name in rows if re.fullmatch(pattern, name)]
    looks = {name if own(name).way == "tracked" else f"{name}, driven so": own(name) for name in chosen}
    if looks:
      parts += [f"### {heading}", _lines(rows, looks, _REST)]
  if found["missing"]:
    parts.append("Not run: " + "; ".join(sorted(found["missing"])) + ".")
  return "\n\n".join(parts)


def uv_cost() -> str:
  """What a frame and a training step take, by the network."""
  found = read("uv_h200.json")["residual"]
  lines = []
  for name, one in found.items():
    frames = {row["batch"]: row for row in one["frames"]["rows"] if row["network"] != "none"}
    steps = {row["step"]: row for row in one["training"]["rows"]}
    lines.append([
      {"mlp": "MLP", "uv": "U-Net over the atlas"}[name],
      f"{frames[1]['ms_latency']:.2f}",
      *(f"{frames[batch]['frames_per_second']:,.0f}" for batch in (1, 8, 32)),
      f"{frames[1]['peak_memory_mib']} / {frames[32]['peak_memory_mib']}",
      f"{steps['photometric']['ms']:.2f}",
      f"{steps['stage 3 of 3']['ms']:.2f}",
      f"{steps['photometric']['peak_mib_so_far']:.0f}",
    ])  # fmt: skip
  head = ["", "frame at 512 px, ms", "frames/s, queued", "in batches of 8", "of 32", "peak MiB, 1 / 32", "training step without terms, ms"]
  return table([*head, "all terms, ms", "peak MiB"], lines)


def main() -> None:
  """Write both."""
  found = read("ablate_physics.json")
  rows = {row["case"]: row for row in found["rows"]}
  for film, name, words in (("noise 1", "studio", "the studio at noise 1"), ("demo", "demo", "the demo clip")):
    if groups := _plane(rows, film):
      title = f"Held-out frames of {words}: further left is calmer, further up a better picture"
      (_CHARTS / f"ablation_{name}.svg").write_text(_scatter(title, groups, "jitter, mm per frame^3", "PSNR, dB"))
  fill(DOCS / "ablation.md", "ablation_page", short(found), part="in short")
  fill(DOCS / "ablation.md", "ablation_page", uv_cost(), part="uv")
  fill(DOCS / "ablation.md", "ablation_page", body(found))


if __name__ == "__main__":
  main()
