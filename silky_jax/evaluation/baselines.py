"""What a score is worth: photographs in the avatar's place, and the truth spoiled by known amounts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from silky_jax.data.images import warp
from silky_jax.types import Frame

__all__ = ["GROUPS", "POSE_FREE", "align", "nearest", "shift", "tracked_groups", "warp_similarity"]

GROUPS = ("rotation", "translation", "expression", "jaw", "eyelids")  # what `nearest_frame` compares
POSE_FREE = ("rotation", "expression", "jaw", "eyelids")  # what `aligned_frame` compares: a similarity undoes the rest
_SMALLEST_SPREAD = 1e-6  # a parameter that never moved in training says nothing


def tracked_groups(frames: Frame) -> dict[str, Float[np.ndarray, "t _"]]:
  """The tracked parameters of a batch of frames, by group.

  Args:
    frames: batch [t].

  Returns:
    "rotation" (global and neck, axis-angle), "translation" (m), "expression", "jaw" (axis-angle), "eyelids".
  """
  pose = np.asarray(frames.pose)
  return {
    "rotation": pose[:, :2].reshape(len(pose), -1),
    "translation": np.asarray(frames.translation),
    "expression": np.asarray(frames.expression),
    "jaw": pose[:, 2],
    "eyelids": np.asarray(frames.eyelids),
  }


def nearest(train: Frame, query: Frame, groups: Sequence[str] = GROUPS) -> Int[np.ndarray, "q"]:
  """For each query frame, the training frame with the nearest tracked parameters.

  Distance: every parameter is divided by its standard deviation over the training frames; within a group the squared
  differences are averaged (so that 50 expression coefficients do not outvote 3 rotations), and the groups are added.

  Args:
    train: batch [t].
    query: batch [q].
    groups: which of `GROUPS` to compare.

  Returns:
    Positions in `train`.
  """
  known, wanted = tracked_groups(train), tracked_groups(query)
  a, b = [], []
  for name in groups:
    spread = known[name].std(axis=0, dtype=np.float64)
    moving = spread > _SMALLEST_SPREAD
    scale = spread[moving] * np.sqrt(max(moving.sum(), 1))
    middle = known[name][:, moving].mean(axis=0)  # taken off, so that the squares below lose no digits
    a.append((wanted[name][:, moving] - middle) / scale)
    b.append((known[name][:, moving] - middle) / scale)
  a, b = np.concatenate(a, axis=1), np.concatenate(b, axis=1)
  return ((b**2).sum(axis=1) - 2.0 * a @ b.T).argmin(axis=1)


def align(source: Float[np.ndarray, "l 2"], target: Float[np.ndarray, "l 2"]) -> Float[np.ndarray, "2 3"]:
  """The similarity (scale, rotation, shift) that takes `source` nearest to `target` in the least-squares sense.

  As complex numbers about their means, a = sum(conj(s) t) / sum(|s|^2), target ~ a source + shift.

  Args:
    source: px.
    target: px, same order; a point that is NaN in either is left out.

  Returns:
    [A | b]: target ~ A source + b.

  Raises:
    ValueError: fewer than two points are known in both.
  """
  known = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
  if known.sum() < 2:
    raise ValueError(f"source, target: expected at least 2 points known in both, got {int(known.sum())}")
  s, t = (points[known, 0] + 1j * points[known, 1] for points in (source, target))
  a = np.vdot(s - s.mean(), t - t.mean()) / np.vdot(s - s.mean(), s - s.mean())
  b = t.mean() - a * s.mean()
  return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def warp_similarity(image: Shaped[np.ndarray, "h w ..."], matrix: Float[np.ndarray, "2 3"]) -> Shaped[np.ndarray, "h w ..."]:
  """Move a picture by a map of px coordinates (pixel centres at half integers); its border is repeated outside.

  Args:
    image: any channels.
    matrix: [A | b], where a point of the picture goes.
  """
  half = np.array([0.5, 0.5])
  centred = np.column_stack([matrix[:, :2], matrix[:, :2] @ half + matrix[:, 2] - half])
  return warp(image, centred, (image.shape[1], image.shape[0]))


def shift(images: UInt8[np.ndarray, "t h w 3"], pixels: int) -> UInt8[np.ndarray, "t h w 3"]:
  """Pictures moved to the right by whole pixels, the left column repeated."""
  return np.concatenate([np.repeat(images[:, :, :1], pixels, axis=2), images[:, :, : images.shape[2] - pixels]], axis=2)
