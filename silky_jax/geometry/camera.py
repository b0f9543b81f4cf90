"""Pinhole cameras: build, project, unproject, convert, crop, rescale.

All functions accept leading batch axes on the camera and on the points, broadcast against each other as NumPy would.
Conventions are those of `silky_jax.types`: OpenCV axes, pixel centres at half integers, metres.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from silky_jax.types import Camera

__all__ = ["centre", "crop", "flip_axes", "from_focal", "look_at", "project", "rescale", "unproject"]

# Below this distance from the camera plane a point has no usable pixel; the division is held here so that no gradient is infinite.
_SMALLEST_DEPTH = 1e-6  # metres


def look_at(eye: Float[Array, "*b 3"], target: Float[Array, "*b 3"], up: Float[Array, "3"] | None = None) -> Float[Array, "*b 4 4"]:
  """World-to-camera matrix of a camera at `eye` that looks at `target`.

  Rows of the rotation are right = forward x up, down = forward x right, forward.

  Args:
    eye: camera centre, metres.
    target: point on the optical axis, metres; must differ from `eye`.
    up: world direction that points up in the picture; +y when None. Where it is parallel to the axis, +z takes its place.

  Returns:
    `world_to_camera` with OpenCV axes.
  """
  up = jnp.asarray([0.0, 1.0, 0.0], eye.dtype) if up is None else up / jnp.linalg.norm(up)
  forward = target - eye
  forward = forward / jnp.linalg.norm(forward, axis=-1, keepdims=True)
  parallel = jnp.abs(jnp.sum(forward * up, axis=-1, keepdims=True)) > 1.0 - 1e-6
  up = jnp.where(parallel, jnp.asarray([0.0, 0.0, 1.0], eye.dtype), up)
  right = jnp.cross(forward, up)
  right = right / jnp.linalg.norm(right, axis=-1, keepdims=True)
  rotation = jnp.stack([right, jnp.cross(forward, right), forward], axis=-2)
  translation = -jnp.einsum("...ij,...j->...i", rotation, eye, precision=lax.Precision.HIGHEST)
  top = jnp.concatenate([rotation, translation[..., None]], axis=-1)
  bottom = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 0.0, 1.0], eye.dtype), (*top.shape[:-2], 1, 4))
  return jnp.concatenate([top, bottom], axis=-2)


def from_focal(
  world_to_camera: Float[Array, "*b 4 4"],
  focal: Float[Array, "*b 2"] | float | int,
  principal_point: Float[Array, "*b 2"] | None = None,
  *,
  width: int,
  height: int,
) -> Camera:
  """Camera from a pose, focal lengths and a principal point.

  Args:
    world_to_camera: pose, OpenCV axes.
    focal: (fx, fy) px, or one number for both.
    principal_point: (cx, cy) px from the outer corner of the top left pixel; the middle of the picture when None.
    width: px.
    height: px.

  Returns:
    A camera with the batch shape of `world_to_camera`.
  """
  batch, dtype = world_to_camera.shape[:-2], world_to_camera.dtype
  middle = jnp.asarray([0.5 * width, 0.5 * height], dtype)
  focal = jnp.broadcast_to(jnp.asarray(focal, dtype), (*batch, 2))
  principal_point = jnp.broadcast_to(middle if principal_point is None else principal_point, (*batch, 2))
  zero, one = jnp.zeros(batch, dtype), jnp.ones(batch, dtype)
  rows = [
    [focal[..., 0], zero, principal_point[..., 0]],
    [zero, focal[..., 1], principal_point[..., 1]],
    [zero, zero, one],
  ]
  intrinsics = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
  return Camera(world_to_camera=world_to_camera, intrinsics=intrinsics, width=width, height=height)


def centre(camera: Camera) -> Float[Array, "*b 3"]:
  """The camera's position in the world, metres: -R^T t."""
  rotation, translation = camera.world_to_camera[..., :3, :3], camera.world_to_camera[..., :3, 3]
  return -jnp.einsum("...ji,...j->...i", rotation, translation, precision=lax.Precision.HIGHEST)


