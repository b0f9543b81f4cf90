"""The figures of docs/ are those of experiments/results/: every page that a script fills is what that script writes."""

import importlib
import shutil

import pytest

from experiments.pages import DOCS, fill

PAGES = {"ablation_page": "ablation.md", "gpu_page": "gpu.md", "physics_page": "physics.md", "rasterizer_page": "rasterizer.md"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_the_results_say(name, tmp_path, monkeypatch):
  module = importlib.import_module(f"experiments.{name}")
  docs = tmp_path / "docs"
  (docs / "images").mkdir(parents=True)
  shutil.copy(DOCS / PAGES[name], docs)
  monkeypatch.setattr(module, "DOCS", docs)
  for key in ("_CHARTS", "_CHART"):
    if hasattr(module, key):
      monkeypatch.setattr(module, key, docs / getattr(module, key).relative_to(DOCS))
  module.main()
  charts = list((docs / "images").iterdir())
  assert charts or name == "physics_page"
  for path in (docs / PAGES[name], *charts):
    assert path.read_text() == (DOCS / path.relative_to(docs)).read_text(), f"run python -m experiments.{name} and commit"


def test_a_page_without_its_marks_is_refused(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("figures were here\n")
  with pytest.raises(SystemExit, match=r"page\.md: the marks .* are gone"):
    fill(page, "ablation_page", "|")
  assert page.read_text() == "figures were here\n"
