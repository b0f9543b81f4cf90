"""The tables and the chart of docs/rasterizer.md, from experiments/results/rasterize_cpu*.json.

python -m experiments.rasterizer_page
"""

import math

from experiments.pages import DOCS, fill, number, read, table
from silky_jax.charts import INKS

_CHART = DOCS / "images" / "rasterizer.svg"
_FILES = {"AVX-512": "rasterize_cpu.json", "AVX2": "rasterize_cpu_avx2.json", "portable": "rasterize_cpu_portable.json"}


def _rows() -> dict[str, dict[str, dict]]:
  """Instruction set -> scene -> row."""
  return {simd: {row["scene"]: row for row in read(name)["rows"]} for simd, name in _FILES.items()}


def tables(rows: dict[str, dict[str, dict]]) -> str:
  """The figures as Markdown."""
  best = rows["AVX-512"]
  keys = ("render_forward_ms", "render_forward_backward_ms", "forward_backward_ms", "splat_forward_ms", "splat_forward_backward_ms")
  head = ["scene", "Gaussians", "px", "channels", "render", "render + gradient", "from quaternions", "splat", "splat + gradient"]
  head += ["plain JAX", "times faster", "floor", "times the floor", "8 views / 8 x one"]
  lines = []
  for name, row in best.items():
    cells = [name, f"{row['n']:,}", str(row["width"]), str(row["channels"]), *(number(row[key]) for key in keys)]
    cells += [number(row["reference_forward_backward_ms"]), f"{row['speedup_over_reference']:.0f}", number(row["floor_ms"])]
    lines.append([*cells, f"{row['floor_ratio']:.1f}", f"{row['eight_ratio']:.2f}"])
  paths = ["scene", *(f"{simd}: {what}" for simd in rows for what in ("render + gradient", "times the floor"))]
  others = [
    [name, *(cell for of in rows.values() for cell in (number(of[name]["render_forward_backward_ms"]), f"{of[name]['floor_ratio']:.1f}"))]
    for name in best
  ]
  stages = ("bins", "picture", "gradient_tiles", "gradient_splats")
  spent = [[name, *(number(row[f"stage_{stage}_ms"]) for stage in stages)] for name, row in best.items()]
  parts = [table(head, lines), "By instruction set:", table(paths, others)]
  parts += ["Stages of splat, milliseconds on one thread, AVX-512:", table(["scene", *stages], spent)]
  return "\n\n".join(parts)


def chart(rows: dict[str, dict[str, dict]]) -> str:
  """Milliseconds of a view with its gradient, on a logarithmic axis, as SVG."""
  bars = {"plain JAX": {name: row["reference_forward_backward_ms"] for name, row in rows["AVX-512"].items()}}
  bars |= {simd: {name: row["render_forward_backward_ms"] for name, row in of.items()} for simd, of in reversed(rows.items())}
  bars["floor"] = {name: row["floor_ms"] for name, row in rows["AVX-512"].items()}
  scenes, left, top, thick, width = list(rows["AVX-512"]), 96, 44, 11, 760
  each = thick * len(bars) + 14
  height = top + each * len(scenes) + 24
  low, high = 0.1, 400.0
  at = lambda value: left + (width - left - 60) * math.log(value / low) / math.log(high / low)
  font = "font-family='system-ui,sans-serif' font-size='12'"
  parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {font}>"]
  parts.append(f"<rect width='{width}' height='{height}' fill='#ffffff'/>")
  parts.append("<text x='8' y='18' font-size='13' font-weight='600'>One view and all its gradients, milliseconds, two cores</text>")
  for ink, name in enumerate(bars):
    parts.append(f"<rect x='{left + 110 * ink}' y='27' width='10' height='10' fill='{INKS[ink]}'/>")
    parts.append(f"<text x='{left + 110 * ink + 14}' y='36'>{name}</text>")
  for tick in (0.1, 1, 10, 100):
    parts.append(f"<line x1='{at(tick):.1f}' x2='{at(tick):.1f}' y1='{top}' y2='{height - 20}' stroke='#e4e8ec'/>")
    parts.append(f"<text x='{at(tick):.1f}' y='{height - 6}' text-anchor='middle' fill='#56616b'>{tick:g}</text>")
  for place, scene in enumerate(scenes):
    y = top + 6 + each * place
    parts.append(f"<text x='{left - 8}' y='{y + each / 2:.1f}' text-anchor='end'>{scene}</text>")
    for ink, of in enumerate(bars.values()):
      value, here = of[scene], y + thick * ink
      parts.append(f"<rect x='{left}' y='{here}' width='{at(value) - left:.1f}' height='{thick - 2}' fill='{INKS[ink]}'/>")
      parts.append(f"<text x='{at(value) + 4:.1f}' y='{here + 8}' font-size='9'>{number(value)}</text>")
  return "".join(parts) + "</svg>\n"


def main() -> None:
  rows = _rows()
  _CHART.write_text(chart(rows))
  fill(DOCS / "rasterizer.md", "rasterizer_page", tables(rows))


if __name__ == "__main__":
  main()