def project(points: Float[Array, "*#b n 3"], camera: Camera) -> tuple[Float[Array, "*#b n 2"], Float[Array, "*#b n"]]:
  """Pixels and depths of world points.

  Equation: p = R x + t; pixel = (fx p_x / p_z + cx, fy p_y / p_z + cy).

  Args:
    points: world space, metres.
    camera: batch axes broadcast against those of `points`.

  Returns:
    pixels: px, (column, row). Meaningless (but finite) where the depth is not positive: the caller tests the depth.
    depths: metres along the optical axis, negative behind the camera.
  """
  local = jnp.einsum("...ij,...nj->...ni", camera.world_to_camera[..., :3, :3], points, precision=lax.Precision.HIGHEST)
  local = local + camera.world_to_camera[..., None, :3, 3]
  depths = local[..., 2]
  divisor = jnp.where(jnp.abs(depths) < _SMALLEST_DEPTH, _SMALLEST_DEPTH, depths)
  focal = _focal(camera)
  pixels = local[..., :2] / divisor[..., None] * focal + camera.intrinsics[..., None, :2, 2]
  return pixels, depths


def unproject(pixels: Float[Array, "*#b n 2"], depths: Float[Array, "*#b n"], camera: Camera) -> Float[Array, "*#b n 3"]:
  """World points of pixels at given depths: the inverse of `project`.

  Args:
    pixels: px, (column, row); the centre of pixel (row i, column j) is (j + 0.5, i + 0.5).
    depths: metres along the optical axis (not along the ray).
    camera: batch axes broadcast against those of `pixels`.

  Returns:
    World points, metres.
  """
  plane = (pixels - camera.intrinsics[..., None, :2, 2]) / _focal(camera) * depths[..., None]
  local = jnp.concatenate([plane, jnp.broadcast_to(depths[..., None], (*plane.shape[:-1], 1))], axis=-1)
  local = local - camera.world_to_camera[..., None, :3, 3]
  return jnp.einsum("...ji,...nj->...ni", camera.world_to_camera[..., :3, :3], local, precision=lax.Precision.HIGHEST)


def flip_axes(world_to_camera: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
  """OpenGL pose to OpenCV pose, or back: the map is its own inverse.

  OpenGL cameras have +y up and look along -z; the second and third rows change sign.

  Args:
    world_to_camera: in one of the two conventions (a world-to-camera matrix, not its inverse).

  Returns:
    The same pose in the other convention.
  """
  return world_to_camera * jnp.asarray([1.0, -1.0, -1.0, 1.0], world_to_camera.dtype)[:, None]


def crop(camera: Camera, left: float | int, top: float | int, *, width: int, height: int) -> Camera:
  """The camera of a window of the picture.

  Args:
    camera: the whole picture.
    left: px, column of the window's outer left edge; may be negative (padding) or a fraction.
    top: px, row of the window's outer top edge.
    width: px of the window.
    height: px of the window.

  Returns:
    A camera whose picture equals rows `top:top + height` and columns `left:left + width` of the whole one.
  """
  offset = jnp.zeros((3, 3), camera.intrinsics.dtype).at[:2, 2].set(jnp.asarray([left, top], camera.intrinsics.dtype))
  return dataclasses.replace(camera, intrinsics=camera.intrinsics - offset, width=width, height=height)


def rescale(camera: Camera, *, width: int, height: int) -> Camera:
  """The camera of the same field of view at another size.

  Focal lengths and principal point scale by the ratio of sizes per axis: exact because pixel centres lie at half integers.

  Args:
    camera: any size.
    width: px, new.
    height: px, new.

  Returns:
    The camera at the new size.
  """
  scale = jnp.asarray([width / camera.width, height / camera.height, 1.0], camera.intrinsics.dtype)
  return dataclasses.replace(camera, intrinsics=camera.intrinsics * scale[:, None], width=width, height=height)


def _focal(camera: Camera) -> Float[Array, "*b 1 2"]:
  return jnp.stack([camera.intrinsics[..., 0, 0], camera.intrinsics[..., 1, 1]], axis=-1)[..., None, :]
