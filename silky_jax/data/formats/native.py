"""The project's own dataset on disk, written by `preprocess`, read by everything else.

    D/dataset.json     format, rig name and hash, frames, size, fps, source clip, crop, splits
    D/frames.npz       per-frame arrays of `FRAME_KEYS`, and once: shape, offset, intrinsics, world_to_camera
    D/images/%05d.png  RGB, the static head crop
    D/masks/%05d.png   8 bit, soft: head and neck
    D/parts/%05d.png   8 bit: the 19 labels of `silky_jax.flame.regions.PARTS`

Frames are numbered as in the source video. Frames without a face are in the list, with `valid` false.
Several cameras: one row per picture, camera after camera; then `intrinsics` and `world_to_camera` have a row per picture too, and the
optional arrays `timestep` and `view` say when and by which camera it was taken.
"""

import dataclasses
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from silky_jax.config import UserError
from silky_jax.data import splits as splits_lib
from silky_jax.data.images import read_gray, read_image
from silky_jax.types import Camera, Frame, Subject

FORMAT = "silky-native"
VERSION = 1
FRAME_KEYS = ("index", "time", "shot", "expression", "pose", "eyelids", "translation", "landmarks", "valid", "exposure")
OPTIONAL_KEYS = ("timestep", "view")
FIXED_KEYS = ("shape", "offset", "intrinsics", "world_to_camera")
NEXT = "Run `python run.py preprocess --video_path VIDEO --output_dir DIR` to make it."


@dataclasses.dataclass(frozen=True)
class NativeSequence:
  """One subject's clip, in memory as 8-bit pictures. Random access; nothing is lazy."""

  path: Path
  header: dict[str, Any]
  arrays: dict[str, np.ndarray]
  images: UInt8[np.ndarray, "t h w 3"]
  masks: UInt8[np.ndarray, "t h w"]
  parts: UInt8[np.ndarray, "t h w"]
  splits: dict[str, Int[np.ndarray, "_"]]

  def __len__(self) -> int:
    return len(self.images)

  @property
  def size(self) -> tuple[int, int]:
    """Height and width in px."""
    return self.images.shape[1], self.images.shape[2]

  @property
  def fps(self) -> float:
    return float(self.header["fps"])

  @property
  def rig_name(self) -> str:
    return self.header["rig"]

  @property
  def rig_hash(self) -> str:
    return self.header["rig_hash"]

  @property
  def subject(self) -> Subject:
    """Identity, and the statistics of the training frames alone."""
    expression = self.arrays["expression"][self.splits["train"]]
    return Subject(
      shape=self.arrays["shape"],
      offset=self.arrays["offset"],
      mean_expression=expression.mean(axis=0).astype(np.float32),
      expression_variance=expression.var(axis=0).astype(np.float32),
    )

  def camera(self, indices: Shaped[np.ndarray, "t"]) -> Camera:
    """The cameras of some pictures: the clip's one, repeated, or each its own."""
    per_row = {"world_to_camera": 2, "intrinsics": 2}
    pick = lambda a, dims: a[indices] if a.ndim > dims else np.broadcast_to(a, (len(indices), *a.shape)).copy()
    h, w = self.size
    return Camera(*(pick(self.arrays[key], dims) for key, dims in per_row.items()), width=w, height=h)

  def frames(self, indices: Shaped[np.ndarray, "t"]) -> Frame:
    """A batch of frames as numpy arrays; pictures as stored (not composited), scaled to [0, 1]."""
    i = np.asarray(indices)
    a = self.arrays
    return Frame(
      index=a["index"][i],
      time=a["time"][i],
      shot=a["shot"][i],
      timestep=a.get("timestep", a["index"])[i],
      view=a["view"][i] if "view" in a else np.zeros(len(i), np.int32),
      camera=self.camera(i),
      expression=a["expression"][i],
      pose=a["pose"][i],
      eyelids=a["eyelids"][i],
      translation=a["translation"][i],
      image=self.images[i].astype(np.float32) / 255.0,
      mask=self.masks[i].astype(np.float32) / 255.0,
      parts=self.parts[i],
      landmarks=a["landmarks"][i],
      valid=a["valid"][i],
      exposure=a["exposure"][i],
    )


