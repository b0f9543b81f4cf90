"""Video files in and out: frames as RGB bytes with their times, H.264 that browsers play."""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from jaxtyping import Float, UInt8

from silky_jax.config import UserError

__all__ = ["VideoInfo", "VideoWriter", "iter_frames", "probe_video", "read_video", "write_video"]

_LOG = logging.getLogger(__name__)
_BT709 = 1  # ISO/IEC 23001-8 code point; browsers assume it for large pictures, so it is said for every size
_LIMITED = 1  # FFmpeg's code for the 16..235 range


@dataclass(frozen=True)
class VideoInfo:
  """What a video file says of itself; `width` and `height` are those of the upright picture.

  `frames` is the count that the container declares (0: it does not say); the count that decodes may differ.
  """

  path: Path
  width: int  # px
  height: int  # px
  fps: float
  frames: int
  seconds: float  # 0: the container does not say
  codec: str


def _existing(path: str | os.PathLike) -> Path:
  path = Path(path)
  if not path.exists():
    raise UserError(f"video not found: {path}; give the path of an existing video file (.mp4, .mov, .webm, ...)")
  if path.is_dir():
    raise UserError(f"{path} is a folder, not a video; give the path of one video file")
  if path.stat().st_size == 0:
    raise UserError(f"{path} is empty (0 bytes); copy or record the video again")
  return path


def _open(path: Path) -> tuple["av.container.InputContainer", "av.VideoStream"]:
  try:
    container = av.open(str(path))
  except PermissionError as error:
    raise UserError(f"{path} may not be read: {error.strerror}; change its permissions") from error
  except (av.error.FFmpegError, ValueError) as error:
    raise UserError(
      f"{path} is not a readable video ({getattr(error, 'strerror', None) or error}); convert it to H.264 in .mp4 and try again"
    ) from error
  if not container.streams.video:
    container.close()
    raise UserError(f"{path} has no picture track; give a file that holds video")
  stream = container.streams.video[0]
  stream.thread_type = "AUTO"
  return container, stream


def probe_video(path: str | os.PathLike) -> VideoInfo:
  """What the file at `path` declares of itself, from its header and its first frame.

  Args:
    path: a video file.

  Returns:
    Size in px of the upright picture, frames per second, declared frame count, length in seconds, codec.

  Raises:
    UserError: the file is missing, empty, not a video, or no frame of it decodes.
  """
  path = _existing(path)
  container, stream = _open(path)
  with container:
    first = _first_frame(container, path)
    turned = first.rotation % 180 != 0
    size = (first.height, first.width) if turned else (first.width, first.height)
    whole = Fraction(container.duration or 0, av.time_base)
    seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else whole
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return VideoInfo(path, *size, float(rate), stream.frames, float(seconds), stream.codec_context.name)


def _first_frame(container: "av.container.InputContainer", path: Path) -> "av.VideoFrame":
  try:
    return next(container.decode(video=0))
  except (StopIteration, av.error.FFmpegError) as error:
    raise UserError(f"{path}: no frame of it can be decoded; the file is cut off or damaged: copy or convert it again") from error


def iter_frames(path: str | os.PathLike) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
  """Yield `(time, frame)` of a video in display order, one frame in memory at a time.

  A rotation written by a phone is undone, so frames come upright. Damage after the first frame ends the
  iteration with a logged warning that names the frame, for a recording cut short is still worth its beginning.

  Args:
    path: a video file.

  Yields:
    The frame's time in seconds since the first frame, and its picture: RGB bytes, row 0 on top.

  Raises:
    UserError: the file is missing, empty, not a video, or no frame of it decodes.
  """
  path = _existing(path)
  container, stream = _open(path)
  rate = float(stream.average_rate or stream.guessed_rate or 25)
  start, count, size = None, 0, None
  with container:
    decoded = container.decode(video=0)
    while True:
      try:
        frame = next(decoded)
      except StopIteration:
        break
      except av.error.FFmpegError as error:
        _LOG.warning("%s: decoding stopped after frame %d: %s", path, count, error)
        break
      # A stream may change size on its way; every frame gets the first one's.
      size = size or (frame.width, frame.height)
      image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
      time = count / rate if frame.time is None else float(frame.time)
      start = time if start is None else start
      yield time - start, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
      count += 1
  if not count:
    raise UserError(f"{path}: no frame of it can be decoded; the file is cut off or damaged: copy or convert it again")


