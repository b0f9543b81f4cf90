"""UV atlas: which face and where on it, for every texel. Host code in numpy, run once per rig and size."""

from typing import NamedTuple

import numpy as np

__all__ = ["Atlas", "rasterize_uv"]

_INSIDE = -1e-9  # barycentric weight above which a texel centre counts as inside, in float64


class Atlas(NamedTuple):
  """Texels of a square map, row 0 at v = 1."""

  face_ids: np.ndarray  # [s, s] int32, -1 where no face is
  barycentric: np.ndarray  # [s, s, 3] float32, zeros where no face is

  @property
  def covered(self) -> np.ndarray:
    """[s, s] bool."""
    return self.face_ids >= 0


def rasterize_uv(uv: np.ndarray, uv_faces: np.ndarray, size: int) -> Atlas:
  """Cover a square texel map with the UV layout: the texel (row i, column j) samples (u, v) = ((j + 1/2)/s, 1 - (i + 1/2)/s).

  Args:
    uv: [u, 2] texture coordinates in 0..1, v up.
    uv_faces: [f, 3] ids into `uv`.
    size: s, texels per side.

  Returns:
    Atlas. A texel centre belongs to the face it lies in; on a shared edge, or where islands overlap, to the lowest face id.

  Raises:
    ValueError: `size` is not positive, or an array has the wrong shape.
  """
  uv, uv_faces = np.asarray(uv, np.float64), np.asarray(uv_faces)
  if size < 1:
    raise ValueError(f"size: expected a positive number of texels, got {size}")
  if uv.ndim != 2 or uv.shape[1] != 2 or uv_faces.ndim != 2 or uv_faces.shape[1] != 3:
    raise ValueError(f"uv, uv_faces: expected [u, 2] and [f, 3], got {uv.shape} and {uv_faces.shape}")
  corners = np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size], axis=-1)[uv_faces]  # [f, 3, (x, y)] texels
  low = np.clip(np.ceil(corners.min(1) - 0.5 - 1e-9), 0, size).astype(int)
  high = np.clip(np.floor(corners.max(1) - 0.5 + 1e-9), -1, size - 1).astype(int)
  extent = np.maximum(high - low + 1, 0)
  counts = extent[:, 0] * extent[:, 1]
  face = np.repeat(np.arange(len(uv_faces)), counts)
  step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  across = np.maximum(extent[face, 0], 1)
  column, row = low[face, 0] + step % across, low[face, 1] + step // across
  x, y = corners[face, :, 0] - (column + 0.5)[:, None], corners[face, :, 1] - (row + 0.5)[:, None]
  cross = np.stack([x[:, i] * y[:, j] - x[:, j] * y[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=-1)
  area = cross.sum(1, keepdims=True)
  weights = cross / np.where(area == 0, np.inf, area)
  inside = (weights.min(1) >= _INSIDE) & (area[:, 0] != 0)
  face, column, row, weights = face[inside], column[inside], row[inside], weights[inside]
  texel, first = np.unique(row * size + column, return_index=True)  # faces ascend, so the first is the lowest id
  face_ids = np.full(size * size, -1, np.int32)
  barycentric = np.zeros((size * size, 3), np.float32)
  face_ids[texel] = face[first]
  clipped = np.maximum(weights[first], 0)
  barycentric[texel] = clipped / clipped.sum(1, keepdims=True)
  return Atlas(face_ids.reshape(size, size), barycentric.reshape(size, size, 3))
