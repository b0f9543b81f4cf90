"""The tables and the chart of docs/gpu.md, from experiments/results/{rasterize,avatar,train_speed,full_studio,full_demo}_h200.json.

python -m experiments.gpu_page
"""

from typing import Any

from experiments.pages import DOCS, fill, number, read, table
from silky_jax.charts import INKS

_CHART = DOCS / "images" / "gpu.svg"
_CURVE_EVERY = 2  # looks at held-out frames that the page quotes
_KINDS = {"forward": "picture", "forward_backward": "picture and gradients"}


def rasterizer(rows: list[dict[str, Any]]) -> str:
  """Ours against gsplat, as Markdown."""
  head = ["scene", "Gaussians", "px", "channels"]
  for what in _KINDS.values():
    head += [f"{what}: ours / gsplat, waited for", "ratio", "queued", "ratio", "GPU busy"]
  head += ["largest gradient difference"]
  lines = []
  for row in rows:
    cells = [row["scene"], f"{row['n']:,}", str(row["width"]), str(row["channels"])]
    for kind in _KINDS:
      for timing in ("_ms", "_queued_ms", "_busy_ms"):
        cells.append(f"{number(row[kind + timing])} / {number(row['gsplat_' + kind + timing])}")
        if timing != "_busy_ms":
          cells.append(f"{row[kind + timing] / row['gsplat_' + kind + timing]:.2f}")
    worst = max(value for key, value in row.items() if key.endswith("gradient_error"))
    lines.append([*cells, f"{worst:.1e}"])
  return table(head, lines)


def avatar(found: dict[str, Any]) -> str:
  """Frames and training steps of a whole avatar beside the peer's, as Markdown."""
  head = ["who", "what", "network", "products", "batch", "ms, waited for", "a second, queued", "PSNR against float32, dB"]
  lines = []
  for row in found["ours"]:
    terms = row.get("terms")
    what = (
      row["what"]
      if terms is None
      else f"{row['what']}: " + ("L1, SSIM" if len(terms) == 2 else "all terms" + (", LPIPS" if row["perceptual"] else ""))
    )
    rate = row.get("frames_per_second") or row.get("steps_per_second")
    psnr = row.get("psnr_against_float32")
    cells = ["ours", what, row["network"], row["precision"] or "-", str(row.get("batch", 1)), number(row["ms_latency"]), f"{rate:,.0f}"]
    lines.append([*cells, "-" if psnr is None or row["precision"] == "float32" else f"{psnr:.0f}"])
  for row in found["peer"]:
    rate = row.get("frames_per_second") or row.get("steps_per_second")
    what = row["what"] + (": L1, SSIM" if "terms" in row else "")
    lines.append(["PyTorch, " + row["mode"], what, "128x4", row["precision"], "1", number(row["ms_latency_clock"]), f"{rate:,.0f}", "-"])
  return table(head, lines)


def parts(found: dict[str, Any]) -> str:
  """What each term adds to a training step, as Markdown."""
  lines = [
    [row["step"], number(row["ms"]), number(row["busy_ms"]), f"{row['launches']:.0f}", number(row["compile_s"])] for row in found["rows"]
  ]
  return table(["step", "ms", "GPU busy, ms", "launches", "compiled in, s"], lines)


def full(found: dict[str, Any]) -> str:
  """One training of the whole recipe: its stages and its scores, as Markdown."""
  training, names = found["training"], ("L1, SSIM, alpha", "+ LPIPS", "+ physics, transport")
  starts = [row["step"] for row in training["compiled"]]
  lines = []
  for row, name, after in zip(training["compiled"], names, [*starts[1:], training["steps"]], strict=False):
    lines.append([name, f"{row['step']:,} to {after:,}", number(row["ms_a_step"]), number(row["seconds"])])
  stages = table(["terms", "steps", "ms a step", "compiled in, s"], lines)
  lines = []
  for split, sizes in found["scores"].items():
    for size, row in sizes.items():
      decibels = [f"{row[key]:.2f}" for key in ("psnr", "mouth_psnr", "eyes_psnr", "nearest_frame_psnr")]
      lines.append([split, size, str(row["frames"]), *decibels, f"{row['lpips_alex']:.4f}"])
  head = ["held out", "scored at", "frames", "PSNR, dB", "mouth", "eyes", "nearest training frame", "LPIPS Alex"]
  curve = ", ".join(f"{row['psnr']:.2f} after {row['seconds']:.0f} s ({row['step']:,})" for row in training["curve"][::_CURVE_EVERY])
  return f"{stages}\n\nMean PSNR of 16 held-out frames while it trained, dB: {curve}.\n\n{table(head, lines)}"


def chart(rows: list[dict[str, Any]]) -> str:
  """Bars of milliseconds per scene, both programs, as SVG."""
  bars = [
    (f"{who}: {what}", f"{prefix}{kind}_ms") for kind, what in _KINDS.items() for who, prefix in (("gsplat", "gsplat_"), ("ours", ""))
  ]
  left, top, thick, width = 96, 44, 12, 860
  each = thick * len(bars) + 14
  height, most = top + each * len(rows) + 8, max(row[key] for row in rows for _, key in bars)
  font = "font-family='system-ui,sans-serif' font-size='12'"
  parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {font}>"]
  parts.append(f"<rect width='{width}' height='{height}' fill='#ffffff'/>")
  parts.append("<text x='8' y='18' font-size='13' font-weight='600'>Whole calls on one H200, milliseconds, each waited for</text>")
  for ink, (name, _) in enumerate(bars):
    parts.append(f"<rect x='{left + 190 * ink}' y='27' width='10' height='10' fill='{INKS[ink]}'/>")
    parts.append(f"<text x='{left + 190 * ink + 14}' y='36'>{name}</text>")
  for place, row in enumerate(rows):
    y = top + 6 + each * place
    parts.append(f"<text x='{left - 8}' y='{y + each / 2:.1f}' text-anchor='end'>{row['scene']}</text>")
    for ink, (_, key) in enumerate(bars):
      long, here = (width - left - 60) * row[key] / most, y + thick * ink
      parts.append(f"<rect x='{left}' y='{here}' width='{long:.1f}' height='{thick - 2}' fill='{INKS[ink]}'/>")
      parts.append(f"<text x='{left + long + 4:.1f}' y='{here + 9}' font-size='9'>{number(row[key])}</text>")
  return "".join(parts) + "</svg>\n"


def main() -> None:
  """Write both."""
  rows = read("rasterize_h200.json")["rows"]
  _CHART.write_text(chart(rows))
  studio, demo = (read(f"full_{name}_h200.json") for name in ("studio", "demo"))
  took = lambda found: f"{found['training']['steps']:,} steps in {found['training']['seconds']:.0f} s, reading and compiling included"
  sections = [
    rasterizer(rows),
    f"A whole avatar:\n\n{avatar(read('avatar_h200.json'))}",
    f"What a step's terms take, at 512x512:\n\n{parts(read('train_speed_h200.json'))}",
    f"The whole recipe on the studio, 512x512, noise-free, {took(studio)}:\n\n{full(studio)}",
    f"The whole recipe on the demo clip, 256x256, {took(demo)}:\n\n{full(demo)}",
  ]
  fill(DOCS / "gpu.md", "gpu_page", "\n\n".join(sections))


if __name__ == "__main__":
  main()
