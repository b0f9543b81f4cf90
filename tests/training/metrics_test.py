"""Mergeable means and the metrics file."""

import json
import math

import numpy as np

from silky_jax.training.metrics import JsonLines, Means


def test_merge_equals_all_at_once():
  a = Means.empty().add({"x": 1.0, "y": 2.0}).add({"x": np.float32(4.0)}, weight=3.0)
  b = Means.empty().add({"x": 10.0})
  expected = {"x": (1 + 12 + 10) / 5, "y": 2.0}
  assert a.merge(b).compute() == b.merge(a).compute() == expected
  assert a.merge(Means.empty()).compute() == a.compute()
  assert math.isnan(Means.empty().add({"x": 1.0}, weight=0.0).compute()["x"])


def test_lines_survive_a_kill_and_a_resume(tmp_path):
  path = tmp_path / "metrics.jsonl"
  log = JsonLines(path)
  for step in (10, 20, 30):
    log.write({"step": step, "loss": 1.0 / step})
  with path.open("a") as file:
    file.write('{"step": 40, "lo')
  resumed = JsonLines(path, keep_until=20)
  resumed.write({"step": 30, "loss": math.nan})
  assert [r["step"] for r in JsonLines.read(path)] == [10, 20, 30]
  assert [json.loads(line) for line in path.read_text().splitlines()][2] == {"step": 30, "loss": None}


def test_opening_keeps_everything_by_default(tmp_path):
  path = tmp_path / "metrics.jsonl"
  JsonLines(path).write({"event": "start"})
  JsonLines(path).write({"step": 1})
  assert JsonLines.read(path) == [{"event": "start"}, {"step": 1}]
  assert JsonLines.read(tmp_path / "none") == []
