"""`python run.py COMMAND --flags`: finds the command and its config, and prints clean messages for mistakes. No maths.

Flags say where and how; the config says what. `commands.py` is the table; it imports nothing heavy, so that `--help` is quick.
"""

import errno
import hashlib
import importlib
import logging as stdlib_logging
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import config_flags

from silky_jax.commands import COMMANDS
from silky_jax.config import UserError, closest
from silky_jax.heap import keep_freed_memory

__all__ = ["load_config", "main"]

_PACKAGE = Path(__file__).resolve().parent
# configs/ lies beside the package in a clone, inside it in an installed wheel.
_HOME = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def main(argv: Sequence[str] | None = None) -> int:
  """Run one command.

  Args:
    argv: with the program's name first; None takes the process's.

  Returns:
    The exit code: 0, or 2 for a mistake that the printed message explains.
  """
  arguments = list(sys.argv if argv is None else argv)
  if len(arguments) < 2 or arguments[1] in ("help", "-h", "--help", "-help"):
    print(_overview())
    return 0 if len(arguments) > 1 else 2
  name = " ".join(arguments[1:3]) if " ".join(arguments[1:3]) in COMMANDS else arguments[1]
  try:
    if name not in COMMANDS:
      raise UserError(f"no command {name!r}{closest(name, COMMANDS)}")
    values = _parse(name, arguments[1 + len(name.split()) :])
    if values is None:
      return 0
    _start_jax(values)
    COMMANDS[name].run(values)
  except (UserError, flags.Error) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except OSError as error:
    if error.errno not in _DISK_TROUBLE:
      raise
    where = f"{error.filename}: " if error.filename else ""
    print(f"error: {where}{error.strerror}. Nothing older is lost: mend that and run the same command again to go on.", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("interrupted; run the same command again to go on", file=sys.stderr)
    return 130
  return 0


def load_config(name: str) -> Any:
  """The ConfigDict of a config file, as `--config` reads it.

  Args:
    name: FILE.py or FILE.py:VARIANT, relative to the working directory or to the repository's root.

  Raises:
    UserError: no such file or variant.
  """
  values = flags.FlagValues()
  _read_flags(values, _define_config(values, [], name))
  return values.config


def _overview() -> str:
  width = max(map(len, COMMANDS))
  lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
  return "\n".join(["usage: python run.py COMMAND [--flags]", "", *lines, "", "python run.py COMMAND --help lists the flags of a command."])


def _parse(name: str, words: list[str]) -> flags.FlagValues | None:
  """The flags of one command; None where help was asked for and printed."""
  command, values = COMMANDS[name], flags.FlagValues()
  command.define(values)
  if command.config is not None:
    words = _define_config(values, words, command.config)
  flags.DEFINE_string("compile_cache", _cache_dir(), "Where compiled programs are kept between runs; '' keeps none.", flag_values=values)
  flags.DEFINE_bool("verbose", False, "Also print library messages.", flag_values=values)
  if any(word in ("--help", "-h", "-help") for word in words):
    print(f"{name}: {command.summary}\n")
    for flag in (values[key] for key in sorted(values) if key not in ("flagfile", "undefok")):
      print(f"  --{flag.name}" + ("" if flag.default is None else f" [{flag.default}]") + f"\n      {flag.help}")
    return None
  left = _read_flags(values, words)
  if left:
    raise UserError(f"{name}: unexpected word {left[0]!r}; flags are written --name=value")
  # What the library has to say, without the names of its modules.
  stdlib_logging.basicConfig(format="%(message)s", level=stdlib_logging.INFO if values.verbose else stdlib_logging.WARNING)
  logging.set_verbosity(logging.INFO if values.verbose else logging.WARNING)
  return values


def _define_config(values: flags.FlagValues, words: Sequence[str], default: str) -> list[str]:
  """Define `--config`. Returns the words with `--config=FILE` first, where `--config.key=` needs it."""
  words, chosen = list(words), default
  for i, word in enumerate(words):
    if word.startswith(("--config=", "-config=")):
      chosen = words.pop(i).split("=", 1)[1]
      break
    if word in ("--config", "-config") and i + 1 < len(words):
      chosen = words[i + 1]
      del words[i : i + 2]
      break
  words = [f"--config={_find_config(chosen)}", *words]
  text = f"What to do, FILE.py or FILE.py:VARIANT; {default} when not given. --config.key=value changes a key."
  config_flags.DEFINE_config_file("config", None, text, lock_config=True, flag_values=values, sys_argv=["run.py", *words])
  return words


def _find_config(name: str) -> str:
  """A config file as given, or the one that comes with the package; and lets config files import `configs.default`."""
  if _HOME is _PACKAGE:
    sys.modules.setdefault("configs", importlib.import_module("silky_jax.configs"))
  elif str(_HOME) not in sys.path:
    sys.path.insert(0, str(_HOME))
  file, _, variant = name.partition(":")
  path = next((p for p in (Path(file), _HOME / file) if p.is_file()), None)
  if path is None:
    known = sorted(p.name for p in (_HOME / "configs").glob("*.py"))
    raise UserError(f"--config: no file {file!r} here or in {_HOME}; in configs/ there are: {', '.join(known)}")
  return f"{path.resolve()}:{variant}" if variant else str(path.resolve())


def _read_flags(values: flags.FlagValues, words: Sequence[str]) -> list[str]:
  """Parse; returns the words that are no flags."""
  try:
    return values(["run.py", *words])[1:]
  except (AttributeError, KeyError, TypeError, ValueError) as error:  # what a config answers to a key or value it does not know
    reason: Any = error
    while isinstance(reason, BaseException) and reason.args:
      reason = reason.args[0]
    raise UserError(f"--config: {' '.join(str(reason).split())}") from error


def _cache_dir() -> str:
  """Per user and kind of machine: a program compiled for one CPU may not run on another."""
  if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return chosen
  cpu = Path("/proc/cpuinfo")
  flags_line = next((line for line in cpu.read_text().splitlines() if line.startswith(("flags", "Features"))), "") if cpu.is_file() else ""
  machine = f"{platform.machine()}-{hashlib.sha256(f'{platform.platform()}{flags_line}'.encode()).hexdigest()[:8]}"
  return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "silky_jax" / "compiled" / machine)


def _start_jax(values: flags.FlagValues) -> None:
  """Keep compiled programs between runs: most of a short run's time is compiling. Keep memory between calls."""
  keep_freed_memory()
  if not values.verbose:
    # XLA prints an error of two thousand characters for every CPU program from the cache, over two tuning hints that it made up itself and
    # that change nothing.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  import jax

  if values.compile_cache:
    jax.config.update("jax_compilation_cache_dir", values.compile_cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
