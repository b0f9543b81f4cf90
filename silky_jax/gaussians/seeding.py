"""Where Gaussians start: sites on a surface, one per texel of its UV atlas. Host code in numpy, run once per subject."""

from typing import NamedTuple

import numpy as np

from silky_jax.geometry.uv import rasterize_uv

__all__ = ["Sites", "uv_sites"]


class Sites(NamedTuple):
  """Points bound to a mesh: they move with their triangle."""

  faces: np.ndarray  # [n] int32
  barycentric: np.ndarray  # [n, 3] float32, rows sum to 1
  texels: np.ndarray  # [n] int32, number of each one's texel, row by row of the atlas, whose first row is at v = 1


def uv_sites(uv: np.ndarray, uv_faces: np.ndarray, *, size: int, keep: np.ndarray | None = None) -> Sites:
  """One site per texel that a wanted face covers, in row-major order of the atlas.

  A uniform grid in UV gives each part of the head the share of Gaussians that the atlas gives it of the texture: more on the face.
  Faces that share texels with another part (islands laid over each other) or are smaller than a texel may get none.

  Args:
    uv: [u, 2] texture coordinates in 0..1, v up.
    uv_faces: [f, 3] ids into `uv`.
    size: texels per side.
    keep: [f] bool, which faces carry Gaussians; None is all.

  Returns:
    Sites.

  Raises:
    ValueError: no texel is covered, or `keep` does not fit the faces.
  """
  uv_faces = np.asarray(uv_faces)
  kept = np.arange(len(uv_faces)) if keep is None else np.flatnonzero(keep)
  if keep is not None and np.shape(keep) != (len(uv_faces),):
    raise ValueError(f"keep: expected one flag for each of {len(uv_faces)} faces, got shape {np.shape(keep)}")
  atlas = rasterize_uv(uv, uv_faces[kept], size)
  covered = atlas.covered
  if not covered.any():
    raise ValueError(f"no texel of {size} x {size} is covered by {len(kept)} faces: is the UV layout in 0..1?")
  return Sites(kept[atlas.face_ids[covered]].astype(np.int32), atlas.barycentric[covered], np.flatnonzero(covered).astype(np.int32))
