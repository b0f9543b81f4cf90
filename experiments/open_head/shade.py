"""Shaded pictures of a coloured mesh, for the landmark model and for people."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.open_head.label import brow_height
from silky_jax.geometry import camera as cameras
from silky_jax.geometry.mesh import vertex_normals
from silky_jax.render.mesh import interpolate, rasterize_mesh
from silky_jax.types import Camera

__all__ = ["IRIS_RADIUS", "Paint", "orbit", "palette", "shade"]

_SUPERSAMPLE = 2
# Directions to the lights (camera axes: x right, y down, z forward) with their strengths: key, fill, from below.
_LIGHTS = (((-0.5, -0.6, -0.8), 0.65), ((0.7, -0.2, -0.6), 0.35), ((0.0, 0.8, -0.4), 0.12))
_AMBIENT = 0.25
IRIS_RADIUS = 0.0059  # metres; the visible iris of adults is 11.7 mm across
_PUPIL_RADIUS = 0.0019
_COLOURS = {
  "skin": (0.60, 0.36, 0.26),
  "left_eyeball": (0.78, 0.76, 0.74),
  "right_eyeball": (0.78, 0.76, 0.74),
  "upper_lip": (0.45, 0.17, 0.15),
  "lower_lip": (0.48, 0.19, 0.16),
  "mouth_interior": (0.25, 0.07, 0.06),
  "upper_teeth": (0.80, 0.76, 0.66),
  "lower_teeth": (0.80, 0.76, 0.66),
  "tongue": (0.50, 0.18, 0.17),
  "eye_socket": (0.45, 0.22, 0.18),
}
_BROW_COLOUR, _IRIS_COLOUR, _PUPIL_COLOUR = (0.06, 0.04, 0.03), (0.14, 0.08, 0.04), (0.01, 0.01, 0.01)


class Paint(NamedTuple):
  """What paints brows and irises by place on the resting head."""

  rest: np.ndarray  # [v, 3] metres
  ball: np.ndarray  # [v] 1 on the eyeballs
  eyes: np.ndarray  # [2, 3] eyeball centres


def palette(regions: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
  """[v, 3] linear albedo of skin, lips, teeth, tongue and eyes."""
  return np.array([_COLOURS.get(name, _COLOURS["skin"]) for name in names])[regions]


def _painted(rest, colour, ball, eyes):
  """Colour per pixel with brows on the skin and irises on the balls."""
  nearest = jnp.where(rest[..., :1] > 0, eyes[0], eyes[1])
  local = rest - nearest
  across = jnp.sign(rest[..., 0]) * local[..., 0]
  grid = np.linspace(-0.03, 0.04, 141)
  heights, widths = brow_height(grid)
  height, width = jnp.interp(across, grid, heights), jnp.interp(across, grid, widths)
  hair = jnp.clip(1.5 * (1 - jnp.abs(local[..., 1] - height) / jnp.maximum(width, 1e-6)), 0, 0.85)
  hair = hair * (width > 0) * (local[..., 2] > -0.03) * (1 - ball)
  colour = colour * (1 - hair[..., None]) + hair[..., None] * jnp.asarray(_BROW_COLOUR)
  radius = jnp.linalg.norm(local[..., :2], axis=-1)
  front = (ball > 0.5) & (local[..., 2] > 0)
  colour = jnp.where((front & (radius < IRIS_RADIUS))[..., None], jnp.asarray(_IRIS_COLOUR), colour)
  return jnp.where((front & (radius < _PUPIL_RADIUS))[..., None], jnp.asarray(_PUPIL_COLOUR), colour)


def orbit(
  yaw: float, pitch: float = 0.0, *, size: int = 512, distance: float = 1.2, span: float = 0.34, centre=(0.0, -0.02, 0.0)
) -> Camera:
  """Camera on a sphere about the head.

  Args:
    yaw: degrees; positive looks at the subject's left side.
    pitch: degrees; positive looks from above.
    size: px.
    distance: metres.
    span: metres of the target plane that the picture shows.
    centre: target, metres.

  Returns:
    A square camera.
  """
  a, b = np.radians(yaw), np.radians(pitch)
  direction = np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])
  centre = np.asarray(centre, np.float32)
  eye = jnp.asarray(centre + distance * direction, jnp.float32)
  return cameras.from_focal(cameras.look_at(eye, jnp.asarray(centre)), size * distance / span, width=size, height=size)


@jax.jit
def _shade(vertices, faces, colours, camera, background, paint):
  big = cameras.rescale(camera, width=camera.width * _SUPERSAMPLE, height=camera.height * _SUPERSAMPLE)
  ids, barycentric, _ = rasterize_mesh(vertices, faces, big)
  normals = vertex_normals(vertices, faces) @ camera.world_to_camera[:3, :3].T
  columns = [normals, colours] if paint is None else [normals, colours, paint.rest, paint.ball[:, None]]
  attributes = interpolate(jnp.concatenate(columns, axis=-1), faces, ids, barycentric)
  normal = attributes[..., :3] / jnp.maximum(jnp.linalg.norm(attributes[..., :3], axis=-1, keepdims=True), 1e-6)
  light = jnp.full(ids.shape, _AMBIENT)
  for direction, strength in _LIGHTS:
    unit = jnp.asarray(direction) / np.linalg.norm(direction)
    light = light + strength * jnp.maximum(normal @ unit, 0)
  colour = attributes[..., 3:6]
  if paint is not None:
    colour = _painted(attributes[..., 6:9], colour, attributes[..., 9], paint.eyes)
  image = jnp.where((ids >= 0)[..., None], colour * light[..., None], background)
  image = image.reshape(camera.height, _SUPERSAMPLE, camera.width, _SUPERSAMPLE, 3).mean((1, 3))
  return jnp.clip(image, 0, 1) ** (1 / 2.2)


def shade(vertices, faces, colours, camera: Camera, *, background: float = 0.8, paint: Paint | None = None) -> np.ndarray:
  """Picture of a mesh under three fixed lights.

  Args:
    vertices: [v, 3] metres.
    faces: [f, 3].
    colours: [v, 3] linear albedo.
    camera: one camera.
    background: linear grey.
    paint: adds brows and irises.

  Returns:
    [h, w, 3] uint8 RGB.
  """
  arrays = (jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32), jnp.asarray(colours, jnp.float32))
  paint = None if paint is None else Paint(*(jnp.asarray(part, jnp.float32) for part in paint))
  return np.asarray(jnp.round(_shade(*arrays, camera, jnp.float32(background), paint) * 255)).astype(np.uint8)
