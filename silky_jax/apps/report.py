"""One HTML file that says how good an avatar is: videos, pictures, tables, curves, and what is weak. It asks nothing of the outside."""

import base64
import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from silky_jax.apps import verdict
from silky_jax.charts import line_chart, page
from silky_jax.config import UserError
from silky_jax.training.metrics import JsonLines

__all__ = ["VIEW_COLUMNS", "build", "write_report"]

VIEW_COLUMNS = 3  # of the six views in one picture

_SPLITS = {"heldout_blocks": "Held-out blocks", "heldout_tail": "Held-out tail"}
_SPLIT_NOTES = {
  "heldout_blocks": "every fifth second, taken out of the middle of the clip: motion between poses that were trained on",
  "heldout_tail": "the last 15 % of the clip, taken out whole: poses that were never seen",
}
_ROWS = {
  "avatar": ("the avatar", "driven by tracked parameters alone"),
  "nearest_frame": ("nearest frame", "the training photograph nearest in tracked parameters"),
  "aligned_frame": ("aligned frame", "the one nearest in expression and head rotation, moved onto the held-out landmarks"),
  "truth_shifted_1px": ("truth, 1 px aside", "calibration: what one pixel of misplacement costs"),
  "truth_shifted_2px": ("truth, 2 px aside", "calibration"),
  "truth_blurred": ("truth, blurred", "calibration: Gaussian, sigma 1 px"),
}
# (heading, path into the scores, decimals, is more better)
_COLUMNS = (
  ("PSNR dB", ("psnr",), 2, True),
  ("on white", ("on_white", "psnr"), 2, True),
  ("SSIM", ("ssim",), 4, True),
  ("LPIPS Alex", ("lpips_alex",), 4, False),
  ("LPIPS VGG", ("lpips_vgg",), 4, False),
  ("mouth dB", ("mouth", "psnr"), 2, True),
  ("eyes dB", ("eyes", "psnr"), 2, True),
  ("change dB", ("temporal", "psnr"), 2, True),
  ("change LPIPS", ("temporal", "lpips_alex"), 4, False),
  ("whole dB", ("whole", "psnr"), 2, True),
  ("whole SSIM", ("whole", "ssim"), 4, True),
  ("whole LPIPS", ("whole", "lpips_alex"), 4, False),
)
_STAGES = {
  "preprocess": "track the video",
  "train": "train",
  "eval": "score",
  "render": "videos and pictures",
}
_STYLE = """
body{max-width:1120px;background:#f6f7f9}
main{background:#fff;border:1px solid #e4e8ec;border-radius:12px;padding:28px 36px 40px}
h2{margin-top:44px;padding-top:20px;border-top:1px solid #e4e8ec}
h3{font-size:16px;margin:24px 0 4px}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:20px 0}
.tile{border:1px solid #e4e8ec;border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:25px;line-height:1.3;font-variant-numeric:tabular-nums}
.tile span{display:block;font-size:13px;color:#56616b}
.tile .ok{color:#2f7d46}.tile .no{color:#b3402a}
.panels{display:grid;grid-template-columns:repeat(3,1fr);font-size:14px;color:#56616b;text-align:center;margin:10px 0 4px}
video,.wide{width:100%;border-radius:8px;display:block}
.row{display:grid;grid-template-columns:1fr 1fr;gap:20px 28px;align-items:start}
.over{position:relative}
.over span{position:absolute;margin:6px;padding:1px 7px;font-size:13px;color:#30383f;background:#ffffffd0;border-radius:6px}
.scroll{overflow-x:auto}
table{font-size:13.5px;width:100%}
td,th{padding:5px 0 5px 12px;white-space:nowrap}
td:first-child,th:first-child{padding-left:8px}
td:not(:first-child),th:not(:first-child){text-align:right}
th{vertical-align:bottom;white-space:normal}
td small{display:block;font-weight:400;color:#7a858f;white-space:normal;max-width:230px;line-height:1.3}
tr.me td{font-weight:600;background:#eef5f9}
tr.cal td{color:#56616b}
.best{color:#0b6e99}
.bar{fill:#0b6e99}
ul{padding-left:20px}li{margin:5px 0}
dl{display:grid;grid-template-columns:190px 1fr;gap:4px 16px;font-size:14px}
dt{color:#56616b}dd{margin:0}
.scale{height:10px;border-radius:5px;margin-top:8px;background:linear-gradient(90deg,#000004,#420a68,#932667,#dd513a,#fca50a,#fcffa4)}
@media(max-width:800px){.tiles{grid-template-columns:1fr 1fr}.row{grid-template-columns:1fr}main{padding:16px}}
"""


