"""The two passes over a video: landmarks of every frame, then the static head crop with pictures and person masks."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from silky_jax.config import UserError
from silky_jax.data.images import crop_resize, largest_component, read_gray, write_image
from silky_jax.data.video import iter_frames, probe_video
from silky_jax.progress import Progress
from silky_jax.tracking.landmarks import COUNT, DetectorConfig, FaceCounter, LandmarkDetector, PersonSegmenter, quiet


@dataclasses.dataclass(frozen=True)
class ObserveConfig:
  detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)
  chunk: int = 200  # frames per detector: an interrupted run repeats at most one chunk, with the same result
  warm_up: int = 5  # frames a new detector sees before its first result counts
  max_frames: int = 0  # 0: all
  count_every: int = 12  # frames between those in which faces are counted
  crowd_share: float = 0.2  # of these: so many with a second face of like size, and the clip is refused
  # The head around its landmarks' bounding box, in units of that box.
  margin_sides: float = 0.45
  margin_top: float = 0.55
  margin_bottom: float = 0.45
  person_view: float = 2.8  # side of the picture shown to the segmenter, in face heights


def landmark_pass(video: Path, scratch: Path, config: ObserveConfig) -> None:
  """Landmarks of every frame -> `scratch/NNNN.npz` per chunk (px of the video, times in seconds); finished chunks are kept.

  Raises:
    UserError: two faces of like size in many frames: nobody could say whose landmarks are whose.
  """
  info = probe_video(video)
  total = min(info.frames or 10**9, config.max_frames or 10**9)
  detector, landmarks, times, faces, tail = None, [], [], [], []
  with quiet(), Progress("landmarks", total if total < 10**9 else 0, "frames") as bar:
    counter = FaceCounter()
    for number, (time, image) in enumerate(iter_frames(video)):
      if config.max_frames and number >= config.max_frames:
        break
      bar.update()
      chunk = scratch / f"{number // config.chunk:04d}.npz"
      tail = [*tail[-config.warm_up + 1 :], image]
      if chunk.is_file():
        continue
      if detector is None:
        detector = LandmarkDetector(config.detector)
        for earlier in tail[:-1]:
          detector(earlier)
      landmarks.append(detector(image))
      times.append(time)
      if number % config.count_every == 0:
        faces.append(counter(image))
      if (number + 1) % config.chunk == 0:
        _save(chunk, landmarks=landmarks, times=times, faces=faces)
        detector.close()
        detector, landmarks, times, faces = None, [], [], []
    counter.close()
  if detector is not None:
    detector.close()
    _save(chunk, landmarks=landmarks, times=times, faces=faces)
  _refuse_crowds(video, scratch, config)


def _refuse_crowds(video: Path, scratch: Path, config: ObserveConfig) -> None:
  counts = np.concatenate([np.load(path)["faces"] for path in sorted(scratch.glob("[0-9]*.npz"))])
  crowded = int((counts > 1).sum())
  if crowded >= max(2, config.crowd_share * len(counts)):
    raise UserError(
      f"{video}: two faces or more of like size in {crowded} of {len(counts)} sampled frames. Wanted one person: "
      "cut the video to the one you mean, for example with `ffmpeg -i IN.mp4 -vf crop=WIDTH:HEIGHT:LEFT:TOP OUT.mp4`, and run again."
    )


def _save(path: Path, **arrays: Any) -> None:
  part = path.with_suffix(".part")
  with part.open("wb") as file:
    np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})
  os.replace(part, path)


def read_landmarks(scratch: Path) -> tuple[Float[np.ndarray, "t 478 2"], Float[np.ndarray, "t"]]:
  """Landmarks (px of the video, NaN without a face) and times of all frames."""
  chunks = [np.load(path) for path in sorted(scratch.glob("[0-9]*.npz"))]
  landmarks = np.concatenate([c["landmarks"] for c in chunks]).astype(np.float32)
  return landmarks.reshape(-1, COUNT, 2), np.concatenate([c["times"] for c in chunks])


def head_crop(landmarks: Float[np.ndarray, "t l 2"], config: ObserveConfig) -> tuple[float, float, float]:
  """The one square (x0, y0, side; px of the video) that holds the head in every frame.

  Raises:
    UserError: no frame shows a face.
  """
  found = landmarks[np.isfinite(landmarks).all(axis=(1, 2))]
  if not len(found):
    raise UserError(
      f"no face was found in any of {len(landmarks)} frames. Wanted one person facing the camera, face at least 60 px wide. "
      "Look at the video; crop or brighten it and run again."
    )
  low, high = found.min(axis=1), found.max(axis=1)
  size = high - low
  low = low - size * [config.margin_sides, config.margin_top]
  high = high + size * [config.margin_sides, config.margin_bottom]
  # A single wild frame must not shrink everybody's head.
  low, high = np.percentile(low, 1, axis=0), np.percentile(high, 99, axis=0)
  side = float((high - low).max())
  x0, y0 = (low + high) / 2 - side / 2
  return float(x0), float(y0), side


def picture_pass(
  video: Path,
  output: Path,
  scratch: Path,
  landmarks: Float[np.ndarray, "t l 2"],
  box: tuple[float, float, float],
  size: int,
  config: ObserveConfig,
) -> None:
  """Cropped pictures -> `output/images`, person masks -> `scratch/person`, changes against the frame before -> `scratch/changes.npz`."""
  images, persons = output / "images", scratch / "person"
  images.mkdir(exist_ok=True)
  persons.mkdir(exist_ok=True)
  boxes = _person_boxes(landmarks, config)
  previous, changes = None, []
  with quiet(), Progress("pictures", len(landmarks), "frames") as bar:
    segmenter = PersonSegmenter()
    for number, (_, image) in enumerate(iter_frames(video)):
      if number >= len(landmarks):
        break
      crop = crop_resize(image, box, size)
      changes.append(0.0 if previous is None else float(np.abs(crop.astype(np.float32) - previous).mean()))
      previous = crop.astype(np.float32)
      name = f"{number:05d}.png"
      if not (persons / name).is_file():  # written last
        write_image(images / name, crop)
        write_image(persons / name, _person(segmenter, image, boxes[number], box, size))
      bar.update()
    segmenter.close()
  _save(scratch / "changes.npz", changes=changes)


def _person_boxes(landmarks: Float[np.ndarray, "t l 2"], config: ObserveConfig) -> Float[np.ndarray, "t 3"]:
  """The square shown to the segmenter in each frame: it is best when the face fills a fixed share of its picture."""
  low, high = landmarks.min(axis=1), landmarks.max(axis=1)
  height = high[:, 1] - low[:, 1]
  side = config.person_view * height
  boxes = np.column_stack([(low + high)[:, 0] / 2 - side / 2, (low + high)[:, 1] / 2 - 0.45 * side, side])
  found, index = np.isfinite(boxes).all(axis=1), np.arange(len(boxes))
  return np.stack([np.interp(index, index[found], column[found]) for column in boxes.T], axis=1)


def _person(
  segmenter: PersonSegmenter, image: UInt8[np.ndarray, "h w 3"], view: Float[np.ndarray, "3"], box: tuple[float, float, float], size: int
):
  """Soft person mask of the crop: the largest component."""
  x, y, side = (float(v) for v in view)
  soft = segmenter(crop_resize(image, (x, y, side), 256))
  scale = 256 / side
  return largest_component(crop_resize(soft, ((box[0] - x) * scale, (box[1] - y) * scale, box[2] * scale), size, fill=0))


def read_persons(scratch: Path, count: int) -> UInt8[np.ndarray, "t h w"]:
  """The person masks of `picture_pass`."""
  return np.stack([read_gray(scratch / "person" / f"{k:05d}.png") for k in range(count)])


def found_frames(landmarks: Float[np.ndarray, "t l 2"]) -> Bool[np.ndarray, "t"]:
  """Frames in which a face was found."""
  return np.isfinite(landmarks).all(axis=(1, 2))
