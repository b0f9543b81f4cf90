"""Drivers: round trip, every way to be wrong, the rig that does not fit, and the rendered video's camera."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.formats import native
from silky_jax.data.video import read_video
from silky_jax.evaluation import reenact


@pytest.fixture
def written(make_frames, tmp_path):
  frames = make_frames(6, seed=0)
  return frames, reenact.write_driver(tmp_path / "a.npz", frames, rig_name="open-head", rig_hash="abc", fps=25)


def test_round_trip(written):
  frames, path = written
  driver = reenact.read_driver(path)
  assert (driver.rig_name, driver.rig_hash, driver.fps) == ("open-head", "abc", 25.0)
  for key in ("expression", "pose", "eyelids", "translation"):
    np.testing.assert_array_equal(getattr(driver.frames, key), getattr(frames, key))
  np.testing.assert_array_equal(driver.frames.camera.intrinsics, frames.camera.intrinsics)
  assert (driver.frames.camera.width, driver.frames.image) == (48, None)
  np.testing.assert_allclose(driver.frames.time, np.arange(6) / 25, atol=1e-6)


def test_a_driver_of_another_rig_is_refused_naming_both(written):
  driver = reenact.read_driver(written[1])
  reenact.check_rig(driver, "open-head", "abc", expressions=7)
  for name, mark in (("flame2023", "abc"), ("open-head", "xyz")):
    with pytest.raises(UserError, match=rf"'open-head' \(abc\).*'{name}' \({mark}\)"):
      reenact.check_rig(driver, name, mark)
  with pytest.raises(UserError, match=r"wanted 50 coefficients.*found 7"):
    reenact.check_rig(driver, "open-head", "abc", expressions=50)


def _rewrite(path, **changes):
  with np.load(path) as data:
    arrays = {key: data[key] for key in data.files} | changes
  np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"jaw": np.zeros(3), "pose": None}, "missing pose"),
    ({"rig": None}, "missing rig"),
    ({"eyelids": np.zeros((5, 2))}, r"eyelids: wanted numbers \[6, 2\].*found float64 \[5, 2\]"),
    ({"pose": np.zeros((6, 15))}, r"pose: wanted numbers \[6, 5, 3\]"),
    ({"expression": np.zeros(6)}, "expression: wanted"),
    ({"translation": np.full((6, 3), np.nan)}, "translation: wanted finite numbers, found NaN.*frame 0"),
    ({"fps": np.float64(0)}, "fps: wanted a positive number"),
    ({"intrinsics": None}, "a camera needs.*intrinsics"),
    ({"intrinsics": np.zeros((2, 3, 3))}, "intrinsics: wanted finite"),
    ({"expression": np.array([object()] * 6)}, "plain arrays"),
  ],
)
def test_a_wrong_driver_is_named(written, changes, message):
  _rewrite(written[1], **changes)
  with pytest.raises(UserError, match=message):
    reenact.read_driver(written[1])


def test_no_driver_at_all(tmp_path):
  with pytest.raises(UserError, match="driver not found"):
    reenact.read_driver(tmp_path / "none.npz")
  (tmp_path / "text.npz").write_text("no arrays")
  with pytest.raises(UserError, match="plain arrays"):
    reenact.read_driver(tmp_path / "text.npz")
  with pytest.raises(UserError, match="dataset"):
    reenact.read_driver(tmp_path)


def test_a_data_folder_drives(make_frames, tmp_path):
  frames = make_frames(5, seed=1)
  frames = frames.replace(exposure=np.ones((5, 3), np.float32), shot=np.asarray([0, 0, 0, 1, 1], np.int32))
  arrays = {key: np.asarray(getattr(frames, key)) for key in native.FRAME_KEYS}
  arrays |= {
    "shape": np.zeros(3),
    "offset": np.zeros((4, 3)),
    "intrinsics": frames.camera.intrinsics[0],
    "world_to_camera": frames.camera.world_to_camera[0],
  }
  arrays["timestep"] = np.asarray([0, 1, 2, 1, 2], np.int32)  # the last two by another camera
  splits = {name: [] for name in native.splits_lib.NAMES} | {"repeat": [2]}
  header = {"rig": "open-head", "rig_hash": "abc", "frames": 5, "width": 48, "height": 48, "fps": 20.0, "splits": splits}
  native.write_tables(tmp_path, header, arrays)
  driver = reenact.read_driver(tmp_path)
  np.testing.assert_array_equal(driver.frames.pose, frames.pose)
  np.testing.assert_array_equal(driver.frames.shot, frames.shot)
  np.testing.assert_array_equal(driver.frames.timestep, arrays["timestep"])
  np.testing.assert_array_equal(driver.repeats, np.arange(5) == 2)
  assert (driver.fps, driver.frames.camera.height, driver.rig_name) == (20.0, 48, "open-head")
  with pytest.raises(UserError, match="For a dataset give its folder"):
    reenact.read_driver(tmp_path / "frames.npz")


def test_render_rescales_the_camera(written, tmp_path):
  driver = reenact.read_driver(written[1])
  driver = dataclasses.replace(driver, frames=driver.frames.replace(camera=driver.frames.camera.replace(width=64)))
  seen = []

  def render(frames):
    seen.append((frames.camera.width, frames.camera.height, np.asarray(frames.camera.intrinsics[0])))
    height, width = frames.camera.height, frames.camera.width
    image = jnp.broadcast_to(jnp.asarray(frames.index / 10.0)[:, None, None, None], (len(frames.index), height, width, 3))
    return image, jnp.ones(image.shape[:3])

  ticks = []
  out = reenact.render_sequence(render, driver, tmp_path / "v.mp4", resolution=96, batch=4, on_frame=ticks.append)
  info, _, frames = read_video(out)
  assert (info.width, info.height, info.frames, info.fps) == (128, 96, 6, 25.0)
  assert sum(ticks) == 6
  np.testing.assert_allclose(frames[:, 48, 64, 0], np.arange(6) * 25.5, atol=4)
  width, height, intrinsics = seen[0]
  assert (width, height) == (128, 96)
  np.testing.assert_allclose(intrinsics[:2], 2 * written[0].camera.intrinsics[0, :2])
  with pytest.raises(UserError, match="resolution"):
    reenact.render_sequence(render, driver, tmp_path / "v.mp4", resolution=3)


def test_a_driver_without_camera_borrows_one(written):
  _rewrite(written[1], world_to_camera=None, intrinsics=None, width=None, height=None)
  driver = reenact.read_driver(written[1])
  assert driver.frames.camera is None
  with pytest.raises(UserError, match="has no camera"):
    reenact.with_camera(driver, None)
  camera = written[0].camera
  camera = camera.replace(world_to_camera=camera.world_to_camera[0], intrinsics=camera.intrinsics[0])
  assert reenact.with_camera(driver, camera).frames.camera.world_to_camera.shape == (6, 4, 4)