def write_report(run_dir: str | os.PathLike) -> Path:
  """Write `report.html` of a run from the files that evaluation and rendering left in its folder.

  Needed: `metrics.json`, `heldout.mp4`. Shown where present: `evaluation/{worst.png, views.png, sweep.mp4, curves.json}`,
  `train/metrics.jsonl`.

  Args:
    run_dir: the run's folder.

  Returns:
    The path written.

  Raises:
    UserError: a needed file is missing or broken, or the folder cannot be written.
  """
  run_dir = Path(run_dir)
  metrics = _json(run_dir / "metrics.json")
  if not (run_dir / "heldout.mp4").is_file():
    raise UserError(f"{run_dir / 'heldout.mp4'} is missing: run the rendering stage again (`python run.py demo --output_dir {run_dir}`)")
  path, part = run_dir / "report.html", run_dir / ".report.html.part"
  try:
    part.write_text(build(run_dir, metrics), encoding="utf-8")
    os.replace(part, path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
  return path


def _json(path: Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except OSError as error:
    raise UserError(f"{path} is missing: run the evaluation first (`python run.py eval`)") from error
  except ValueError as error:
    raise UserError(f"{path} is no JSON ({error}): delete it and run the evaluation again") from error


def build(run_dir: Path, metrics: Mapping[str, Any]) -> str:
  """The whole page as text.

  Args:
    run_dir: where the videos and pictures lie.
    metrics: what `metrics.json` holds.
  """
  curves = _json(run_dir / "evaluation" / "curves.json") if (run_dir / "evaluation" / "curves.json").is_file() else {}
  facts = metrics.get("facts", {})
  parts = [
    f"<h1>A head avatar from {_text(facts.get('clip', 'one video'))}</h1>",
    f"<p>{_text(_summary(facts))}</p>",
    _tiles(metrics),
    _videos(run_dir, facts),
    _section("What is weak", _list(verdict.weaknesses(metrics))),
    _section("Scores on held-out frames", "".join(_score_table(metrics, split) for split in _SPLITS if split in metrics) + _SCORE_NOTE),
    _views(run_dir, metrics),
    _follow(metrics, curves),
    _training(run_dir),
    _costs(metrics),
    _section("How every score was taken", _circumstances(metrics)),
  ]
  return page("Head avatar report", "<main>" + "".join(parts) + "</main>", _STYLE)


_SCORE_NOTE = (
  "<p class='note'>Inside the soft head-and-neck mask unless it says whole. On white: PSNR with white behind instead. Mouth and "
  "eyes: by region labels. Change: scores of the "
  "difference between successive frames, where flicker shows. Blue: best of avatar and baselines. A baseline is a real photograph: "
  "sharp, but it cannot turn or speak by itself.</p>"
)


def _text(value: Any) -> str:
  return html.escape(str(value))


def _number(value: float | None, decimals: int) -> str:
  return "-" if value is None else f"{value:.{decimals}f}"


def _section(title: str, body: str) -> str:
  return f"<section><h2>{_text(title)}</h2>{body}</section>" if body else ""


def _list(lines: Sequence[str]) -> str:
  return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _data(path: Path, kind: str) -> str:
  return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _video(path: Path) -> str:
  return f"<video controls loop muted autoplay playsinline src='{_data(path, 'video/mp4')}'></video>"


def _picture(path: Path, words: str) -> str:
  kind = "image/jpeg" if path.suffix == ".jpg" else "image/png"
  return f"<img class='wide' alt='{_text(words)}' src='{_data(path, kind)}'>"


def _summary(facts: Mapping[str, Any]) -> str:
  frames = facts.get("frames", {})
  known = [
    f"{facts['gaussians']:,} Gaussians" if facts.get("gaussians") else "",
    f"{facts['train_resolution']} px training pictures" if facts.get("train_resolution") else "",
    f"{facts['steps']:,} steps" if facts.get("steps") else "",
    f"{frames['train']} frames trained on, {frames['scored']} scored" if frames else "",
    f"device: {facts['device']}" if facts.get("device") else "",
  ]
  return "One video in, an animatable 3D Gaussian head out. " + "; ".join(part for part in known if part) + "."


def _tiles(metrics: Mapping[str, Any]) -> str:
  tiles = []
  for goal in verdict.goals(metrics):
    mark = (
      ""
      if goal.reached is None
      else f"<span class='{'ok' if goal.reached else 'no'}'>{'reached' if goal.reached else 'missed'}: wanted {_text(goal.wanted)}</span>"
    )
    tiles.append(f"<div class='tile'><span>{_text(goal.name)}</span><b>{_text(goal.shown)}</b>{mark}</div>")
  return f"<div class='tiles'>{''.join(tiles)}</div>"


def _videos(run_dir: Path, facts: Mapping[str, Any]) -> str:
  heads = "<div class='panels'><div>ground truth</div><div>avatar</div><div>error</div></div>"
  scale = "<div class='scale'></div><p class='note'>Error: mean absolute difference, black 0 to pale yellow 64 of 255 and more. "
  scale += "Scored held-out frames one after the other; the number is that of the frame in the source video.</p>"
  body = heads + _video(run_dir / "heldout.mp4") + scale
  worst = run_dir / "evaluation" / "worst.png"
  if worst.is_file():
    about = facts.get("worst", {})
    words = f"The worst frame: number {about.get('index', '?')} of {_SPLITS.get(about.get('split'), 'the held-out frames').lower()}"
    body += f"<h3>{_text(words)}, {_number(about.get('psnr'), 2)} dB</h3>{_picture(worst, words)}"
  out = _section("The avatar beside the truth", body)
  sweep = run_dir / "evaluation" / "sweep.mp4"
  if sweep.is_file():
    words = (
      "Jaw, lips, brows and lids one after the other, each as far as the person went in training or a little further, while "
      "the camera turns 40 degrees to both sides."
    )
    out += _section("Expressions from a turning camera", f"<div class='row'><div>{_video(sweep)}</div><p>{words}</p></div>")
  return out


def _score_table(metrics: Mapping[str, Any], split: str) -> str:
  rows = metrics[split]

  def value(name: str, path: Sequence[str]) -> float | None:
    return _at(rows.get(name, {}), path)

  lines = ["<tr><th></th>" + "".join(f"<th>{heading}</th>" for heading, *_ in _COLUMNS) + "</tr>"]
  for name, (label, words) in _ROWS.items():
    if name not in rows:
      continue
    cells = []
    for _, path, decimals, more in _COLUMNS:
      rivals = [v for v in (value(rival, path) for rival in ("avatar", "nearest_frame", "aligned_frame")) if v is not None]
      best = rivals and not name.startswith("truth") and value(name, path) == (max(rivals) if more else min(rivals))
      cells.append(f"<td{' class=best' if best else ''}>{_number(value(name, path), decimals)}</td>")
    kind = "me" if name == "avatar" else "cal" if name.startswith("truth") else ""
    lines.append(f"<tr class='{kind}'><td>{_text(label)}<small>{_text(words)}</small></td>{''.join(cells)}</tr>")
  frames = rows.get("avatar", {}).get("frames", 0)
  head = f"<h3>{_SPLITS[split]}: {frames} frames</h3><p class='note'>{_SPLIT_NOTES[split]}</p>"
  return f"{head}<div class='scroll'><table>{''.join(lines)}</table></div>"


def _at(tree: Any, path: Sequence[str]) -> float | None:
  for key in path:
    tree = tree.get(key) if isinstance(tree, Mapping) else None
  return tree


def _views(run_dir: Path, metrics: Mapping[str, Any]) -> str:
  picture, views = run_dir / "evaluation" / "views.png", metrics.get("views")
  if not picture.is_file() or not views:
    return ""
  lines = ["<tr><th>yaw, pitch</th><th>alpha covers</th><th>largest hole</th></tr>"]
  for row in views["views"]:
    figures = f"<td>{100 * row['coverage']:.2f} %</td><td>{100 * row['largest_hole']:.3f} %</td>"
    lines.append(f"<tr><td>{row['yaw']:+.0f}, {row['pitch']:+.0f} degrees</td>{figures}</tr>")
  note = f"<p class='note'>Share of the rig's head silhouette: {_text(views['measured'])}.</p>"
  rows = -(-len(views["views"]) // VIEW_COLUMNS)
  captions = "".join(
    f"<span style='left:{100 * (k % VIEW_COLUMNS) / VIEW_COLUMNS:.2f}%;top:{100 * (k // VIEW_COLUMNS) / rows:.2f}%'>"
    f"yaw {row['yaw']:+.0f}, pitch {row['pitch']:+.0f}</span>"
    for k, row in enumerate(views["views"])
  )
  shown = f"<div class='over'>{_picture(picture, 'six views of the head')}{captions}</div>"
  return _section("Six views", f"{shown}<table style='max-width:420px'>{''.join(lines)}</table>{note}")


def _follow(metrics: Mapping[str, Any], curves: Mapping[str, Any]) -> str:
  row = metrics.get("expression_follow")
  if not row:
    return ""
  words = (
    f"Correlation with the truth over {row['frames']} of {row['of']} held-out frames: lips {_number(row['lips'], 3)}, lids "
    f"{_number(row['lids'], 3)}. Openings in per cent of the face width, measured on photographs and renders alike. In "
    f"{row['avatar_without_face']} renders the landmark model found no face."
  )
  charts = []
  for split, curve in curves.get("follow", {}).items():
    for part in ("lips", "lids"):
      series = {who: _percent(curve[f"{part}_{who}"]) for who in ("truth", "avatar")}
      title = f"{_SPLITS.get(split, split)}: {part}"
      charts.append(f"<div>{line_chart(title, list(range(len(series['truth']))), series, x_label='scored frame', width=520)}</div>")
  return _section("Does it follow the face?", f"<p>{_text(words)}</p><div class='row'>{''.join(charts)}</div>")


def _percent(values: Sequence[float | None]) -> list[float]:
  return [float("nan") if v is None else 100.0 * v for v in values]


def _training(run_dir: Path) -> str:
  logged = JsonLines.read(run_dir / "train" / "metrics.jsonl")
  records = [record for record in logged if isinstance(record.get("step"), int) and "event" not in record]
  names = sorted(
    {key for record in records for key, value in record.items() if isinstance(value, int | float) and key not in verdict.NO_CURVE}
  )
  charts = []
  for name in sorted(names, key=verdict.curve_rank):
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), int | float)]
    if len(points) > 2:
      steps, values = zip(*points, strict=True)
      charts.append(f"<div>{line_chart(name, steps, {name: values}, x_label='step', width=520, height=190)}</div>")
  return _section("Training", f"<div class='row'>{''.join(charts[:8])}</div>" if charts else "")


