"""Pictures on disk and in memory: the only room that imports cv2."""

import os
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from silky_jax.config import UserError


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
  """Read an 8-bit colour picture as RGB.

  Raises:
    UserError: the file is missing or is no picture.
  """
  return cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_gray(path: Path) -> UInt8[np.ndarray, "h w"]:
  """Read an 8-bit single-channel picture (a mask or a label map).

  Raises:
    UserError: the file is missing or is no picture.
  """
  return _read(path, cv2.IMREAD_GRAYSCALE)


def _read(path: Path, mode: int) -> UInt8[np.ndarray, "..."]:
  if not Path(path).is_file():
    raise UserError(f"{path}: wanted a picture, found no such file")
  image = cv2.imread(str(path), mode)
  if image is None:
    raise UserError(f"{path}: wanted a PNG or JPEG picture, found a file that cannot be decoded (half-written?)")
  return image


def write_image(path: Path, image: UInt8[np.ndarray, "..."]) -> None:
  """Write RGB `[h, w, 3]` or gray `[h, w]` as the picture type of the file's ending, atomically."""
  path = Path(path)
  coded = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
  ok, data = cv2.imencode(path.suffix, coded)
  if not ok:
    raise UserError(f"{path}: cannot encode a picture of shape {image.shape} as {path.suffix}")
  part = path.with_name(f".{path.name}.part")
  part.write_bytes(data.tobytes())
  os.replace(part, path)


def crop_resize(
  image: Shaped[np.ndarray, "..."], box: tuple[float, float, float], size: int, *, fill: int | None = None
) -> Shaped[np.ndarray, "..."]:
  """Cut the square `box` (x0, y0, side in px, any real numbers) out of a picture and scale it to `size`.

  Pixel centres at half integers map onto pixel centres at half integers. Outside the picture: `fill`, or the border
  repeated. Enlarging interpolates bicubically; reducing averages areas.
  """
  x0, y0, side = box
  scale = size / side
  if scale < 1.0:  # average first, so that thin things do not alias
    reduced = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    sx, sy = reduced[0] / image.shape[1], reduced[1] / image.shape[0]
    image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
  else:
    sx = sy = 1.0
  ax, ay = scale / sx, scale / sy
  matrix = np.array([[ax, 0.0, 0.5 * ax - 0.5 - x0 * scale], [0.0, ay, 0.5 * ay - 0.5 - y0 * scale]])
  mode = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
  value = (0,) if fill is None else (fill,) * 4
  return cv2.warpAffine(
    image, matrix, (size, size), flags=cv2.INTER_CUBIC if scale >= 1.0 else cv2.INTER_LINEAR, borderMode=mode, borderValue=value
  )


def warp(image: Shaped[np.ndarray, "..."], matrix: Shaped[np.ndarray, "2 3"], size: tuple[int, int]) -> Shaped[np.ndarray, "..."]:
  """Warp a picture by a 2x3 affine map from source to target pixel-centre coordinates (integers at centres); `size` is (width, height)."""
  return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blur(images: UInt8[np.ndarray, "t h w 3"], sigma: float) -> Float[np.ndarray, "t h w 3"]:
  """Gaussian blur of a stack of pictures, scaled to [0, 1]; `sigma` in px."""
  return np.stack([cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32) / 255.0 for image in images])


def to_lab(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
  """CIELAB, in which equal distances look about equally large: lightness 0..100, the other two about -100..100."""
  return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def largest_component(mask: UInt8[np.ndarray, "h w"], threshold: int = 127) -> UInt8[np.ndarray, "h w"]:
  """Keep the largest connected part of a soft mask, and the soft rim around it."""
  count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > threshold).astype(np.uint8))
  if count < 2:
    return np.zeros_like(mask)
  keep = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
  return np.where(cv2.dilate(keep, np.ones((9, 9), np.uint8)) > 0, mask, 0).astype(np.uint8)


def grow(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
  """Every pixel within `radius` px (square) of a true one."""
  return cv2.dilate(mask.astype(np.uint8), np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0


def draw_points(
  image: UInt8[np.ndarray, "h w 3"], points: Shaped[np.ndarray, "l 2"], colour: tuple[int, int, int], radius: int = 1
) -> None:
  """Draw filled dots (pixel coordinates, centres at half integers) onto a picture in place; NaN points are left out."""
  for x, y in points[np.isfinite(points).all(axis=1)]:
    cv2.circle(image, (int(np.floor(x)), int(np.floor(y))), radius, colour, -1, cv2.LINE_AA)


def draw_lines(image: UInt8[np.ndarray, "h w 3"], lines: Shaped[np.ndarray, "l 2 2"], colour: tuple[int, int, int]) -> None:
  """Draw line segments (pixel coordinates) onto a picture in place."""
  ends = np.round((lines - 0.5) * 16).astype(np.int32)
  cv2.polylines(image, list(ends), False, colour, 1, cv2.LINE_AA, 4)


def put_text(image: UInt8[np.ndarray, "h w 3"], text: str, origin: tuple[int, int], colour: tuple[int, int, int] = (255, 255, 255)) -> None:
  """Write a short label onto a picture in place, with a dark rim so that it reads on any ground."""
  scale = max(0.45, image.shape[1] / 900)
  for width, ink in ((3, (0, 0, 0)), (1, colour)):
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, width, cv2.LINE_AA)
