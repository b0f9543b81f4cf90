"""The rasterizer's tests on a GPU, with what they said as JSON.

    python -m experiments.gpu_suite --output experiments/results/gpu_suite.json

The suite of every backend (`tests/kernels/splat_test.py`: values and all gradients against the definition, edges, batches, the same bits
again), the Pallas backend's own tests, and those of the other kernels, none of them in an interpreter.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
from absl import app, flags

from experiments.record import write_record

_OUTPUT = flags.DEFINE_string("output", "experiments/results/gpu_suite.json", "JSON file to write")
_TESTS = tuple(f"tests/kernels/{name}_test.py" for name in ("splat", "pallas", "project", "eigen3", "sinkhorn"))
_WHICH = "pallas or eigen3 or sinkhorn"


def main(_: list[str]) -> None:
  """Command line."""
  if jax.default_backend() != "gpu":
    raise SystemExit("gpu_suite: jax sees no GPU here; install jax[cuda12] or jax[cuda13] on a machine that has one")
  # The definition that judges is plain JAX: its products must not be rounded to ten bits.
  exact = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "JAX_PLATFORMS": "cuda,cpu"}
  with tempfile.TemporaryDirectory() as folder:
    report = Path(folder) / "report.xml"
    command = [sys.executable, "-m", "pytest", *_TESTS, "--slow", "-k", _WHICH, "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    subprocess.run(command, env=os.environ | exact, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
  outcome = lambda case: next((tag for tag in ("failure", "error", "skipped") if case.find(tag) is not None), "passed")
  names = {f"{case.get('classname')}.{case.get('name')}": outcome(case) for case in cases}
  counts = {kind: sum(found == kind for found in names.values()) for kind in ("passed", "failure", "error", "skipped")}
  reasons = {f"{case.get('name')}": found.get("message") for case in cases if (found := case.find("skipped")) is not None}
  content = {**counts, "skipped_because": reasons, "tests": names}
  write_record(_OUTPUT.value, content, command="python -m experiments.gpu_suite", packages=("jax", "jaxlib", "numpy"))
  print(counts)
  if counts["failure"] or counts["error"] or not counts["passed"]:
    raise SystemExit(1)


if __name__ == "__main__":
  app.run(main)
