"""Drive an avatar with somebody's tracked motion: read a driver, refuse one of another rig, write the video."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from silky_jax.config import UserError
from silky_jax.data.formats import native
from silky_jax.evaluation.playback import RenderFrames, driving, play
from silky_jax.geometry.camera import rescale
from silky_jax.types import Camera, Frame

__all__ = ["Driver", "check_rig", "read_driver", "render_sequence", "with_camera", "write_driver"]

_MOTION = {"expression": None, "pose": (5, 3), "eyelids": (2,), "translation": (3,)}
_KEYS = (*_MOTION, "rig", "rig_hash", "fps")
_CAMERA = ("world_to_camera", "intrinsics", "width", "height")


@dataclasses.dataclass(frozen=True)
class Driver:
  """Motion for an avatar: frames without pictures."""

  frames: Frame  # batch [t]; `camera` is None where the file has none
  rig_name: str
  rig_hash: str
  fps: float
  path: Path
  repeats: Bool[np.ndarray, "t"] | None = None  # where the picture was that of the frame before, if the driver was filmed and says so


def read_driver(path: str | os.PathLike) -> Driver:
  """Read motion: a native `.npz` with named keys, or a data folder.

  The `.npz` holds `expression` [t, e], `pose` [t, 5, 3] (axis-angle: global, neck, jaw, left eye, right eye), `eyelids`
  [t, 2], `translation` [t, 3] (metres), `rig` and `rig_hash` (text), `fps`; and all or none of `world_to_camera`
  [4, 4] or [t, 4, 4], `intrinsics` [3, 3] or [t, 3, 3] (px), `width`, `height`.

  Args:
    path: the file or the folder.

  Raises:
    UserError: missing, unreadable, or with missing, mismatched or non-finite arrays; the message names the key.
  """
  path = Path(path)
  if not path.exists():
    raise UserError(f"driver not found: {path}; give an .npz of named keys, or a folder that `preprocess` wrote")
  repeats = None
  if path.is_dir():
    header = native.read_header(path)
    repeats = np.isin(np.arange(header["frames"]), header["splits"]["repeat"])
    arrays = dict(_load(path / "frames.npz")) | {"rig": header["rig"], "rig_hash": header["rig_hash"], "fps": header["fps"]}
    arrays |= {"width": header["width"], "height": header["height"]}
  else:
    arrays = _load(path)
  missing = [key for key in _KEYS if key not in arrays]
  if missing:
    hint = f". For a dataset give its folder, {path.parent}" if (path.parent / "dataset.json").is_file() else ""
    found = ", ".join(sorted(arrays)) or "none"
    raise UserError(f"{path}: wanted the keys {', '.join(_KEYS)}; missing {', '.join(missing)}, found {found}{hint}")
  motion = _motion(path, arrays)
  count = len(motion["pose"])
  fps = float(np.asarray(arrays["fps"]))
  if not (np.isfinite(fps) and fps > 0):
    raise UserError(f"{path}: fps: wanted a positive number, found {fps}")
  order = np.arange(count, dtype=np.int32)
  frames = Frame(
    index=np.asarray(arrays.get("index", order), np.int32),
    time=np.asarray(arrays.get("time", order / fps), np.float32),
    shot=np.asarray(arrays.get("shot", np.zeros(count)), np.int32),
    timestep=np.asarray(arrays.get("timestep", order), np.int32),
    view=np.zeros(count, np.int32),
    camera=_camera(path, arrays, count),
    **motion,
    image=None,
    mask=None,
    parts=None,
    landmarks=None,
    valid=np.ones(count, bool),
  )
  return Driver(frames, str(arrays["rig"]), str(arrays["rig_hash"]), fps, path, repeats)


def _load(file: Path) -> dict[str, np.ndarray]:
  try:
    with np.load(file, allow_pickle=False) as data:
      return {key: data[key] for key in data.files}
  except (ValueError, OSError, EOFError, KeyError, AttributeError) as error:
    raise UserError(f"{file}: wanted an .npz of plain arrays, found something else ({error})") from error


def _motion(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The moving arrays, checked for shape and finiteness."""
  motion = {}
  count = len(np.atleast_1d(arrays["pose"]))
  for key, tail in _MOTION.items():
    value = np.asarray(arrays[key])
    fits = value.ndim >= 2 and len(value) == count and (value.ndim == 2 if tail is None else value.shape[1:] == tail)
    if not fits or value.dtype.kind not in "fiu" or not count:
      wanted = f"[{count}, {'e' if tail is None else ', '.join(map(str, tail))}]"
      raise UserError(f"{path}: {key}: wanted numbers {wanted} with at least one frame, found {value.dtype} {list(value.shape)}")
    if not np.isfinite(value).all():
      raise UserError(f"{path}: {key}: wanted finite numbers, found NaN or infinity in frame {int(np.argwhere(~np.isfinite(value))[0][0])}")
    motion[key] = value.astype(np.float32)
  return motion


