"""The portable C++ on another processor: compiled for aarch64 with a cross compiler, run in an emulator, compared with this processor's.

Needs `aarch64-linux-gnu-g++` and `qemu-aarch64` (Debian: g++-aarch64-linux-gnu qemu-user), which the tests of a change install.
"""

import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from silky_kernels import build, native, splat
from silky_kernels.rasterize.arg_specs import ArgSpec, random_splats

from tests.checks import TOLERANCES, assert_gradients_close, assert_pictures_close
from tests.kernels.rasterize_suite import cotangents

CXX, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
CSRC = Path(native.__file__).parent / "csrc"
NAMES = ("means2d", "radii", "depths", "conics", "opacities", "features", "background")
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not (shutil.which(CXX) and shutil.which(EMULATOR)), reason=f"no {CXX} and {EMULATOR} on the PATH"),
]


def test_every_file_compiles(tmp_path):
  for name in ("calls.cc", "splat.cc", "project.cc"):
    command = [CXX, *build.FLAGS, "-isystem", jax.ffi.include_dir(), "-fsyntax-only", str(CSRC / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
  target = tmp_path_factory.mktemp("aarch64") / "standalone"
  sources = [CSRC / "path.cc", CSRC / "bins.cc", Path(__file__).with_name("standalone.cc")]
  command = [CXX, *build.FLAGS, "-static", "-DSILKY_PATH=portable_path", "-I", str(CSRC), *map(str, sources), "-o", str(target)]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-3000:]
  return target


@pytest.mark.parametrize("channels", [1, 3, 33])
def test_same_picture_and_gradient(program, tmp_path, monkeypatch, channels):
  spec = ArgSpec(n=300, width=45, height=38, tile=16, channels=channels, ci=True)
  splats, given = random_splats(spec), [np.asarray(a) for a in cotangents(spec)]
  with (tmp_path / "in").open("wb") as file:
    file.write(np.asarray([spec.n, channels, spec.width, spec.height], np.int32).tobytes())
    for array in [*(splats[name] for name in NAMES), *given]:
      file.write(np.ascontiguousarray(array, np.float32).tobytes())
  subprocess.run([EMULATOR, str(program), str(tmp_path / "in"), str(tmp_path / "out")], check=True, timeout=300)

  monkeypatch.setenv("SILKY_SIMD", "portable")
  draw = lambda *arrays: tuple(splat(*arrays, width=spec.width, height=spec.height, backend="cpu"))[:3]
  made, pull = jax.vjp(draw, *(jnp.asarray(splats[name]) for name in NAMES))
  gradient = dict(zip(NAMES, pull(tuple(map(jnp.asarray, given))), strict=True))
  wanted = [*made, *(gradient[name] for name in ("means2d", "depths", "conics", "opacities", "features"))]
  found = np.fromfile(tmp_path / "out", np.float32)
  assert found.size == sum(a.size for a in wanted)
  for index, (a, b) in enumerate(zip(np.split(found, np.cumsum([a.size for a in wanted])[:-1]), wanted, strict=True)):
    check = assert_pictures_close if index < 3 else assert_gradients_close
    check(jnp.asarray(a).reshape(b.shape), b, TOLERANCES["float32"], f"output {index}")
