"""Pictures of the open head for docs/open_head.md.

python -m experiments.open_head.pictures --output docs/images
"""

import colorsys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.open_head.landmarks import IBUG_FROM_MEDIAPIPE
from experiments.open_head.shade import Paint, orbit, palette, shade
from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices, joints, landmarks
from silky_jax.flame.regions import face_regions
from silky_jax.geometry.camera import project
from silky_jax.geometry.uv import rasterize_uv
from silky_jax.render.mesh import vertex_visibility
from silky_jax.types import FlameRig

_OUTPUT = flags.DEFINE_string("output", "docs/images", "Folder to write the pictures to.")
_SIZE = flags.DEFINE_integer("size", 360, "Side of one view in px.", lower_bound=64)

_SIDES = ((0, 0), (40, 5), (90, 0))
_SMILE = {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5, "cheekSquintLeft": 0.5}
_SMILE |= {"cheekSquintRight": 0.5, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3, "jawOpen": 0.12}


class _Studio:
  """The rig with its paint and compiled functions."""

  def __init__(self, rig: FlameRig):
    self.rig = rig
    self.faces = np.asarray(rig.faces)
    self.colours = palette(np.asarray(rig.regions), rig.region_names)
    self._run = jax.jit(
      lambda shape, controls: flame_vertices(rig, shape, controls.expression, controls.pose(), eyelids=controls.eyelids)[0]
    )
    self._joints = jax.jit(lambda shape: joints(rig, shape))
    balls = np.isin(np.array(rig.region_names)[np.asarray(rig.regions)], ["left_eyeball", "right_eyeball"])
    self._balls = balls.astype(np.float32)

  def vertices(self, shape=None, **weights) -> jax.Array:
    """Posed head for an identity and ARKit weights."""
    shape = jnp.zeros(self.rig.shape_basis.shape[-1]) if shape is None else jnp.asarray(shape, jnp.float32)
    return self._run(shape, open_head.arkit_to_rig(weights))

  def paint(self, shape=None) -> Paint:
    """Brows and irises for an identity at rest."""
    shape = jnp.zeros(self.rig.shape_basis.shape[-1]) if shape is None else jnp.asarray(shape, jnp.float32)
    return Paint(np.asarray(self.vertices(shape)), self._balls, np.asarray(self._joints(shape))[3:])

  def view(self, vertices, camera, shape=None, colours=None, painted=True) -> np.ndarray:
    """One shaded picture."""
    colours = self.colours if colours is None else colours
    return shade(vertices, self.faces, colours, camera, paint=self.paint(shape) if painted else None)


def _sides(studio: _Studio, size: int, shape=None, **weights) -> np.ndarray:
  vertices = studio.vertices(shape, **weights)
  return np.hstack([studio.view(vertices, orbit(yaw, pitch, size=size, span=0.32), shape) for yaw, pitch in _SIDES])


def _identities(studio: _Studio, size: int) -> np.ndarray:
  generator = np.random.default_rng(5)
  shapes = generator.normal(size=(5, studio.rig.shape_basis.shape[-1]))
  rows = [[studio.view(studio.vertices(s), orbit(*side, size=size, span=0.32), s) for s in shapes] for side in _SIDES]
  return np.vstack([np.hstack(row) for row in rows])


def _region_colours(count: int) -> np.ndarray:
  return np.array([colorsys.hsv_to_rgb((0.381 * i) % 1, 0.55, 0.55 + 0.4 * ((7 * i) % 3) / 2) for i in range(count)])


