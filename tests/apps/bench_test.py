"""The bench of the rasterizer: rows with what they promise, a file, refusals."""

import json

import pytest

from silky_jax.apps import bench
from silky_jax.config import UserError


@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
def test_a_row_says_what_was_measured(tmp_path, monkeypatch, backend):
  monkeypatch.setitem(bench.SIZES, "tiny", (200, 32, 3))
  said = []
  (row,) = bench.bench_rasterize(backend=backend, sizes=("tiny",), repeats=2, json_path=tmp_path / "b.json", say=said.append)
  assert (row["n"], row["width"], row["height"], row["channels"], row["backend"]) == (200, 32, 32, 3, backend)
  assert row["simd"] == ("" if backend == "xla" else bench.native.best_simd()) and row["threads"] >= 1
  for name in ("forward_ms", "forward_backward_ms", "splat_forward_ms", "splat_forward_backward_ms", "reference_forward_backward_ms"):
    assert row[name] > 0, name
  for name in ("bins", "picture", "gradient_tiles", "gradient_splats"):
    assert (f"stage_{name}_ms" in row) == (backend == "cpu"), name
  assert row["lanes"] % 16 == 0 and row["lanes"] > 32 * 32 / 4
  written = json.loads((tmp_path / "b.json").read_text())
  assert written["rows"] == [row] and {"device", "jax"} <= set(written["machine"]) and json.loads(said[0]) == row


def test_an_unknown_size_is_refused():
  with pytest.raises(UserError, match=r"wanted sizes of 5k_128.*found 9k"):
    bench.bench_rasterize(sizes=("9k",))
