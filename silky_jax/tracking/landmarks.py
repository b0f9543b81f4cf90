"""Dense 2D landmarks and person masks by MediaPipe: the only file that imports it.

The wheel `mediapipe` 0.10.14 carries its models, so nothing is downloaded. Its landmark model crops the face itself
and is equivariant to rotation only up to noise; averaging it over three in-plane rotations takes a seventh of the noise
away (experiments/results/landmark_noise.json).
"""

import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from silky_jax.config import UserError
from silky_jax.data.images import warp

COUNT = 478  # 468 of the surface, then 5 of the right iris (image left) and 5 of the left
RIGHT_IRIS, LEFT_IRIS = slice(468, 473), slice(473, 478)
FACE_SIDES = (234, 454)  # face contour at the subject's right and left ear: their distance is the face width
LIPS = (13, 14)  # inner lips, upper and lower
LEFT_LIDS, RIGHT_LIDS = (386, 374), (159, 145)  # upper and lower lid of the subject's left and right eye
LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS = (362, 263), (133, 33)


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
  rotations: tuple[float, ...] = (-8.0, 0.0, 8.0)  # degrees, in-plane views whose results are averaged
  confidence: float = 0.5  # below it a face is "not found"


def _mediapipe() -> ModuleType:
  """Import MediaPipe quietly.

  Raises:
    UserError: it is not installed.
  """
  os.environ.setdefault("GLOG_minloglevel", "3")
  warnings.filterwarnings("ignore", message=".*SymbolDatabase.GetPrototype.*")
  try:
    import mediapipe
  except ImportError as error:
    raise UserError(
      "tracking needs the package mediapipe 0.10.14 (Python 3.11 or 3.12), which is not installed. "
      'Install the extra: pip install "silky-jax[track]", or `make` in a clone.'
    ) from error
  return mediapipe


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silence the library's C++ part, which logs to the process's error stream from its own threads, past every switch.

  Python's `sys.stderr` goes on where it was, so that progress and tracebacks are seen.
  """
  sys.stderr.flush()
  before, saved, nowhere = sys.stderr, os.dup(2), os.open(os.devnull, os.O_WRONLY)
  replaced = before.fileno() == 2 if _has_file(before) else False
  if replaced:
    sys.stderr = os.fdopen(os.dup(saved), "w", buffering=1)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(saved, 2)
    if replaced:
      sys.stderr.close()
      sys.stderr = before
    os.close(saved)
    os.close(nowhere)


def _has_file(stream: Any) -> bool:
  try:
    stream.fileno()
  except (AttributeError, OSError, ValueError):
    return False
  return True


class LandmarkDetector:
  """478 landmarks per picture of a video, in order. Holds the model's tracking state: make one per run of frames."""

  def __init__(self, config: DetectorConfig | None = None):
    self._config = config or DetectorConfig()
    mesh = _mediapipe().solutions.face_mesh
    self._models = [
      mesh.FaceMesh(max_num_faces=1, refine_landmarks=True, min_detection_confidence=self._config.confidence)
      for _ in self._config.rotations
    ]

  def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "478 2"]:
    """Landmarks in px (centres at half integers); NaN where no face was found."""
    found = [self._view(model, image, angle) for model, angle in zip(self._models, self._config.rotations, strict=True)]
    found = [points for points in found if points is not None]
    if not found:
      return np.full((COUNT, 2), np.nan, np.float32)
    return np.mean(found, axis=0).astype(np.float32)

  def _view(self, model, image: UInt8[np.ndarray, "h w 3"], angle: float) -> Float[np.ndarray, "478 2"] | None:
    h, w = image.shape[:2]
    turn = rotation_about_centre(angle, w, h)
    view = image if angle == 0 else warp(image, turn - np.array([[0, 0, 0.5], [0, 0, 0.5]]) + _half(turn), (w, h))
    result = model.process(np.ascontiguousarray(view))
    if not result.multi_face_landmarks:
      return None
    points = np.array([[p.x * w, p.y * h] for p in result.multi_face_landmarks[0].landmark], np.float64)
    return (points - turn[:, 2]) @ turn[:, :2]  # the inverse of a rotation is its transpose

  def close(self) -> None:
    for model in self._models:
      model.close()


