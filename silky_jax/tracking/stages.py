"""Stages that are done once: a stamp beside the results says from what they were made."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from silky_jax.config import output_folder
from silky_jax.data.formats.native import write_json


class Stages:
  """The cache of one output folder: `stages/<name>.json` holds the fingerprint that a finished stage was made from."""

  def __init__(self, root: Path):
    """Open or make the folder.

    Raises:
      UserError: it cannot be written.
    """
    self.root = root
    self.folder = output_folder(root / "stages")

  def run(self, name: str, inputs: Mapping[str, Any], work: Callable[[Path], None]) -> str:
    """Run `work(scratch folder)` unless it was done with the same inputs; return the stage's fingerprint.

    The scratch folder `stages/<name>/` survives an interruption with the same inputs, so that `work` can go on.
    """
    mark = fingerprint({"stage": name, **inputs})
    stamp, started = self.folder / f"{name}.json", self.folder / f"{name}.started.json"
    if _read(stamp) == mark:
      return mark
    scratch = self.folder / name
    if _read(started) != mark:
      shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)
    write_json(started, {"fingerprint": mark})
    work(scratch)
    write_json(stamp, {"fingerprint": mark})
    started.unlink()
    return mark

  def done(self, name: str) -> bool:
    return (self.folder / f"{name}.json").is_file()


def fingerprint(inputs: Mapping[str, Any]) -> str:
  """Hash of JSON-able inputs."""
  return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
  """Hash of a file's content."""
  digest = hashlib.sha256()
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()[:16]


def _read(path: Path) -> str | None:
  try:
    return json.loads(path.read_text())["fingerprint"]
  except (OSError, ValueError, KeyError):
    return None
