"""Read and write Gaussians as PLY files in the full layout of 3D Gaussian splatting, as viewers and other trainers expect it.

One vertex per Gaussian, binary little endian, all properties float: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_0..44, opacity (logit),
scale_0..2 (log), rot_0..3 (wxyz). The 45 higher harmonics are channel-major: f_rest_{15 c + k} is harmonic k + 1 of channel c.
"""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.gaussians.covariance import axes_from_covariance, covariance_from_axes
from silky_jax.math.harmonics import CONSTANT
from silky_jax.types import Gaussians

__all__ = ["PlyError", "RawGaussians", "from_gaussians", "read", "to_gaussians", "write"]

_HARMONICS = 16
_PROPERTIES = (
  *("x", "y", "z", "nx", "ny", "nz"),
  *(f"f_dc_{c}" for c in range(3)),
  *(f"f_rest_{i}" for i in range(3 * (_HARMONICS - 1))),
  *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_SCALARS = {
  **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2", "uint16": "<u2"},
  **{"int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}
# Opacities are kept this far from 0 and 1, where the logit is infinite; deviations above a nanometre, where the logarithm is.
_SMALLEST_OPACITY = 1e-6
_SMALLEST_DEVIATION = 1e-9


class PlyError(ValueError):
  """A PLY file that cannot be read as Gaussians."""


class RawGaussians(NamedTuple):
  """Gaussians as the file holds them, before activation; float32 NumPy arrays."""

  means: np.ndarray  # [n, 3] metres
  harmonics: np.ndarray  # [n, 16, 3]
  opacity_logits: np.ndarray  # [n]
  log_deviations: np.ndarray  # [n, 3] log metres
  quaternions: np.ndarray  # [n, 4] wxyz, as stored (any length)


def from_gaussians(gaussians: Gaussians) -> RawGaussians:
  """Raw form of one set of Gaussians with three plain colour channels; dead slots (opacity 0) are left out.

  Args:
    gaussians: means [n, 3], covariances [n, 3, 3], opacities [n], features [n, 3] (colours, not harmonics). No batch axes.

  Returns:
    RawGaussians; the colour is the constant harmonic, as viewers show max(f_dc Y_00 + 0.5, 0).

  Raises:
    ValueError: batch axes, or another number of features.
  """
  if gaussians.features.ndim != 2 or gaussians.features.shape[-1] != 3:
    raise ValueError(f"features: expected [n, 3] colours without batch axes, got {gaussians.features.shape}")
  alive = np.asarray(gaussians.opacities) > 0
  quaternions, deviations = axes_from_covariance(jnp.asarray(np.asarray(gaussians.covariances)[alive]))
  opacities = np.clip(np.asarray(gaussians.opacities, np.float64)[alive], _SMALLEST_OPACITY, 1 - _SMALLEST_OPACITY)
  harmonics = np.zeros((int(alive.sum()), _HARMONICS, 3), np.float32)
  harmonics[:, 0] = (np.asarray(gaussians.features)[alive] - 0.5) / CONSTANT
  return RawGaussians(
    means=np.asarray(gaussians.means, np.float32)[alive],
    harmonics=harmonics,
    opacity_logits=np.log(opacities / (1 - opacities)).astype(np.float32),
    log_deviations=np.log(np.maximum(np.asarray(deviations), _SMALLEST_DEVIATION)).astype(np.float32),
    quaternions=np.asarray(quaternions, np.float32),
  )


def to_gaussians(raw: RawGaussians) -> Gaussians:
  """Activated Gaussians with the view-independent colour max(f_dc Y_00 + 0.5, 0); higher harmonics are left behind.

  Args:
    raw: as read from a file.

  Returns:
    Gaussians with n rows and 3 features.
  """
  return Gaussians(
    means=jnp.asarray(raw.means),
    covariances=covariance_from_axes(jnp.asarray(raw.quaternions), jnp.exp(jnp.asarray(raw.log_deviations))),
    opacities=jax.nn.sigmoid(jnp.asarray(raw.opacity_logits)),
    features=jnp.maximum(jnp.asarray(raw.harmonics[:, 0]) * CONSTANT + 0.5, 0),
  )


def write(path: Path | str, raw: RawGaussians) -> None:
  """Writes the full layout; the file appears whole or not at all.

  Args:
    path: replaced if it exists; its folder must exist.
    raw: harmonics [n, k, 3] may hold fewer than 16 (k = 1, 4, 9); the rest is written as zeros.

  Raises:
    ValueError: arrays that do not fit each other.
  """
  path, count = Path(path), len(raw.means)
  degrees = raw.harmonics.shape[1]
  expected = {"means": (count, 3), "harmonics": (count, degrees, 3), "opacity_logits": (count,)}
  expected |= {"log_deviations": (count, 3), "quaternions": (count, 4)}
  for name, shape in expected.items():
    if getattr(raw, name).shape != shape:
      raise ValueError(f"{name}: expected {shape}, got {getattr(raw, name).shape}")
  if degrees not in (1, 4, 9, 16):
    raise ValueError(f"harmonics: expected 1, 4, 9 or 16 per channel, got {raw.harmonics.shape}")
  table = np.zeros((count, len(_PROPERTIES)), "<f4")
  table[:, :3] = raw.means
  table[:, 6:9] = raw.harmonics[:, 0]
  rest = np.zeros((count, 3, _HARMONICS - 1), np.float32)
  rest[:, :, : degrees - 1] = raw.harmonics[:, 1:].transpose(0, 2, 1)
  table[:, 9:54] = rest.reshape(count, -1)
  table[:, 54] = raw.opacity_logits
  table[:, 55:58] = raw.log_deviations
  table[:, 58:62] = raw.quaternions
  lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
  header = "\n".join([*lines, *(f"property float {name}" for name in _PROPERTIES), "end_header", ""])
  _write_whole(path, header.encode("ascii") + table.tobytes())


def _write_whole(path: Path, content: bytes) -> None:
  """Writes beside the target and renames: a reader never sees half a file."""
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp makes private files
    os.replace(temporary, path)
  except BaseException:
    Path(temporary).unlink(missing_ok=True)
    raise


def read(path: Path | str) -> RawGaussians:
  """Reads a 3D Gaussian splatting PLY, with harmonics of degree 0 to 3; absent harmonics become zeros.

  Args:
    path: a binary little-endian file; properties in any order, others are ignored.

  Returns:
    RawGaussians.

  Raises:
    PlyError: not such a file; says what is wrong with it.
  """
  path = Path(path)
  content = path.read_bytes()
  count, fields, start = _header(path, content)
  layout, names = np.dtype(fields), [name for name, _ in fields]
  if len(content) - start < count * layout.itemsize:
    raise PlyError(f"{path}: cut short: {count} vertices need {count * layout.itemsize} bytes, {len(content) - start} follow the header")
  table = np.frombuffer(content, layout, count, start)
  rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: int(name.removeprefix("f_rest_")))
  if len(rest) not in (0, 9, 24, 45):
    raise PlyError(f"{path}: expected 0, 9, 24 or 45 properties f_rest_*, got {len(rest)}")
  missing = [name for name in _PROPERTIES if name not in names and not name.startswith(("n", "f_rest_"))]
  if missing:
    raise PlyError(f"{path}: not a Gaussian splatting file: it lacks {', '.join(missing)}")

  def columns(*names: str) -> np.ndarray:
    return np.stack([table[name].astype(np.float32) for name in names], axis=-1)

  harmonics = np.zeros((count, _HARMONICS, 3), np.float32)
  harmonics[:, 0] = columns("f_dc_0", "f_dc_1", "f_dc_2")
  if rest:
    per_channel = len(rest) // 3
    harmonics[:, 1 : 1 + per_channel] = columns(*rest).reshape(count, 3, per_channel).transpose(0, 2, 1)
  return RawGaussians(
    means=columns("x", "y", "z"),
    harmonics=harmonics,
    opacity_logits=columns("opacity")[:, 0],
    log_deviations=columns("scale_0", "scale_1", "scale_2"),
    quaternions=columns("rot_0", "rot_1", "rot_2", "rot_3"),
  )


def _header(path: Path, content: bytes) -> tuple[int, list[tuple[str, str]], int]:
  """Vertex count, (name, type) of its properties, and where the data begins."""
  mark = content.find(b"end_header\n")
  if not content.startswith(b"ply") or mark < 0:
    raise PlyError(f"{path}: not a PLY file: no header from 'ply' to 'end_header'")
  lines = [line.split() for line in content[:mark].decode("ascii", "replace").splitlines()]
  lines = [line for line in lines if line and line[0] not in ("comment", "obj_info", "ply")]
  if ["format", "binary_little_endian", "1.0"] not in lines:
    raise PlyError(f"{path}: expected 'format binary_little_endian 1.0', got {' '.join(lines[0]) if lines else 'nothing'}")
  elements = [line for line in lines if line[0] == "element"]
  if not elements or elements[0][1] != "vertex" or not elements[0][2].isdigit():
    raise PlyError(f"{path}: expected 'element vertex COUNT' as the first element")
  fields, inside = [], False
  for line in lines:
    if line[0] == "element":
      inside = line is elements[0]
    elif line[0] == "property" and inside:
      if len(line) != 3 or line[1] not in _SCALARS:
        raise PlyError(f"{path}: cannot read vertex property '{' '.join(line[1:])}'")
      fields.append((line[2], _SCALARS[line[1]]))
  return int(elements[0][2]), fields, mark + len(b"end_header\n")