def _costs(metrics: Mapping[str, Any]) -> str:
  seconds = {key: value for key, value in metrics.get("seconds", {}).items() if isinstance(value, int | float)}
  if not seconds:
    return ""
  total = sum(value for key, value in seconds.items() if key != "total")
  lines = ["<tr><th>stage</th><th></th><th>minutes</th></tr>"]
  for key, value in seconds.items():
    if key != "total":
      width = 320 * value / max(total, 1e-9)
      bar = f"<svg width='320' height='12' role='img' aria-label='share'><rect class='bar' width='{width:.1f}' height='12' rx='3'/></svg>"
      lines.append(f"<tr><td>{_text(_STAGES.get(key, key))}</td><td style='text-align:left'>{bar}</td><td>{value / 60:.2f}</td></tr>")
  lines.append(f"<tr><td><b>together</b></td><td></td><td><b>{total / 60:.2f}</b></td></tr>")
  memory = metrics.get("peak_memory_bytes")
  words = f"<p>Peak memory: {memory / 2**30:.2f} GiB.</p>" if memory else ""
  return _section("Time and memory", f"<table style='max-width:640px'>{''.join(lines)}</table>{words}")


def _circumstances(metrics: Mapping[str, Any]) -> str:
  out = []
  for split, title in _SPLITS.items():
    meta = metrics.get(split, {}).get("avatar", {}).get("meta", {})
    items = "".join(f"<dt>{_text(key.replace('_', ' '))}</dt><dd>{_text(_plain(value))}</dd>" for key, value in meta.items())
    out.append(f"<h3>{title}</h3><dl>{items}</dl>" if items else "")
  facts = metrics.get("facts", {})
  items = "".join(f"<dt>{_text(key.replace('_', ' '))}</dt><dd>{_text(_plain(value))}</dd>" for key, value in facts.items())
  return "".join(out) + (f"<h3>This run</h3><dl>{items}</dl>" if items else "")


def _plain(value: Any) -> str:
  if isinstance(value, Mapping):
    return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
  if isinstance(value, list | tuple):
    return ", ".join(_plain(item) for item in value)
  return f"{value:.4g}" if isinstance(value, float) else str(value)