def read_video(path: str | os.PathLike) -> tuple[VideoInfo, Float[np.ndarray, " t"], UInt8[np.ndarray, "t h w 3"]]:
  """Read a whole video into memory; use `iter_frames` where it may be long.

  Args:
    path: a video file.

  Returns:
    Its info with the true frame count, the frames' times in seconds since the first, and the frames as RGB bytes.

  Raises:
    UserError: see `iter_frames`.
  """
  info = probe_video(path)
  times, frames = zip(*iter_frames(path), strict=True)
  stacked = np.stack(frames)
  return VideoInfo(info.path, info.width, info.height, info.fps, len(stacked), info.seconds, info.codec), np.asarray(times), stacked


class VideoWriter:
  """Write H.264 frame by frame; the file appears under its name only when it is whole.

  Use as a context manager. Leaving it through an exception removes the unfinished file and leaves an older video
  of the same name untouched. The picture is yuv420p with the index in front, which every browser plays; an odd
  width or height is made even by repeating the last column or row.
  """

  def __init__(self, path: str | os.PathLike, fps: float | int, *, crf: int = 18):
    """Args:
      path: the video to write; its folder is made where it is missing.
      fps: frames per second, positive.
      crf: x264's quality, 0 (lossless) to 51; 18 is hard to tell from the source.

    Raises:
      UserError: the folder cannot be written.
      ValueError: fps is not positive.
    """
    if not fps > 0:
      raise ValueError(f"fps: expected a positive number, got {fps}")
    self.path = Path(path)
    self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
    self._rate = Fraction(fps).limit_denominator(1001)
    self._options = {"crf": str(crf), "preset": "medium"}
    self._stream = None
    self._shape = None
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
    except OSError as error:
      raise UserError(f"{self.path} cannot be written: {error.strerror or error}; choose another place") from error

  def add(self, frame: np.ndarray) -> None:
    """Append one RGB frame; all frames of a video have one shape.

    Raises:
      ValueError: the frame is not uint8 [h, w, 3] or differs in size from the first.
    """
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
      raise ValueError(f"frame: expected uint8 [h, w, 3], got {frame.dtype} {frame.shape}")
    if self._shape is None:
      self._shape = frame.shape
      self._stream = self._start(frame.shape)
    if frame.shape != self._shape:
      raise ValueError(f"frame: expected {self._shape} like the first frame, got {frame.shape}")
    height, width = frame.shape[:2]
    frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
    picture.color_range = _LIMITED
    picture.colorspace = _BT709
    for packet in self._stream.encode(picture):  # pyright: ignore[reportOptionalMemberAccess]
      self._container.mux(packet)

  def _start(self, shape: tuple[int, ...]) -> "av.VideoStream":
    stream = self._container.add_stream("libx264", rate=self._rate)
    stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
    stream.pix_fmt = "yuv420p"
    stream.options = self._options  # pyright: ignore[reportAttributeAccessIssue]
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream

  def __enter__(self) -> "VideoWriter":
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      if kind is None:
        if self._stream is None:
          raise ValueError(f"{self.path}: a video needs at least one frame")
        for packet in self._stream.encode():
          self._container.mux(packet)
      self._container.close()
      if kind is None:
        os.replace(self._part, self.path)
    except OSError as failure:
      raise UserError(f"{self.path} cannot be written: {failure.strerror or failure}; choose another place") from failure
    finally:
      self._part.unlink(missing_ok=True)


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float | int, *, crf: int = 18) -> Path:
  """Write frames as one H.264 video that browsers play.

  Args:
    path: the video to write, replaced only when the new one is whole.
    frames: RGB bytes, an array [t, h, w, 3] or any iterable of [h, w, 3].
    fps: frames per second.
    crf: x264's quality, 0 (lossless) to 51.

  Returns:
    The path written.

  Raises:
    UserError: the folder cannot be written.
    ValueError: no frames, frames of unequal size, not uint8, or fps not positive.
  """
  with VideoWriter(path, fps, crf=crf) as writer:
    for frame in frames:
      writer.add(frame)
  return writer.path
