"""Compiling on first use: no compiler, one that fails, a damaged cache, two at once."""

import logging
import subprocess
import sys

import pytest
from silky_kernels import backend, build, native


@pytest.fixture
def recipe(tmp_path, monkeypatch):
  """A library that compiles in a moment, and a cache of its own."""
  monkeypatch.setenv("SILKY_KERNEL_CACHE", str(tmp_path / "cache"))
  folder = tmp_path / "csrc"
  folder.mkdir()
  (folder / "answer.cc").write_text('extern "C" int answer() { return 42; }\n')
  return build.Recipe("toy", folder, [("answer.cc", ())])


def _cached(tmp_path):
  return [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_compiles_once_and_again_when_the_source_changes(recipe, tmp_path, caplog):
  with caplog.at_level(logging.WARNING, "silky_kernels"):
    assert build.library(recipe).answer() == 42
    build.library(recipe)
  assert caplog.text.count("compiling the toy kernel") == 1
  (recipe.folder / "answer.cc").write_text('extern "C" int answer() { return 43; }\n')
  assert build.library(recipe).answer() == 43
  assert len(_cached(tmp_path)) == 2
  assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".build")]


@pytest.mark.parametrize("damage", ["cut", "foreign", "gone"])
def test_a_damaged_cache_is_built_again(recipe, tmp_path, damage):
  build.library(recipe)
  (folder,) = _cached(tmp_path)
  # In a new process: a library that is loaded must not be written over.
  path = folder / "library.so"
  data = path.read_bytes()
  path.unlink()
  if damage != "gone":
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"something else")
  program = (
    "import sys; from pathlib import Path; from silky_kernels import build; "
    "print(build.library(build.Recipe('toy', Path(sys.argv[1]), [('answer.cc', ())])).answer())"
  )
  done = subprocess.run([sys.executable, "-c", program, str(recipe.folder)], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "42" and path.read_bytes() == data


def test_two_processes_at_once_build_it_once(recipe, tmp_path):
  program = (
    "import sys, logging; logging.basicConfig(); from pathlib import Path; from silky_kernels import build; "
    "print(build.library(build.Recipe('toy', Path(sys.argv[1]), [('answer.cc', ())])).answer())"
  )
  started = [
    subprocess.Popen([sys.executable, "-c", program, str(recipe.folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(3)
  ]
  said = [process.communicate() for process in started]
  assert [out.strip() for out, _ in said] == ["42"] * 3
  assert sum("compiling the toy kernel" in err for _, err in said) == 1
  assert len(_cached(tmp_path)) == 1


def test_a_compiler_that_fails_is_quoted(recipe, tmp_path):
  (recipe.folder / "answer.cc").write_text("int answer( { }\n")
  with pytest.raises(build.BuildError, match=r"failed with status 1: .*answer\.cc:1:.*error.*the whole command"):
    build.library(recipe)
  assert not _cached(tmp_path)


def test_no_compiler(recipe, monkeypatch):
  monkeypatch.setenv("CXX", "no-such-compiler")
  with pytest.raises(build.BuildError, match=r"no C\+\+ compiler \(no-such-compiler\) on the PATH; install"):
    build.library(recipe)


def test_a_cache_that_cannot_be_written(recipe, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("SILKY_KERNEL_CACHE", str(tmp_path / "file" / "cache"))
  with pytest.raises(build.BuildError, match="name a folder that can be written in SILKY_KERNEL_CACHE"):
    build.library(recipe)


def test_without_it_plain_jax_serves_and_says_so_once(monkeypatch, caplog):
  monkeypatch.setattr(native, "why_not", lambda: "no C++ compiler (g++) on the PATH")
  backend._warn_once.cache_clear()
  with caplog.at_level(logging.WARNING, "silky_kernels"):
    assert [backend.choose(op) for op in ("splat", "project", "splat")] == ["xla"] * 3
  assert caplog.text.count("runs in plain JAX") == 1 and "no C++ compiler (g++)" in caplog.text
  with pytest.raises(NotImplementedError, match=r"'cpu' cannot run: no C\+\+ compiler"):
    backend.choose("splat", "cpu")
  backend._warn_once.cache_clear()


@pytest.mark.parametrize(("value", "phrase"), [("sse9", "expected one of"), ("", "expected one of")])
def test_an_unknown_instruction_set(monkeypatch, value, phrase):
  monkeypatch.setenv("SILKY_SIMD", value)
  with pytest.raises(ValueError, match=f"SILKY_SIMD: {phrase}"):
    native.best_simd()


def test_an_instruction_set_that_is_not_there(monkeypatch):
  class Old:
    def silky_runs(self, number):
      return number == 0

  monkeypatch.setattr(native, "load", Old)
  assert native.best_simd() == "portable"
  monkeypatch.setenv("SILKY_SIMD", "avx512")
  with pytest.raises(ValueError, match="this processor does not have it"):
    native.best_simd()
