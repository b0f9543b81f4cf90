"""Does the avatar open its mouth and close its eyes when the person does? Measured by a landmark model on both."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

__all__ = ["Curves", "follow", "lid_opening", "lip_opening", "pearson", "summary"]

# MediaPipe's numbering of the 478 points.
_LIPS = (13, 14)  # inner lips, upper and lower
_LIDS = ((386, 374), (159, 145))  # upper and lower lid of the subject's left and right eye
_FACE_SIDES = (234, 454)  # the face contour at both ears: their distance is the face width

# Pictures in order -> 478 points of each, px; NaN where no face was found. `tracking.landmarks.detect` is one.
Detect = Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]


def _gap(landmarks: Float[np.ndarray, "t l 2"], pair: tuple[int, int]) -> Float[np.ndarray, "t"]:
  return np.linalg.norm(landmarks[:, pair[0]] - landmarks[:, pair[1]], axis=-1)


def lip_opening(landmarks: Float[np.ndarray, "t 478 2"]) -> Float[np.ndarray, "t"]:
  """Distance of the inner lips in face widths; NaN where no face was found."""
  return _gap(landmarks, _LIPS) / _gap(landmarks, _FACE_SIDES)


def lid_opening(landmarks: Float[np.ndarray, "t 478 2"]) -> Float[np.ndarray, "t"]:
  """Distance of upper and lower lid in face widths, mean of both eyes; NaN where no face was found."""
  return 0.5 * sum(_gap(landmarks, pair) for pair in _LIDS) / _gap(landmarks, _FACE_SIDES)


def pearson(a: Float[np.ndarray, "t"], b: Float[np.ndarray, "t"]) -> float | None:
  """Pearson correlation over the frames where both are known; None for fewer than 3 such frames or a constant series."""
  known = np.isfinite(a) & np.isfinite(b)
  if known.sum() < 3 or a[known].std() == 0 or b[known].std() == 0:
    return None
  return float(np.corrcoef(a[known], b[known])[0, 1])


@dataclasses.dataclass(frozen=True)
class Curves:
  """Openings in face widths, frame by frame, of one split; NaN where the landmark model found no face."""

  index: Int[np.ndarray, "t"]  # frame numbers
  lips_truth: Float[np.ndarray, "t"]
  lips_avatar: Float[np.ndarray, "t"]
  lids_truth: Float[np.ndarray, "t"]
  lids_avatar: Float[np.ndarray, "t"]


def follow(
  avatar: UInt8[np.ndarray, "t h w 3"], truth: UInt8[np.ndarray, "t h w 3"], index: Int[np.ndarray, "t"], detect: Detect
) -> Curves:
  """Measure lips and lids on an avatar's pictures and on the photographs of the same moments, with the same model.

  Args:
    avatar: renders.
    truth: photographs, same crop and size.
    index: frame numbers.
    detect: the landmark model.
  """
  found = [np.asarray(list(detect(pictures)), np.float64).reshape(-1, 478, 2) for pictures in (truth, avatar)]
  lips, lids = ([opening(points) for points in found] for opening in (lip_opening, lid_opening))
  return Curves(np.asarray(index), lips[0], lips[1], lids[0], lids[1])


def summary(curves: Mapping[str, Curves]) -> dict[str, Any]:
  """Correlations over all splits together and in each.

  Args:
    curves: by split.

  Returns:
    "lips" and "lids" (Pearson, None where undefined), "frames" where the face was found in both, "avatar_without_face"
    (frames in which the landmark model does not see a face in the render), "of" (all frames), and "splits".
  """
  together = Curves(*(np.concatenate([getattr(c, field.name) for c in curves.values()]) for field in dataclasses.fields(Curves)))
  return _row(together) | {
    "measured": "landmark model on renders and photographs, openings in face widths",
    "splits": {k: _row(c) for k, c in curves.items()},
  }


def _row(curves: Curves) -> dict[str, Any]:
  truth, avatar = (np.isfinite(x) for x in (curves.lips_truth, curves.lips_avatar))
  return {
    "lips": pearson(curves.lips_truth, curves.lips_avatar),
    "lids": pearson(curves.lids_truth, curves.lids_avatar),
    "frames": int((truth & avatar).sum()),
    "avatar_without_face": int((truth & ~avatar).sum()),
    "of": len(curves.index),
  }
