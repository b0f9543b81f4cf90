"""Pictures and videos for people: truth beside avatar beside error, contact sheets, the worst frame."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from silky_jax.data.images import crop_resize, write_image
from silky_jax.data.video import VideoWriter

__all__ = ["ERROR_FULL_SCALE", "comparison", "error_colours", "on_background", "sheet", "write_comparison", "write_sheet"]

ERROR_FULL_SCALE = 64  # of 255: the mean error over channels that is drawn in the brightest colour
_GAP = 4  # px of white between panels
# Black over violet and orange to pale yellow: ordered in lightness, so that it also reads in grey.
_STOPS = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], np.float32)

# Digits as rows of three pixels, five rows from the top, one octal digit per row.
_DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71222", "75757", "75717")
_DOT = 2  # px per font pixel


def error_colours(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
  """The absolute difference of two pictures, mean over channels, as a colour from black (0) to pale yellow (64 of 255 or more)."""
  error = np.abs(a.astype(np.float32) - b).mean(axis=-1)
  place = np.clip(error / ERROR_FULL_SCALE, 0, 1) * (len(_STOPS) - 1)
  low = np.minimum(place.astype(int), len(_STOPS) - 2)
  share = (place - low)[..., None]
  return np.round(_STOPS[low] * (1 - share) + _STOPS[low + 1] * share).astype(np.uint8)


def on_background(
  image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], background: Float[np.ndarray, "3"]
) -> UInt8[np.ndarray, "h w 3"]:
  """The photograph on one colour (0..1) outside its mask."""
  weight = mask[..., None].astype(np.float32) / 255.0
  return np.round(image * weight + 255.0 * np.asarray(background, np.float32) * (1.0 - weight)).astype(np.uint8)


def comparison(truth: UInt8[np.ndarray, "h w 3"], avatar: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h wide 3"]:
  """Truth | avatar | error, side by side."""
  gap = np.full((len(truth), _GAP, 3), 255, np.uint8)
  return np.concatenate([truth, gap, avatar, gap, error_colours(avatar, truth)], axis=1)


def write_comparison(
  path: str | os.PathLike,
  rows: Callable[[], Iterator[tuple[int, np.ndarray, np.ndarray]]] | Sequence[tuple[int, np.ndarray, np.ndarray]],
  fps: float | int,
  *,
  crf: int = 20,
) -> Path:
  """Write truth | avatar | error as a video, each frame with its number in the upper left corner.

  Args:
    path: the `.mp4` to write.
    rows: (frame number, truth, avatar) of every frame, bytes [h, w, 3]; a sequence, or a function that yields them.
    fps: frames per second.
    crf: x264's quality.
  """
  with VideoWriter(path, fps, crf=crf) as writer:
    for number, truth, avatar in rows() if callable(rows) else rows:
      picture = comparison(truth, avatar)
      _stamp(picture, number)
      writer.add(picture)
  return Path(path)


def _stamp(picture: UInt8[np.ndarray, "h w 3"], number: int) -> None:
  """Draw a number into the upper left corner in place."""
  for place, digit in enumerate(str(number)):
    glyph = np.array([[int(row) >> shift & 1 for shift in (2, 1, 0)] for row in _DIGITS[int(digit)]], bool).repeat(_DOT, 0).repeat(_DOT, 1)
    left, top = 6 + place * 4 * _DOT, 6
    patch = picture[top : top + 5 * _DOT, left : left + 3 * _DOT]
    patch[glyph] = 0 if patch.mean() > 96 else 255


def sheet(images: Sequence[UInt8[np.ndarray, "h w 3"]], columns: int) -> UInt8[np.ndarray, "high wide 3"]:
  """Pictures of one size as rows of a table."""
  tiles = [np.pad(image, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for image in images]
  tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
  rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
  return np.concatenate(rows, axis=0)[:-_GAP, :-_GAP]


def write_sheet(path: str | os.PathLike, images: Sequence[np.ndarray], columns: int, *, scale: float = 1.0) -> Path:
  """Write `sheet` as a picture; square tiles may be enlarged by `scale` first.

  Args:
    path: `.png` or `.jpg`.
    images: bytes [h, w, 3].
    columns: pictures per row.
    scale: 2.0 doubles the side.
  """
  if scale != 1.0:
    images = [crop_resize(image, (0.0, 0.0, float(len(image))), round(len(image) * scale)) for image in images]
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  write_image(Path(path), sheet(images, columns))
  return Path(path)
