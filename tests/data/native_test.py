"""The native dataset: a round trip, and every way it can be broken."""

import json

import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.formats import native
from silky_jax.data.images import write_image
from silky_jax.data.splits import make_splits

COUNT, SIZE, EXPRESSIONS = 60, 16, 5


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for name in ("images", "masks", "parts"):
    (tmp_path / name).mkdir()
    for k in range(COUNT):
      shape = (SIZE, SIZE, 3) if name == "images" else (SIZE, SIZE)
      write_image(tmp_path / name / f"{k:05d}.png", rng.integers(0, 18, shape, dtype=np.uint8))
  f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)
  arrays = {
    "index": np.arange(COUNT, dtype=np.int32), "time": np.arange(COUNT, dtype=np.float32) / 25, "shot": np.zeros(COUNT, np.int32),
    "expression": f32(COUNT, EXPRESSIONS), "pose": f32(COUNT, 5, 3), "eyelids": f32(COUNT, 2), "translation": f32(COUNT, 3),
    "landmarks": f32(COUNT, 478, 2), "valid": np.ones(COUNT, bool), "exposure": np.ones((COUNT, 3), np.float32),
    "shape": f32(4), "offset": f32(7, 3), "intrinsics": np.eye(3, dtype=np.float32), "world_to_camera": np.eye(4, dtype=np.float32),
  }  # fmt: skip
  splits = {k: v.tolist() for k, v in make_splits(np.ones(COUNT)).items()}
  header = {"rig": "r", "rig_hash": "h", "frames": COUNT, "width": SIZE, "height": SIZE, "fps": 25.0, "splits": splits}
  native.write_tables(tmp_path, header, arrays)
  return tmp_path


def test_round_trip(folder):
  sequence = native.read(folder)
  frames = sequence.frames(np.array([3, 7]))
  assert frames.image.shape == (2, SIZE, SIZE, 3) and frames.image.dtype == np.float32 and frames.image.max() <= 1.0
  assert frames.camera.width == SIZE and frames.camera.world_to_camera.shape == (2, 4, 4)
  np.testing.assert_array_equal(frames.index, [3, 7])
  assert frames.parts.dtype == np.uint8


def test_statistics_come_from_training_frames_alone(folder):
  sequence = native.read(folder)
  before = sequence.subject
  held = np.setdiff1d(np.arange(COUNT), sequence.splits["train"])
  sequence.arrays["expression"][held] = 1e6
  after = sequence.subject
  np.testing.assert_array_equal(before.mean_expression, after.mean_expression)
  np.testing.assert_array_equal(before.expression_variance, after.expression_variance)


def _drop_array(folder):
  with np.load(folder / "frames.npz") as data:
    arrays = {k: data[k] for k in data.files if k != "eyelids"}
  np.savez(folder / "frames.npz", **arrays)


def _edit(folder, **changes):
  header = json.loads((folder / "dataset.json").read_text())
  (folder / "dataset.json").write_text(json.dumps({**header, **changes}))


BROKEN = {
  "no header": (lambda f: (f / "dataset.json").unlink(), "dataset.json.*preprocess"),
  "header is no JSON": (lambda f: (f / "dataset.json").write_text("{"), "wanted JSON"),
  "another format": (lambda f: _edit(f, format="vhap"), "vhap"),
  "another version": (lambda f: _edit(f, version=99), "version 99"),
  "picture missing": (lambda f: (f / "images" / "00005.png").unlink(), "00005.png.*1 are missing"),
  "picture cut short": (lambda f: (f / "masks" / "00005.png").write_bytes(b"\x89PNG"), "00005.png.*half-written"),
  "picture of another size": (lambda f: [write_image(p, np.zeros((8, 8), np.uint8)) for p in (f / "parts").iterdir()], "parts.*8"),
  "no table": (lambda f: (f / "frames.npz").unlink(), "frames.npz"),
  "table cut short": (lambda f: (f / "frames.npz").write_bytes((f / "frames.npz").read_bytes()[:200]), "frames.npz"),
  "array missing": (_drop_array, "eyelids"),
  "count differs": (lambda f: _edit(f, frames=COUNT + 1), "frames.npz.*61"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_name_the_file(folder, name):
  spoil, message = BROKEN[name]
  spoil(folder)
  with pytest.raises(UserError, match=message):
    native.read(folder)


def test_pickles_are_not_read(folder):
  with np.load(folder / "frames.npz") as data:
    arrays = {k: data[k] for k in data.files}
  np.savez(folder / "frames.npz", **{**arrays, "shape": np.array([{"code": 1}], dtype=object)})
  with pytest.raises(UserError, match="frames.npz"):
    native.read(folder)


def test_cuts_are_counted():
  changes = np.array([np.nan, 1, 1, 80, 1, 1])
  np.testing.assert_array_equal(native.shots_from_times(np.arange(6.0), changes), [0, 0, 0, 1, 1, 1])
