"""Video -> dataset: the stages of `preprocess`, each done once and resumed where it stopped.

landmarks   478 points per frame                                  stages/landmarks/
pictures    static head crop, person mask, change per frame       images/, stages/pictures/
fit         identity, focal length, pose and expression           stages/fit/
labels      head-and-neck masks and region labels                 masks/, parts/
tables      frames.npz and dataset.json: the dataset is complete
quality     overlay.mp4, quality.json, quality.html
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from silky_jax.config import UserError
from silky_jax.data import splits as splits_lib
from silky_jax.data.formats import native
from silky_jax.data.images import crop_resize, read_gray, read_image, write_image
from silky_jax.data.video import probe_video
from silky_jax.flame import open_head, regions
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.geometry.camera import project, rescale
from silky_jax.progress import Progress
from silky_jax.tracking import energy, fit, judge, labels, landmarks, observe, quality, refine, torso
from silky_jax.tracking.collar import Collar
from silky_jax.tracking.fit import FitConfig
from silky_jax.tracking.observe import ObserveConfig
from silky_jax.tracking.photometric import PhotometricConfig
from silky_jax.tracking.stages import Stages, file_fingerprint
from silky_jax.types import Camera

CODE_VERSION = 6  # raise it when a stage's result changes for the same inputs: caches of older code are then redone
_TORSO_FRAMES, _TORSO_SIZE = 6, 128  # training frames, and the side in px of their masks, that the torso is turned by
_COLLAR_FRAMES = 24  # training frames that the colours of skin and cloth are learnt from


@dataclasses.dataclass(frozen=True)
class PreprocessConfig:
  observe: ObserveConfig = dataclasses.field(default_factory=ObserveConfig)
  fit: FitConfig = dataclasses.field(default_factory=FitConfig)
  photometric: PhotometricConfig = dataclasses.field(default_factory=PhotometricConfig)
  splits: splits_lib.SplitConfig = dataclasses.field(default_factory=splits_lib.SplitConfig)
  torso_share: float = 0.4  # of the head's rotation that the torso follows; the neck joint does the rest


def preprocess(
  video_path: str | Path,
  output_dir: str | Path,
  *,
  resolution: int = 512,
  config: PreprocessConfig | None = None,
  known: judge.Known | None = None,
) -> dict[str, float]:
  """Track a video into a dataset folder.

  Args:
    video_path: one person, face visible, any format that decodes.
    output_dir: where the dataset goes; finished stages in it are kept.
    resolution: side of the square head crop, px.
    config: settings.
    known: the truth of the video, where there is one; then the quality page shows the errors.

  Returns:
    Seconds spent per stage in this call (0 for stages that were done already).

  Raises:
    UserError: no video, no face, a folder that cannot be written, a truth of another length; the message says what to do.
  """
  config = config or PreprocessConfig()
  if not 64 <= resolution <= 2048:
    raise UserError(f"--resolution: wanted 64 to 2048 px, found {resolution}")
  run = _Run(Path(video_path), Path(output_dir), resolution, config, known)
  probe_video(run.video)  # fails with the file's name before anything is written
  run.stages = Stages(run.output)
  mark: dict[str, Any] = {"video": file_fingerprint(run.video), "code": CODE_VERSION}
  seconds = {}
  rig_mark = rig_hash(open_head.load()[0])
  for name, settings, work in (
    ("landmarks", config.observe, run.landmarks),
    ("pictures", resolution, run.pictures),
    ("fit", (config.fit, config.photometric, config.splits, rig_mark), run.fit),
    ("labels", config.torso_share, run.labels),
    ("quality", None if known is None else known.name, run.quality),
  ):
    begun = time.perf_counter()
    before = run.stages.done(name)
    mark = {"before": run.stages.run(name, {**mark, "settings": repr(settings)}, work)}
    seconds[name] = time.perf_counter() - begun if not before or run.ran == name else 0.0
  if not run.ran:
    print(f"{run.output}: nothing to do, every stage was done already", flush=True)
  return seconds


@dataclasses.dataclass
class _Run:
  """One call's paths, and the stages as methods."""

  video: Path
  output: Path
  resolution: int
  config: PreprocessConfig
  known: judge.Known | None
  stages: Stages | None = None
  ran: str = ""

  def _scratch(self, name: str) -> Path:
    return self.output / "stages" / name

  def landmarks(self, scratch: Path) -> None:
    self.ran = "landmarks"
    observe.landmark_pass(self.video, scratch, self.config.observe)

  def pictures(self, scratch: Path) -> None:
    self.ran = "pictures"
    (self.output / "dataset.json").unlink(missing_ok=True)  # what it says is no longer so
    points, _ = observe.read_landmarks(self._scratch("landmarks"))
    box = observe.head_crop(points, self.config.observe)
    observe.picture_pass(self.video, self.output, scratch, points, box, self.resolution, self.config.observe)
    native.write_json(scratch / "crop.json", {"box": box})

  def fit(self, scratch: Path) -> None:
    self.ran = "fit"
    points, times = observe.read_landmarks(self._scratch("landmarks"))
    box, _, splits, shots = self._observed(points, times)
    training = np.isin(np.arange(len(points)), splits["train"])
    rig, embedding, _ = open_head.load()
    model = energy.landmark_rig(rig, embedding, landmarks.weights())
    info = probe_video(self.video)
    size = (info.width, info.height)
    with Progress("fit", 100, "%") as bar:
      first = fit.fit_clip(model, points, size, times, shots, training, self.config.fit, _shares(bar, 0, 60))
      images = np.stack([read_image(self.output / "images" / f"{k:05d}.png") for k in range(len(points))])
      result = refine.refine(
        first,
        model,
        rig,
        points,
        images,
        box,
        size,
        times,
        shots,
        training,
        self.config.fit,
        self.config.photometric,
        _shares(bar, 60, 100),
      )
    native.write_json(scratch / "shared.json", {"focal": result.focal, "distance": result.distance})
    np.savez(scratch / "fit.npz", x=result.x, shape=result.shape, predicted=result.predicted, key_frames=result.key_frames)

  def _observed(self, points, times):
    box = tuple(json.loads((self._scratch("pictures") / "crop.json").read_text())["box"])
    changes = np.load(self._scratch("pictures") / "changes.npz")["changes"].astype(np.float64)
    shots = native.shots_from_times(times, changes)
    changes[~observe.found_frames(points)] = np.nan
    return box, changes, splits_lib.make_splits(changes, self.config.splits), shots

  def labels(self, scratch: Path) -> None:
    self.ran = "labels"
    rig = open_head.load()[0]
    header, arrays = self._tables(rig)
    self._write_maps(rig, arrays, np.asarray(header["splits"]["train"]))
    native.write_tables(self.output, header, arrays)

  def _tables(self, rig) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The dataset's header and arrays from the fit."""
    points, times = observe.read_landmarks(self._scratch("landmarks"))
    box, _, splits, shots = self._observed(points, times)
    fitted = np.load(self._scratch("fit") / "fit.npz")
    shared = json.loads((self._scratch("fit") / "shared.json").read_text())
    x, scale = fitted["x"], self.resolution / box[2]
    info = probe_video(self.video)
    view = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
    view[2, 3] = shared["distance"]
    focal, centre = shared["focal"] * scale, (np.array([info.width, info.height]) / 2 - box[:2]) * scale
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], np.float32)
    body = self._torso(rig, fitted["shape"], x, splits["train"], view, intrinsics)
    root, neck, moved = torso.split_neck(
      rig, fitted["shape"], x[:, energy.ROTATION], x[:, energy.TRANSLATION], body, self.config.torso_share
    )
    gaze = np.pad(x[:, energy.GAZE], ((0, 0), (0, 1)))
    images = np.stack([self._picture(k) for k in range(len(x))])
    persons = observe.read_persons(self._scratch("pictures"), len(x))
    gains, background = labels.exposure(images, persons, splits["train"])
    arrays = {
      "index": np.arange(len(x), dtype=np.int32),
      "time": times.astype(np.float32),
      "shot": shots,
      "expression": x[:, energy.EXPRESSION],
      "pose": np.stack([root, neck, x[:, energy.JAW], gaze, gaze], axis=1).astype(np.float32),
      "eyelids": x[:, energy.EYELIDS],
      "translation": moved,
      "landmarks": ((points - box[:2]) * scale).astype(np.float32),
      "valid": observe.found_frames(points),
      "exposure": gains,
      "shape": fitted["shape"],
      "offset": body.offset,
      "intrinsics": intrinsics,
      "world_to_camera": view,
    }
    header = {
      "rig": rig.name,
      "rig_hash": rig_hash(rig),
      "frames": len(x),
      "width": self.resolution,
      "height": self.resolution,
      "fps": info.fps,
      "video": {"name": self.video.name, "fingerprint": file_fingerprint(self.video), "width": info.width, "height": info.height},
      "crop": {"x": box[0], "y": box[1], "side": box[2]},
      "focal_video_px": shared["focal"],
      "exposure_from_background_share": round(background, 4),
      "splits": {name: value.tolist() for name, value in splits.items()},
      "tracked_from": "MediaPipe landmarks, then direct alignment to a texture of the training frames; "
      "held-out pictures give only their own pose, expression and exposure",
    }
    return header, arrays

  def _torso(self, rig, shape: np.ndarray, x: np.ndarray, train: np.ndarray, view: np.ndarray, intrinsics: np.ndarray) -> torso.Torso:
    """How the torso stands, seen on a few small person masks."""
    some = train[np.linspace(0, len(train) - 1, min(len(train), _TORSO_FRAMES)).astype(int)]
    side, small = self.resolution, _TORSO_SIZE
    persons = np.stack([crop_resize(self._person(int(k)), (0.0, 0.0, float(side)), small) for k in some])
    camera = rescale(Camera(jnp.asarray(view), jnp.asarray(intrinsics), width=side, height=side), width=small, height=small)
    return torso.fit_torso(rig, shape, x[train][:, energy.ROTATION].mean(axis=0), x[some], persons, camera, self.config.torso_share)

  def _write_maps(self, rig, arrays: dict[str, np.ndarray], train: np.ndarray) -> None:
    """Masks and label maps of every frame."""
    count = len(arrays["index"])
    for folder in ("masks", "parts"):
      (self.output / folder).mkdir(exist_ok=True)
    some = train[:: max(1, len(train) // _COLLAR_FRAMES)]
    with Progress("labels", count + len(some), "frames") as bar:
      collar = Collar((self._picture(k), label) for k, label, _, _ in self._maps(rig, arrays, some, bar))
      for k, label, person, cut in self._maps(rig, arrays, np.arange(count), bar):
        cloth = collar.covers(self._picture(k), label)
        name = f"{k:05d}.png"
        write_image(self.output / "parts" / name, np.where(cloth, labels.CLOTH, label).astype(np.uint8))
        write_image(self.output / "masks" / name, np.where(cloth, 0, labels.head_mask(person, cut)).astype(np.uint8))

  def _maps(
    self, rig, arrays: dict[str, np.ndarray], chosen: np.ndarray, bar: Progress
  ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Number, labels, person mask and cut of some frames."""
    face_labels, border = np.asarray(regions.face_parts(rig)), labels.neck_border(rig)
    size = self.resolution
    camera = Camera(jnp.asarray(arrays["world_to_camera"]), jnp.asarray(arrays["intrinsics"]), width=size, height=size)
    for start in range(0, len(chosen), 16):
      index = chosen[np.minimum(np.arange(start, start + 16), len(chosen) - 1)]
      vertices = labels.posed_vertices(
        rig, arrays["shape"], *(arrays[key][index] for key in ("expression", "pose", "eyelids", "translation")), arrays["offset"]
      )
      ids = np.asarray(labels.face_ids(vertices, rig.faces, camera))
      pixels = np.asarray(project(vertices, camera)[0])
      for k in range(min(16, len(chosen) - start)):
        person = self._person(int(index[k]))
        cut = labels.neck_cut(pixels[k], border, size, size / 64)
        yield int(index[k]), labels.label_map(ids[k], face_labels, person, cut), person, cut
        bar.update()

  def _picture(self, index: int) -> np.ndarray:
    return read_image(self.output / "images" / f"{index:05d}.png")

  def _person(self, index: int) -> np.ndarray:
    return read_gray(self._scratch("pictures") / "person" / f"{index:05d}.png")

  def quality(self, scratch: Path) -> None:
    self.ran = "quality"
    fitted = np.load(self._scratch("fit") / "fit.npz")
    truth = None
    if self.known is not None:
      shared = json.loads((self._scratch("fit") / "shared.json").read_text())
      found = fit.Fit(**{key: fitted[key] for key in ("x", "shape", "key_frames", "predicted")}, **shared)
      truth = quality.Truth(self.known.name, *judge.against(found, self.known))
    quality.write(self.output, fitted["predicted"], truth)


def _shares(bar: Progress, low: float, high: float) -> fit.Progress:
  """Map the steps that a fit reports onto a part of one bar."""
  parts = {"identity": (0.0, 0.5), "frames": (0.5, 0.9), "smoothing": (0.9, 1.0), "alignment": (0.0, 1.0)}

  def report(what: str, done: int, total: int) -> None:
    a, b = parts[what]
    share = a + (b - a) * done / max(total, 1)
    bar.to(max(bar.done, round(low + (high - low) * share)), what)

  return report
