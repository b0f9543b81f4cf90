"""Compiles a kernel's C++ on first use, keeps the library by content, loads it.

The library lies in `$SILKY_KERNEL_CACHE`, or `silky_jax/kernels` under the user's cache folder, in a folder named by the hash of everything
that it is made from: sources, flags, compiler, jaxlib. It appears there whole or not at all; processes that want the same one at once wait
for the first. A damaged one is built again.
"""

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax

__all__ = ["FLAGS", "BuildError", "Recipe", "cache_folder", "library", "x86_only"]

_LOGGER = logging.getLogger("silky_kernels")
_X86 = platform.machine() in ("x86_64", "AMD64")
# No fast-math, ever: it folds the rounding inside exp2 to nothing, and the picture is wrong without a word.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi")


class BuildError(RuntimeError):
  """There is no compiler, or it failed; the message says what to do."""


class Recipe(NamedTuple):
  """What to compile: source file and its extra flags, per object, in the order of the link.

  Templates of the standard library are compiled into several objects; the linker keeps the first. Objects for every processor come first.
  """

  name: str
  folder: Path
  objects: Sequence[tuple[str, tuple[str, ...]]]


def cache_folder() -> Path:
  """Where libraries are kept."""
  given = os.environ.get("SILKY_KERNEL_CACHE")
  return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "silky_jax" / "kernels"


def library(recipe: Recipe) -> ctypes.CDLL:
  """The loaded library of a recipe; compiled where it is not in the cache.

  Raises:
    BuildError: no compiler, a compiler that fails, or a cache folder that cannot be written.
  """
  compiler = _compiler()
  key = _key(recipe, compiler)
  folder = cache_folder() / f"{recipe.name}-{key}"
  try:
    with _lock(folder.with_suffix(".lock")):
      if not _sound(folder):
        _build(recipe, compiler, folder)
  except OSError as error:
    where = error.filename or folder
    raise BuildError(f"{where}: {error.strerror}; name a folder that can be written in SILKY_KERNEL_CACHE") from error
  return ctypes.CDLL(str(folder / "library.so"))


def _compiler() -> str:
  wanted = os.environ.get("CXX")
  names = (wanted,) if wanted else ("c++", "g++", "clang++")
  for name in names:
    if found := shutil.which(name):
      return found
  raise BuildError(f"no C++ compiler ({', '.join(names)}) on the PATH; install g++ 9 or newer, or set CXX")


def _key(recipe: Recipe, compiler: str) -> str:
  """Hash of all that the library depends on."""
  version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
  total = hashlib.sha256(repr((recipe.objects, FLAGS, version, metadata.version("jaxlib"), platform.machine())).encode())
  for path in sorted(recipe.folder.iterdir()):
    total.update(path.name.encode() + path.read_bytes())
  return total.hexdigest()[:20]


def _sound(folder: Path) -> bool:
  """Whether the library is there and is the one that was put there."""
  try:
    return (folder / "sha256").read_text() == hashlib.sha256((folder / "library.so").read_bytes()).hexdigest()
  except OSError:
    return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _build(recipe: Recipe, compiler: str, folder: Path) -> None:
  _LOGGER.warning("compiling the %s kernel with %s (once, about ten seconds)", recipe.name, compiler)
  with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as scratch:
    made = Path(scratch) / "made"
    made.mkdir()
    objects = [str(Path(scratch) / f"{k}.o") for k in range(len(recipe.objects))]
    include = ("-isystem", jax.ffi.include_dir())
    commands = [
      [compiler, *FLAGS, *extra, *include, "-c", str(recipe.folder / source), "-o", target]
      for (source, extra), target in zip(recipe.objects, objects, strict=True)
    ]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands]
    for command, process in zip(commands, started, strict=True):
      _check(command, process.communicate()[0], process.returncode)
    target = made / "library.so"
    link = [compiler, "-shared", "-o", str(target), *objects, "-pthread"]
    done = subprocess.run(link, capture_output=True, text=True, check=False)
    _check(link, done.stdout + done.stderr, done.returncode)
    (made / "sha256").write_text(hashlib.sha256(target.read_bytes()).hexdigest())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(made, folder)


def _check(command: Sequence[str], said: str, code: int | None) -> None:
  if code:
    first = next((line for line in said.splitlines() if "error" in line.lower()), said.strip()[:300])
    raise BuildError(f"{command[0]} failed with status {code}: {first}; the whole command: {' '.join(command)}")


def x86_only(flags: tuple[str, ...], name: str, source: str) -> list[tuple[str, tuple[str, ...]]]:
  """An object that only x86 processors get."""
  return [(source, (*flags, name))] if _X86 else []
