"""The notebooks as files: valid, stored without outputs, with a title first."""

from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_some():
  assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_clean(path):
  notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
  nbformat.validate(notebook)
  assert set(notebook.metadata) == {"kernelspec", "language_info"}
  # No version of an interpreter: it would change with every machine that saves the file.
  assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
  assert notebook.metadata.language_info == {"name": "python"}
  first = notebook.cells[0]
  assert first.cell_type == "markdown" and first.source.startswith("# ")
  for cell in notebook.cells:
    assert not cell.metadata, f"{cell.id}: metadata {cell.metadata}"
    if cell.cell_type == "code":
      assert not cell.outputs and cell.execution_count is None, f"{cell.id}: stored with outputs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_in_the_table(path):
  assert f"`{path.name}`" in (FOLDER / "README.md").read_text()
