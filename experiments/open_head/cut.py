"""Cut head, eyes, teeth and tongue out of the MakeHuman person and triangulate them."""

from dataclasses import dataclass

import numpy as np

from experiments.open_head.makehuman import BaseMesh, MakeHuman

__all__ = ["PARTS", "Cut", "cut_head"]

# Order of the parts in the rig: skin first.
PARTS = ("body", "helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
BELOW_EYES = 0.26  # metres of body kept under the eyes of the raw base mesh


@dataclass(frozen=True)
class Cut:
  """Kept vertices and triangles. Vertex ids of the base mesh are `ids`; everything else counts from 0."""

  ids: np.ndarray  # [v] base mesh ids
  parts: np.ndarray  # [v] index into PARTS
  faces: np.ndarray  # [f, 3]
  face_parts: np.ndarray  # [f]
  texture: np.ndarray  # [t, 2] MakeHuman's own layout
  texture_faces: np.ndarray  # [f, 3]
  mirror: np.ndarray  # [v] the vertex at (-x, y, z)


def _triangles(quads: np.ndarray, mirror: np.ndarray) -> np.ndarray:
  """[f, 3] corner positions per triangle as (quad, corner) codes, cut so that the left half mirrors the right half."""
  corners = []
  sharers = np.bincount(quads.ravel())  # a corner of one quad only is a tip of the cut edge: the diagonal starts there
  for number, quad in enumerate(quads):
    if quad[3] == quad[2]:
      corners.append([4 * number + c for c in (0, 1, 2)])
      continue
    # The diagonal starts at the corner with the smallest id of {vertex, mirror}: the same choice on both sides.
    names = [min(v, mirror[v]) for v in quad]
    tips = [c for c in range(4) if sharers[quad[c]] == 1]
    start = tips[0] if tips else int(np.argmin(names))
    order = [(start + c) % 4 for c in range(4)]
    corners.append([4 * number + order[c] for c in (0, 1, 2)])
    corners.append([4 * number + order[c] for c in (0, 2, 3)])
  return np.array(corners)


def cut_head(source: MakeHuman) -> Cut:
  """Keep faces with every corner above the cut. Raises ValueError if the mesh is not symmetric."""
  base: BaseMesh = source.base
  eyes = np.concatenate([source.joint("l-eye"), source.joint("r-eye")])
  height = base.vertices[eyes, 1].mean() / 10 - BELOW_EYES
  mirror = source.mirror()
  above = base.vertices[:, 1] / 10 > height
  quads, textures, part_of = [], [], []
  for number, name in enumerate(PARTS):
    chosen = (base.face_groups == base.groups.index(name)) & above[base.faces].all(1)
    quads.append(base.faces[chosen])
    textures.append(base.texture_faces[chosen])
    part_of.append(np.full(chosen.sum(), number))
  quads, textures, part_of = np.concatenate(quads), np.concatenate(textures), np.concatenate(part_of)
  codes = _triangles(quads, mirror)
  faces, texture_faces = quads.ravel()[codes], textures.ravel()[codes]
  face_parts = part_of[codes[:, 0] // 4]
  parts_of_vertex = np.full(len(base.vertices), len(PARTS))
  np.minimum.at(parts_of_vertex, faces.ravel(), np.repeat(face_parts, 3))
  used = np.unique(faces)
  ids = used[np.lexsort((used, parts_of_vertex[used]))]
  position = np.full(len(base.vertices), -1)
  position[ids] = np.arange(len(ids))
  texture_ids, texture_inverse = np.unique(texture_faces, return_inverse=True)
  if (position[mirror[ids]] < 0).any():
    raise ValueError("base mesh: the cut is not symmetric in x")
  return Cut(
    ids=ids,
    parts=parts_of_vertex[ids],
    faces=position[faces],
    face_parts=face_parts,
    texture=base.texture[texture_ids],
    texture_faces=texture_inverse.reshape(-1, 3),
    mirror=position[mirror[ids]],
  )
