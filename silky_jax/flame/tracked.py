"""`.frame` files of the metrical tracker: FLAME coefficients and a camera per frame, read without torch and without running their code."""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from silky_jax.flame.assets import unpickle

__all__ = ["KEYS", "read_frame"]

# Key -> shape of its array after the leading axis of one.
KEYS = {
  "flame.exp": (100,),
  "flame.shape": (300,),
  "flame.jaw": (6,),
  "flame.eyes": (12,),
  "flame.eyelids": (2,),
  "opencv.R": (3, 3),
  "opencv.t": (3,),
  "opencv.K": (3, 3),
}


def read_frame(path: Path | str) -> dict[str, Float[np.ndarray, "..."]]:
  """One frame of a track.

  Args:
    path: a zip that torch.save wrote; its pickle holds numpy arrays, text and numbers.

  Returns:
    float32, without the leading axis of one, by the names of `KEYS`: expression and identity coefficients; jaw and both eyes (left first)
    as the first two ROWS of their rotations; eyelids; world to camera (metres) and intrinsics (px). And `img_size`, int32: height, width.

  Raises:
    ValueError: no such zip, a pickle that names more than arrays, or a key that is missing or of another shape.
  """
  path = Path(path)
  try:
    with zipfile.ZipFile(path) as archive:
      inside = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
      if len(inside) != 1:
        raise ValueError(f"{path}: expected one data.pkl inside, found {inside}. Next: give a .frame file of the metrical tracker")
      content = unpickle(archive.read(inside[0]), path)
  except zipfile.BadZipFile as error:
    raise ValueError(f"{path}: expected a zip that torch.save wrote, found something else. Next: track the video anew") from error
  flat = _flat(content if isinstance(content, dict) else {})
  found = {}
  for key, shape in {**KEYS, "img_size": ()}.items():
    if key not in flat:
      raise ValueError(f"{path}: expected the key {key}, found {sorted(flat)}. Next: give a .frame file of the metrical tracker")
    array = np.asarray(flat[key])
    wanted = (2,) if key == "img_size" else (1, *shape)
    if array.shape != wanted or array.dtype.kind not in "fiu":
      raise ValueError(f"{path}: {key}: expected {wanted} numbers, got {array.shape} of {array.dtype}. Next: track the video anew")
    found[key] = array.astype(np.int32) if key == "img_size" else array[0].astype(np.float32)
  return found


def _flat(content: dict) -> dict:
  """Nested dictionaries as one, keys joined by dots."""
  flat = {}
  for key, value in content.items():
    if isinstance(value, dict):
      flat |= {f"{key}.{inner}": entry for inner, entry in value.items()}
    else:
      flat[str(key)] = value
  return flat
