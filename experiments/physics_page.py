"""The tables of docs/physics.md, from experiments/results/{ablation,step_cost,soak}.json.

python -m experiments.physics_page
"""

from statistics import mean

from experiments.pages import DOCS, fill, read, table

_COLUMNS = {
  "jerk, mm per frame^3": ("jerk_mm", 2),
  "flicker": ("flicker", 3),
  "slip, mm": ("slip_mm", 2),
  "groups, mm": ("group_mm", 2),
  "cracks": ("crack", 4),
  "PSNR blocks": ("psnr_heldout_blocks", 2),
  "PSNR tail": ("psnr_heldout_tail", 2),
  "of differences, blocks": ("temporal_psnr_heldout_blocks", 2),
  "tail": ("temporal_psnr_heldout_tail", 2),
}


def tables() -> str:
  """The figures as Markdown."""
  ablation, cost, soak = read("ablation.json"), read("step_cost.json"), read("soak.json")
  demo = [row for row in read("demo_cpu.json")["shares"] if "physics" in row]
  cases = list(dict.fromkeys(row["case"] for row in ablation["rows"]))
  seeds = sorted({row["seed"] for row in ablation["rows"]})
  of = {(row["case"], row["seed"]): row for row in ablation["rows"]}
  cell = lambda case, key, digits: " / ".join(f"{of[case, seed][key]:.{digits}f}" for seed in seeds)
  lines = [[case, *(cell(case, *column) for column in _COLUMNS.values())] for case in cases]
  shares = {
    name: [row["shares"][name] for row in ablation["rows"] if name in row["shares"]]
    for name in ("physics", "transport", "l1", "ssim", "perceptual")
  }
  shared = [[name, f"{100 * min(of):.1f} to {100 * max(of):.1f} %"] for name, of in shares.items()]
  film = ablation["film"]
  spent = [
    [
      row["terms"],
      f"{row['ms']:.1f}",
      f"{100 * row['more_time']:+.0f} %",
      f"{row['scratch_mib']:.0f}",
      f"{100 * row['more_scratch']:+.0f} %",
    ]
    for row in cost["rows"]
  ]
  unsolved = sum(row["unsolved"] for row in cost["rows"])
  solves = 2 * cost["settings"]["steps"] * 19
  runs = soak["rows"]
  return "\n\n".join(
    [
      f"### What each term moves\n\n{film['frames']} frames of a made-up person at {film['size']} px whose parameters are as noisy as a "
      f"tracker's, {ablation['steps']} steps, seeds {' / '.join(map(str, seeds))} (`experiments/first_ablation.py` says what each column "
      "is; less is better up to the cracks, more after them). Nothing here is a person's clip, and the fuller evidence is another matter.",
      table(["terms", *_COLUMNS], lines),
      "Shares of the gradient norm before the last step, least and most over these runs:",
      table(["term", "share"], shared),
      "In the demo, whose tracking is smoothed and calm, physics has "
      + ", ".join(f"{100 * row['physics']:.1f} % at step {row['step']}" for row in demo)
      + "; transport "
      + ", ".join(f"{100 * row['transport']:.0f} %" for row in demo)
      + ". Where nothing jitters, physics has nothing to say.",
      f"### What they cost\n\nThe demo's last step with LPIPS, {cost['gaussians']:,} Gaussians, {cost['size'][0]} px, windows of "
      f"{cost['settings']['window']}, on {cost['machine']['cores']} cores of {cost['machine']['device']} (`experiments/step_cost.py`). "
      f"{unsolved} of {solves} transport problems of these first steps did not converge in "
      f"{cost['settings']['transport']['max_iterations']} iterations.",
      table(["terms", "ms per step", "time", "scratch, MiB", "memory"], spent),
      f"### Do they ever break\n\n{len(runs)} runs from random seeds, {runs[0]['steps']} steps, {runs[0]['gaussians']:,} Gaussians, "
      f"{soak['weights']}: {sum(r['not_finite'] for r in runs)} values of {sum(r['values_looked_at'] for r in runs):,} logged and of the "
      f"last states were not finite, {sum(r['steps_skipped'] for r in runs):g} steps were skipped, mean PSNR at the end "
      f"{mean(r['last']['psnr'] for r in runs):.1f} dB (`experiments/soak.py`).",
    ]
  )


def main() -> None:
  """Write the tables between their marks."""
  fill(DOCS / "physics.md", "physics_page", tables())


if __name__ == "__main__":
  main()