def _regions(studio: _Studio, size: int) -> np.ndarray:
  """Every face in the colour of its region, and a legend."""
  names = studio.rig.region_names
  colours = _region_colours(len(names))
  of_face = np.asarray(face_regions(studio.rig))
  separate = np.arange(3 * len(studio.faces)).reshape(-1, 3)
  corners = np.repeat(colours[of_face], 3, axis=0)
  views = []
  for weights, camera in (
    ({}, orbit(0, 0, size=size, span=0.30)),
    ({}, orbit(55, 5, size=size, span=0.30)),
    ({"jawOpen": 0.8}, orbit(0, 0, size=size, span=0.14, centre=(0, -0.045, 0))),
  ):
    vertices = np.asarray(studio.vertices(**weights))[studio.faces].reshape(-1, 3)
    views.append(shade(vertices, separate, corners, camera))
  legend = np.full((size, size // 2, 3), 255, np.uint8)
  for number, name in enumerate(names):
    row = int((number + 0.7) * size / (len(names) + 0.4))
    swatch = (colours[number] ** (1 / 2.2) * 255).tolist()
    cv2.rectangle(legend, (6, row - 6), (18, row + 4), swatch, -1)
    cv2.putText(legend, name, (24, row + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
  return np.hstack([*views, legend])


def _layout(studio: _Studio, size: int) -> np.ndarray:
  """The texture layout: regions with triangle edges, and the covered texels at 128."""
  uv, uv_faces = np.asarray(studio.rig.uv), np.asarray(studio.rig.uv_faces)
  colours = np.round(_region_colours(len(studio.rig.region_names)) ** (1 / 2.2) * 255).astype(np.uint8)
  of_face = np.asarray(face_regions(studio.rig))
  panels = []
  for texels in (size, 128):
    atlas = rasterize_uv(uv, uv_faces, texels)
    panel = np.where(atlas.covered[..., None], colours[of_face[np.maximum(atlas.face_ids, 0)]], 255).astype(np.uint8)
    panels.append(cv2.resize(panel, (size, size), interpolation=cv2.INTER_NEAREST))
  points = np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size], axis=1)
  lines = [np.round(points[face] * 16).astype(np.int32) for face in uv_faces]
  panels[0] = cv2.polylines(np.ascontiguousarray(panels[0]), lines, True, (70, 70, 70), 1, cv2.LINE_8, 4)
  return np.hstack(panels)


def _landmarks(studio: _Studio, dense, size: int) -> np.ndarray:
  """The 478 points in green, those of the 68 in red, where the camera sees them."""
  views = []
  for weights, camera in (
    ({}, orbit(0, 0, size=size, span=0.22)),
    ({}, orbit(40, 0, size=size, span=0.22)),
    ({"jawOpen": 0.6}, orbit(0, 0, size=size, span=0.10, centre=(0, -0.05, 0))),
    ({"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}, orbit(0, 0, size=size, span=0.11, centre=(0, 0.025, 0))),
  ):
    vertices = studio.vertices(**weights)
    image = studio.view(vertices, camera).copy()
    points = landmarks(vertices, studio.rig.faces, dense)
    pixels = np.asarray(project(points, camera)[0])
    # Points are tested as extra vertices of the mesh.
    seen = np.asarray(vertex_visibility(jnp.concatenate([vertices, points]), studio.rig.faces, camera))[len(vertices) :]
    for number in np.flatnonzero(seen):
      colour = (255, 30, 30) if number in IBUG_FROM_MEDIAPIPE else (0, 230, 0)
      centre = tuple(int(x * 16) for x in pixels[number])
      cv2.circle(image, centre, 26, colour, -1, cv2.LINE_AA, 4)
    views.append(image)
  return np.vstack([np.hstack(views[:2]), np.hstack(views[2:])])


def main(argv):
  del argv
  rig, dense, _ = open_head.load()
  studio, size = _Studio(rig), _SIZE.value
  blink = {"eyeBlinkLeft": 1, "eyeBlinkRight": 1}
  half = {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}
  pictures = {
    "neutral": _sides(studio, size),
    "jaw_open": _sides(studio, size, jawOpen=1),
    "smile": _sides(studio, size, **_SMILE),
    "blink": np.hstack([_sides(studio, size, **blink)[:, : 2 * size], _sides(studio, size, **half)[:, :size]]),
    "identities": _identities(studio, size * 3 // 5),
    "uv": _layout(studio, size * 4 // 3),
    "landmarks": _landmarks(studio, dense, size * 9 // 10),
    "regions": _regions(studio, size),
  }
  folder = Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  for name, picture in pictures.items():
    path = folder / f"open_head_{name}.png"
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  app.run(main)