def _camera(path: Path, arrays: Mapping[str, np.ndarray], count: int) -> Camera | None:
  found = [key for key in _CAMERA if key in arrays]
  if not found:
    return None
  if len(found) < len(_CAMERA):
    raise UserError(f"{path}: a camera needs {', '.join(_CAMERA)}; found only {', '.join(found)}")
  matrices = []
  for key, side in (("world_to_camera", 4), ("intrinsics", 3)):
    value = np.asarray(arrays[key], np.float32)
    if value.shape not in ((side, side), (count, side, side)) or not np.isfinite(value).all():
      raise UserError(f"{path}: {key}: wanted finite [{side}, {side}] or [{count}, {side}, {side}], found {list(value.shape)}")
    matrices.append(np.broadcast_to(value, (count, side, side)).copy())
  return Camera(*matrices, width=int(arrays["width"]), height=int(arrays["height"]))


def write_driver(path: str | os.PathLike, frames: Frame, *, rig_name: str, rig_hash: str, fps: float | int) -> Path:
  """Write motion as the `.npz` that `read_driver` reads; the file appears only when it is whole.

  Args:
    path: ends in `.npz`.
    frames: batch [t]; pictures in it are left out.
    rig_name: the rig whose parameters these are.
    rig_hash: of that rig.
    fps: frames per second.

  Raises:
    UserError: the folder cannot be written.
  """
  path = Path(path)
  arrays = {key: np.asarray(getattr(frames, key), np.float32) for key in _MOTION}
  if frames.camera is not None:
    arrays |= {key: np.asarray(getattr(frames.camera, key)) for key in _CAMERA}
  part = path.with_name(f".{path.name}.part")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
      np.savez(file, rig=np.str_(rig_name), rig_hash=np.str_(rig_hash), fps=np.float64(fps), **arrays)
    os.replace(part, path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}; choose another path") from error
  return path


def check_rig(driver: Driver, rig_name: str, rig_hash: str, *, expressions: int | None = None) -> None:
  """Refuse a driver made for another rig: its coefficients would mean something else.

  Args:
    driver: the motion.
    rig_name: the avatar's rig.
    rig_hash: the avatar's rig.
    expressions: how many expression coefficients the avatar's rig has.

  Raises:
    UserError: names both rigs.
  """
  if (driver.rig_name, driver.rig_hash) != (rig_name, rig_hash):
    raise UserError(
      f"{driver.path} moves the rig {driver.rig_name!r} ({driver.rig_hash}), the avatar was made on {rig_name!r} ({rig_hash}): "
      "the same numbers mean another face there. Track the driving video with the avatar's rig: `preprocess --video_path VIDEO`."
    )
  found = driver.frames.expression.shape[1]
  if expressions is not None and found != expressions:
    raise UserError(f"{driver.path}: expression: wanted {expressions} coefficients like the rig {rig_name!r}, found {found}")


def with_camera(driver: Driver, camera: Camera | None) -> Driver:
  """The driver with a camera: its own, or else `camera` (no batch) for all frames.

  Raises:
    UserError: neither has one.
  """
  if driver.frames.camera is not None:
    return driver
  if camera is None:
    raise UserError(f"{driver.path} has no camera ({', '.join(_CAMERA)}): add one, or give a data folder that has")
  count = len(driver.frames.index)
  matrices = (np.repeat(np.asarray(x, np.float32)[None], count, axis=0) for x in (camera.world_to_camera, camera.intrinsics))
  return dataclasses.replace(driver, frames=driver.frames.replace(camera=Camera(*matrices, width=camera.width, height=camera.height)))


def render_sequence(
  render: RenderFrames,
  driver: Driver,
  output_path: str | os.PathLike,
  *,
  resolution: int | None = None,
  batch: int = 8,
  on_frame: Callable[[int], None] | None = None,
) -> Path:
  """Render a driver's motion as a video.

  Args:
    render: the avatar.
    driver: motion with a camera (see `with_camera`).
    output_path: the `.mp4` to write.
    resolution: height in px; the intrinsics and the width follow. The driver's own size when None.
    batch: frames rendered at once.
    on_frame: called with 1 after every frame, for progress.

  Returns:
    The path written.

  Raises:
    UserError: the driver has no camera, the resolution makes no sense, or the folder cannot be written.
  """
  camera = with_camera(driver, None).frames.camera
  height = resolution or camera.height
  if not 16 <= height <= 4096:
    raise UserError(f"--resolution: wanted 16 to 4096 px, found {height}")
  camera = rescale(camera, width=round(camera.width * height / camera.height), height=height)
  frames = driving(driver.frames).replace(camera=camera)
  from silky_jax.data.video import VideoWriter  # pulls in PyAV: only when a video is written

  with VideoWriter(output_path, driver.fps) as writer:
    for picture in play(render, frames, batch=batch):
      writer.add(picture)
      if on_frame is not None:
        on_frame(1)
  return Path(output_path)
