"""Videos as phones, screen recorders and cameras write them."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from silky_jax.data.video import write_video


def uneven(path: Path, frames: Iterable[np.ndarray], milliseconds: Iterable[int]) -> Path:
  """A picture at each of the given times; any size, also odd ones. Lossless, .mkv."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("ffv1", rate=25)
    stream.pix_fmt = "bgr0"
    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    frames = list(frames)
    stream.height, stream.width = frames[0].shape[:2]
    for time, frame in zip(milliseconds, frames, strict=True):
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="bgr0")
      picture.pts, picture.time_base = int(time), Fraction(1, 1000)
      container.mux(stream.encode(picture))
    container.mux(stream.encode())
  return path


# Track to screen, x to the right, y down: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.3.2), as (a, b, c, d).
_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise


def turned(path: Path, frames: Iterable[np.ndarray], clockwise: int) -> Path:
  """An .mp4 that a phone held sideways writes: pictures lie, a flag says how to turn them. `frames` are as they should be seen."""
  write_video(path, [np.rot90(frame, clockwise // 90) for frame in frames], 25, crf=4)
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 4 + 40  # version 0: ten words before the matrix
  a, b, c, d = (value * 0x10000 for value in _TURNS[clockwise])
  assert struct.unpack(">9i", data[at : at + 36]) == (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
  path.write_bytes(data)
  return path
