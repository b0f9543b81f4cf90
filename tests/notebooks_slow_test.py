"""The notebooks run: each from top to bottom in a fresh kernel and an empty folder, without a word on stderr, with its pictures."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "notebooks"
# Pictures that a reader sees, at least.
PICTURES = {"01_first_render": 8, "02_spd_transport": 11, "04_fit_one_clip": 7, "05_differentiable_physics": 7}
LEAST_PICTURES = 3  # of a notebook without a line above
SECONDS = 300  # per cell: a machine that does other things too


def _left_behind() -> str:
  """What git sees beside the notebooks: changed and new files."""
  shown = subprocess.run(["git", "status", "--porcelain", "--", str(FOLDER)], cwd=ROOT, capture_output=True, text=True)
  return shown.stdout if shown.returncode == 0 else ""


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)  # this process pretends to have four devices
  monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
  work = tmp_path / "work"
  work.mkdir()
  notebook = nbformat.read(path, as_version=4)
  before, stored = _left_behind(), path.read_bytes()
  # Sockets in files instead of ports: several of these may run at once. A socket's path must be short, a test's folder is not.
  with tempfile.TemporaryDirectory() as sockets:
    manager = AsyncKernelManager(transport="ipc", ip=f"{sockets}/kernel", connection_file=f"{sockets}/kernel.json")
    client = NotebookClient(notebook, km=manager, timeout=SECONDS, resources={"metadata": {"path": str(work)}})
    try:
      client.execute()
    finally:
      if manager.has_kernel:  # an error leaves it running
        asyncio.run(manager.shutdown_kernel(now=True))

  outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
  complaints = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
  assert not complaints, "".join(complaints)
  pictures = sum("image/png" in output.get("data", {}) for output in outputs)
  assert pictures >= PICTURES.get(path.stem, LEAST_PICTURES)
  assert not list(work.iterdir()), "the notebook left files where it was run"
  assert path.read_bytes() == stored and _left_behind() == before
