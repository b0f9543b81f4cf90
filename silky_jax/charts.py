"""Plain pages and charts as text: HTML without scripts, SVG without a library. Nothing refers to the outside."""

import html
from collections.abc import Mapping, Sequence

import numpy as np

INKS = ("#0b6e99", "#d1495b", "#4d9a50", "#8d6bb1", "#c98b1b", "#5b6470")
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1d2329;background:#fff;max-width:1080px;margin:32px auto;padding:0 20px}
h1{font-size:28px;margin:0 0 8px}h2{font-size:20px;margin:32px 0 8px}
table{border-collapse:collapse;margin:12px 0;font-variant-numeric:tabular-nums}
td,th{padding:4px 14px 4px 0;border-bottom:1px solid #e4e8ec;text-align:left;vertical-align:top}
th{font-weight:600}.note{color:#56616b;font-size:14px}img,video,svg{max-width:100%;height:auto}
"""


def page(title: str, body: str, style: str = "") -> str:
  """A whole HTML page around a body."""
  head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
  return f"<!doctype html><html lang='en'><head>{head}<style>{_STYLE}{style}</style></head><body>{body}</body></html>\n"


def line_chart(
  title: str, x: Sequence[float], series: Mapping[str, Sequence[float]], *, x_label: str = "seconds", width: int = 720, height: int = 220
) -> str:
  """Lines over one axis as inline SVG; gaps where a value is not finite; empty text when there is nothing to draw."""
  at = np.asarray(x, float)
  values = {name: np.asarray(y, float) for name, y in series.items()}
  finite = np.concatenate([y[np.isfinite(y)] for y in values.values()]) if values else np.zeros(0)
  if not len(at) or not len(finite):
    return ""
  low, high = float(finite.min()), float(finite.max())
  high = high if high > low else low + 1.0
  left, right, top, bottom = 66, 16, 30, 34
  span = max(float(at[-1] - at[0]), 1e-9)
  px = left + (at - at[0]) / span * (width - left - right)
  py = {name: top + (high - y) / (high - low) * (height - top - bottom) for name, y in values.items()}
  font = "font-family='system-ui,sans-serif' font-size='12'"
  parts = [f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img' aria-label='{html.escape(title)}' {font}>"]
  parts.append(f"<text x='{left}' y='16' font-weight='600' font-size='13'>{html.escape(title)}</text>")
  for share in (0.0, 0.5, 1.0):
    y = top + share * (height - top - bottom)
    parts.append(f"<line x1='{left}' x2='{width - right}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e4e8ec'/>")
    parts.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end' fill='#56616b'>{high - share * (high - low):.3g}</text>")
    tick = left + share * (width - left - right)
    parts.append(f"<text x='{tick:.1f}' y='{height - 16}' text-anchor='middle' fill='#56616b'>{at[0] + share * span:.4g}</text>")
  parts.append(f"<text x='{width - right}' y='{height - 3}' text-anchor='end' fill='#56616b'>{html.escape(x_label)}</text>")
  legend = width - right
  for number, (name, y) in reversed(list(enumerate(py.items()))):
    ink = INKS[number % len(INKS)]
    for run in _runs(np.isfinite(y)):
      points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px[run], y[run], strict=True))
      parts.append(f"<polyline points='{points}' fill='none' stroke='{ink}' stroke-width='1.4'/>")
    if len(py) > 1:
      parts.append(f"<text x='{legend}' y='16' text-anchor='end' fill='{ink}'>{html.escape(name)}</text>")
      legend -= 7 * len(name) + 14
  return "".join(parts) + "</svg>"


def _runs(good: np.ndarray) -> list[slice]:
  """Maximal stretches of true values."""
  edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
  return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