def rotation_about_centre(angle: float, width: int, height: int) -> Float[np.ndarray, "2 3"]:
  """2x3 map that turns px coordinates (centres at half integers) by `angle` degrees about the picture's centre."""
  c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
  turn = np.array([[c, -s], [s, c]])
  centre = np.array([width / 2, height / 2])
  return np.column_stack([turn, centre - turn @ centre])


def _half(turn: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
  """What the shift from half-integer to integer centres adds to a map's translation."""
  return np.column_stack([np.zeros((2, 2)), turn[:, :2] @ np.array([0.5, 0.5])])


class FaceCounter:
  """How many faces a picture shows that could be the one meant: at least half as high as the largest."""

  def __init__(self) -> None:
    self._model = _mediapipe().solutions.face_detection.FaceDetection(model_selection=0, min_detection_confidence=0.6)

  def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> int:
    found = self._model.process(np.ascontiguousarray(image)).detections or []
    heights = np.array([face.location_data.relative_bounding_box.height for face in found])
    return int((heights >= 0.5 * heights.max()).sum()) if len(heights) else 0

  def close(self) -> None:
    self._model.close()


class PersonSegmenter:
  """Soft person mask of single pictures (model grid 256x256)."""

  def __init__(self) -> None:
    self._model = _mediapipe().solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)

  def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    soft = self._model.process(np.ascontiguousarray(image)).segmentation_mask
    return np.clip(np.round(soft * 255.0), 0, 255).astype(np.uint8)

  def close(self) -> None:
    self._model.close()


def detect(images: Iterable[UInt8[np.ndarray, "h w 3"]], config: DetectorConfig | None = None) -> Iterator[Float[np.ndarray, "478 2"]]:
  """Landmarks of pictures in order, by one detector."""
  with quiet():
    detector = LandmarkDetector(config)
    found = [detector(image) for image in images]
    detector.close()
  yield from found


# The face contour follows the silhouette when the head turns; lips and lids must close when his do.
_CONTOUR = (
  10,
  338,
  297,
  332,
  284,
  251,
  389,
  356,
  454,
  323,
  361,
  288,
  397,
  365,
  379,
  378,
  400,
  377,
  152,
  148,
  176,
  149,
  150,
  136,
  172,
  58,
  132,
  93,
  234,
  127,
  162,
  21,
  54,
  103,
  67,
  109,
)
_LIPS = (
  61,
  146,
  91,
  181,
  84,
  17,
  314,
  405,
  321,
  375,
  291,
  185,
  40,
  39,
  37,
  0,
  267,
  269,
  270,
  409,
  78,
  95,
  88,
  178,
  87,
  14,
  317,
  402,
  318,
  324,
  308,
  191,
  80,
  81,
  82,
  13,
  312,
  311,
  310,
  415,
)
_LIDS = (
  33,
  7,
  163,
  144,
  145,
  153,
  154,
  155,
  133,
  246,
  161,
  160,
  159,
  158,
  157,
  173,
  263,
  249,
  390,
  373,
  374,
  380,
  381,
  382,
  362,
  466,
  388,
  387,
  386,
  385,
  384,
  398,
)
_BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
REGIONS = {
  "contour": np.array(_CONTOUR),
  "lips": np.array(_LIPS),
  "lids": np.array(_LIDS),
  "brows": np.array(_BROWS),
  "irises": np.arange(468, 478),
}


def weights() -> Float[np.ndarray, "478"]:
  """Relative trust in each landmark."""
  trust = np.ones(COUNT, np.float32)
  trust[REGIONS["contour"]] = 0.4
  trust[REGIONS["lips"]] = 3.0
  trust[REGIONS["lids"]] = 6.0
  trust[REGIONS["irises"]] = 1.5
  return trust