def read(path: Path | str) -> NativeSequence:
  """Read a dataset folder, checking that every file it names is there and fits.

  Raises:
    UserError: the folder, a file or an array is missing, foreign or mismatched; the message names it.
  """
  path = Path(path)
  header = read_header(path)
  arrays = _read_arrays(path / "frames.npz", header)
  numbers = arrays["index"]
  pictures = {}
  with ThreadPoolExecutor(max_workers=8) as pool:
    for folder, reader in (("images", read_image), ("masks", read_gray), ("parts", read_gray)):
      files = [path / folder / f"{k:05d}.png" for k in numbers]
      missing = [f for f in files if not f.is_file()]
      if missing:
        raise UserError(f"{missing[0]}: wanted {len(files)} pictures in {folder}/, {len(missing)} are missing. {NEXT}")
      pictures[folder] = np.stack(list(pool.map(reader, files)))
      want = (header["height"], header["width"])
      if pictures[folder].shape[1:3] != want:
        raise UserError(f"{path / folder}: wanted pictures of {want} (height, width) px, found {pictures[folder].shape[1:3]}")
  splits = {name: np.asarray(header["splits"][name], np.int32) for name in splits_lib.NAMES}
  return NativeSequence(path, header, arrays, pictures["images"], pictures["masks"], pictures["parts"], splits)


def read_header(path: Path) -> dict[str, Any]:
  """Read and check `dataset.json`."""
  file = Path(path) / "dataset.json"
  if not file.is_file():
    raise UserError(f"{file}: wanted a dataset folder, found no dataset.json there. {NEXT}")
  try:
    header = json.loads(file.read_text())
  except json.JSONDecodeError as error:
    raise UserError(f"{file}: wanted JSON, found something else ({error}). {NEXT}") from error
  if header.get("format") != FORMAT or header.get("version") != VERSION:
    found = f"{header.get('format')!r} version {header.get('version')!r}"
    raise UserError(f"{file}: wanted format {FORMAT!r} version {VERSION}, found {found}. {NEXT}")
  missing = sorted({"rig", "rig_hash", "frames", "width", "height", "fps", "splits"} - header.keys())
  if missing or set(header["splits"]) != set(splits_lib.NAMES):
    raise UserError(f"{file}: wanted the keys of format version {VERSION}, missing {missing or 'names in splits'}. {NEXT}")
  return header


def _read_arrays(file: Path, header: dict[str, Any]) -> dict[str, np.ndarray]:
  if not file.is_file():
    raise UserError(f"{file}: wanted the tracked parameters, found no such file. {NEXT}")
  try:
    with np.load(file, allow_pickle=False) as data:
      arrays = {key: data[key] for key in data.files}
  except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
    raise UserError(f"{file}: wanted an .npz of plain arrays, found {error}. {NEXT}") from error
  missing = sorted(set(FRAME_KEYS + FIXED_KEYS) - arrays.keys())
  if missing:
    raise UserError(f"{file}: wanted arrays {missing}, found only {sorted(arrays)}. {NEXT}")
  rows = [*FRAME_KEYS, *(key for key in OPTIONAL_KEYS if key in arrays)]
  rows += [key for key, dims in (("intrinsics", 2), ("world_to_camera", 2)) if arrays[key].ndim > dims]
  for key in rows:
    if len(arrays[key]) != header["frames"]:
      raise UserError(f"{file}: {key}: wanted {header['frames']} frames as dataset.json says, found {len(arrays[key])}. {NEXT}")
    if key != "landmarks" and not np.isfinite(arrays[key]).all():
      raise UserError(f"{file}: {key}: wanted finite numbers, found NaN or infinity. {NEXT}")
  return arrays


def write_tables(path: Path, header: dict[str, Any], arrays: dict[str, Shaped[np.ndarray, "..."]]) -> None:
  """Write `frames.npz`, then `dataset.json` (last: a folder without it is not a dataset), each atomically."""
  missing = sorted(set(FRAME_KEYS + FIXED_KEYS) - arrays.keys())
  if missing:
    raise ValueError(f"arrays: missing {missing}")
  part = path / ".frames.npz.part"
  with part.open("wb") as file:
    np.savez(file, **arrays)
  os.replace(part, path / "frames.npz")
  write_json(path / "dataset.json", {"format": FORMAT, "version": VERSION, **header})


def write_json(path: Path, content: dict[str, Any]) -> None:
  """Write JSON atomically; NaN is refused."""
  part = path.with_name(f".{path.name}.part")
  part.write_text(json.dumps(content, indent=1, allow_nan=False))
  os.replace(part, path)


def shots_from_times(times: Float[np.ndarray, "t"], changes: Float[np.ndarray, "t"], threshold: float = 30.0) -> Int[np.ndarray, "t"]:
  """Count cuts: a new shot begins where the picture changes by more than `threshold` of 255, or the clock runs backwards."""
  cut = (np.nan_to_num(changes, nan=np.inf) > threshold) | (np.diff(times, prepend=times[0]) < 0)
  cut[0] = False
  return np.cumsum(cut).astype(np.int32)
