"""A results file: figures, what made them, and where."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from silky_kernels.rasterize.bench import processor

__all__ = ["words", "write_record"]


def write_record(path: Path | str, content: Mapping[str, Any], *, command: str, packages: tuple[str, ...]) -> None:
  """Write figures as JSON beside the machine, the versions of `packages`, the commit and the command that makes them again."""
  machine = {"device": _device(), "python": platform.python_version(), "cores": os.cpu_count()}
  machine |= {name: _version(name) for name in packages}
  Path(path).write_text(json.dumps({**content, "machine": machine, "commit": _commit(), "command": command}, indent=1) + "\n")


def words(*, without: tuple[str, ...]) -> list[str]:
  """The command line's words but for some flags and their values: a results file names no folder of the machine that made it."""
  kept, skip = [], False
  for word in sys.argv[1:]:
    name = word.split("=")[0].lstrip("-")
    if skip or name in without:
      skip = not skip and "=" not in word
      continue
    kept.append(word)
  return kept


def _version(package: str) -> str | None:
  """None for a package that is there as bare files: figures that took minutes are not lost over it."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _device() -> str:
  import jax

  device = jax.devices()[0]
  return device.device_kind if device.platform != "cpu" else processor()


def _commit() -> str:
  """Of the code that ran, with a word where it was changed since; "" outside a repository. SILKY_COMMIT says it for a copy without one."""
  if named := os.environ.get("SILKY_COMMIT"):
    return named
  root = Path(__file__).resolve().parents[1]

  def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if not done.returncode else ""

  try:
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")
  except OSError:
    return ""
