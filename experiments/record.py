"""A results file: figures, what made them, and where."""

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["write_record"]


def write_record(path: Path | str, content: Mapping[str, Any], *, command: str, packages: tuple[str, ...]) -> None:
  """Write figures as JSON beside the machine, the versions of `packages` and the command that makes them again."""
  machine = {"python": platform.python_version(), "cores": os.cpu_count()} | {name: metadata.version(name) for name in packages}
  Path(path).write_text(json.dumps({**content, "machine": machine, "command": command}, indent=1) + "\n")
