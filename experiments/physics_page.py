"""The tables of docs/physics.md, from experiments/results/{step_cost,soak,soak_h200,demo_cpu}.json.

python -m experiments.physics_page
"""

from statistics import mean

from experiments.pages import DOCS, fill, read, table


def _soaks() -> str:
  """What `soak` found on a CPU, and the ablation's ten seeds side by side on a GPU."""
  found, wide = read("soak.json"), read("soak_h200.json")
  runs, row = found["rows"], wide["rows"][0]
  return (
    f"{len(runs)} runs from random seeds, {runs[0]['steps']} steps, {runs[0]['gaussians']:,} Gaussians, {found['weights']}: "
    f"{sum(r['not_finite'] for r in runs)} values of {sum(r['values_looked_at'] for r in runs):,} logged and of the last states were not "
    f"finite, {sum(r['steps_skipped'] for r in runs):g} steps were skipped, mean PSNR at the end "
    f"{mean(r['last']['psnr'] for r in runs):.1f} dB (`experiments/soak.py`, {found['machine']['device']}).\n\n"
    f"{len(row['runs'])} runs of {wide['steps']} steps with an atlas of {wide['uv_size']} x {wide['uv_size']} texels, as the demo's 14,299 "
    f"Gaussians have: {sum(r['not_finite'] for r in row['runs'])} values of the last states were not finite, "
    f"{sum(r['skipped'] for r in row['runs']):g} steps were skipped (`experiments/results/soak_h200.json`, {wide['machine']['device']})."
  )


def tables() -> str:
  """The figures as Markdown."""
  cost = read("step_cost.json")
  demo = [row for row in read("demo_cpu.json")["shares"] if "physics" in row]
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
  return "\n\n".join(
    [
      "### Shares of the gradient\n\nIn the demo, whose tracking is smoothed and calm, physics has "
      + ", ".join(f"{100 * row['physics']:.1f} % at step {row['step']}" for row in demo)
      + "; transport "
      + ", ".join(f"{100 * row['transport']:.0f} %" for row in demo)
      + ". Where nothing jitters, physics has nothing to say.",
      f"### What they cost\n\nThe demo's last step with LPIPS, {cost['gaussians']:,} Gaussians, {cost['size'][0]} px, windows of "
      f"{cost['settings']['window']}, on {cost['machine']['cores']} cores of {cost['machine']['device']} (`experiments/step_cost.py`). "
      f"{unsolved} of {solves} transport problems of these first steps did not converge in "
      f"{cost['settings']['transport']['max_iterations']} iterations.",
      table(["terms", "ms per step", "time", "scratch, MiB", "memory"], spent),
      f"### Do they ever break\n\n{_soaks()}",
    ]
  )


def main() -> None:
  """Write the tables between their marks."""
  fill(DOCS / "physics.md", "physics_page", tables())


if __name__ == "__main__":
  main()
