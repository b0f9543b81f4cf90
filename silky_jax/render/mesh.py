"""Z-buffer for triangle meshes: face ids, barycentric weights, depth, interpolated attributes, vertex visibility.

Every face is cut into blocks of pixels that its bounding box touches; the blocks of all faces form one list of jobs that a loop walks in
chunks. So the work follows the covered area, no face is too large, and nothing is dropped. All functions take one item: vmap for more.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from silky_jax.geometry.camera import project
from silky_jax.math.precision import exact
from silky_jax.types import Camera

__all__ = ["interpolate", "rasterize_mesh", "vertex_visibility"]

_BLOCK = 4  # px, side of a job's square
_CHUNK = 8192  # jobs per loop turn: 131072 pixel tests
_INSIDE = -1e-5  # weights above this count as inside, so that rounding opens no crack along shared edges
_SAME_DEPTH = 1e-6  # relative: the second pass takes every face this close to the nearest one, the lowest id wins


def rasterize_mesh(
  vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], camera: Camera, *, near: float = 1e-2
) -> tuple[Int[Array, "h w"], Float[Array, "h w 3"], Float[Array, "h w"]]:
  """Nearest face at every pixel centre, perspective-correct.

  Screen-space weights l_k of the pixel centre become b_k = (l_k / z_k) / sum_m (l_m / z_m); depth = 1 / sum_m (l_m / z_m).

  Args:
    vertices: world space, metres.
    faces: vertex ids; both windings are drawn.
    camera: one camera.
    near: metres; a face with a vertex nearer than this is left out, not clipped.

  Returns:
    face_ids: int32, -1 where no face covers the pixel centre. Equal depth: the lowest id.
    barycentric: weights of the face's three vertices, summing to 1; zeros where empty.
    depth: metres along the optical axis; 0 where empty.
    Weights and depth are differentiable in vertices and camera at fixed face ids; coverage itself (which face, where) is not.
  """
  pixels, depths = project(vertices, camera)
  corners = jnp.concatenate([pixels, depths[:, None]], axis=-1)[faces]  # [f, 3, (x, y, z)]
  face_ids = _nearest_faces(jax.lax.stop_gradient(corners), camera.width, camera.height, near)
  hit = face_ids >= 0
  columns, rows = jnp.meshgrid(jnp.arange(camera.width) + 0.5, jnp.arange(camera.height) + 0.5)
  triangle = corners[jnp.maximum(face_ids, 0)]
  triangle = jnp.where(hit[..., None, None], triangle, jnp.asarray([[0, 0, 1], [1, 0, 1], [0, 1, 1]], corners.dtype))
  weights = _weights(triangle, columns.astype(corners.dtype), rows.astype(corners.dtype)) / triangle[..., 2]
  inverse_depth = jnp.sum(weights, axis=-1)
  barycentric = jnp.where(hit[..., None], weights / inverse_depth[..., None], 0)
  return face_ids, barycentric, jnp.where(hit, 1 / inverse_depth, 0)


@exact
def interpolate(
  attributes: Float[Array, "v c"], faces: Int[Array, "f 3"], face_ids: Int[Array, "h w"], barycentric: Float[Array, "h w 3"]
) -> Float[Array, "h w c"]:
  """Attributes of the surface point behind each pixel; zeros where no face is.

  Args:
    attributes: per vertex (or per texture corner, with `faces` the texture faces).
    faces: corner ids per face, in the order that was rasterized.
    face_ids: from `rasterize_mesh`.
    barycentric: from `rasterize_mesh`.

  Returns:
    sum_k barycentric_k attributes[faces[face_id, k]].
  """
  corners = attributes[faces[jnp.maximum(face_ids, 0)]]
  return jnp.where(face_ids[..., None] >= 0, jnp.einsum("hwk,hwkc->hwc", barycentric, corners), 0)


def vertex_visibility(
  vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], camera: Camera, *, tolerance: float = 2e-3
) -> Bool[Array, "v"]:
  """Which vertices the camera sees. Not differentiable.

  Args:
    vertices: world space, metres.
    faces: vertex ids.
    camera: one camera; its size sets how fine the test is.
    tolerance: metres that a vertex may lie behind the surface found at its pixel.

  Returns:
    True where the vertex lies in the picture, in front of the camera, and not hidden by a face at its pixel.
  """
  _, _, depth = rasterize_mesh(vertices, faces, camera)
  pixels, depths = project(vertices, camera)
  columns, rows = (jnp.floor(pixels[:, k]).astype(jnp.int32) for k in (0, 1))
  inside = (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height) & (depths > 0)
  surface = depth[jnp.clip(rows, 0, camera.height - 1), jnp.clip(columns, 0, camera.width - 1)]
  return inside & ((surface == 0) | (depths <= surface + tolerance))


def _weights(triangle: Float[Array, "*b 3 3"], x: Float[Array, "*b"], y: Float[Array, "*b"]) -> Float[Array, "*b 3"]:
  """Screen-space barycentric weights of the point (x, y); the triangle's columns are x, y, anything."""
  dx, dy = triangle[..., 0] - x[..., None], triangle[..., 1] - y[..., None]
  cross = jnp.stack([dx[..., i] * dy[..., j] - dx[..., j] * dy[..., i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=-1)
  area = jnp.sum(cross, axis=-1, keepdims=True)
  return cross / jnp.where(area == 0, jnp.inf, area)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _nearest_faces(corners: Float[Array, "f 3 3"], width: int, height: int, near: float) -> Int[Array, "h w"]:
  size = jnp.asarray([width, height])
  low = jnp.clip(jnp.ceil(jnp.min(corners[..., :2], axis=1) - 0.5), 0, size).astype(jnp.int32)
  high = jnp.clip(jnp.floor(jnp.max(corners[..., :2], axis=1) - 0.5), -1, size - 1).astype(jnp.int32)
  blocks = jnp.maximum(-((low - high - 1) // _BLOCK), 0)  # ceil((high - low + 1) / block) per axis
  drawn = jnp.min(corners[..., 2], axis=1) > near
  ends = jnp.cumsum(jnp.where(drawn, blocks[:, 0] * blocks[:, 1], 0))
  first_job = ends - jnp.where(drawn, blocks[:, 0] * blocks[:, 1], 0)
  offsets = jnp.arange(_BLOCK * _BLOCK)

  def fragments(start):
    """Face, pixel, depth of one chunk of jobs; pixel = width * height where there is nothing."""
    jobs = start + jnp.arange(_CHUNK)
    face = jnp.minimum(jnp.searchsorted(ends, jobs, side="right"), ends.shape[0] - 1)
    block = jobs - first_job[face]
    across = jnp.maximum(blocks[face, 0], 1)
    column = (low[face, 0] + block % across * _BLOCK)[:, None] + offsets % _BLOCK
    row = (low[face, 1] + block // across * _BLOCK)[:, None] + offsets // _BLOCK
    triangle = jnp.broadcast_to(corners[face][:, None], (*column.shape, 3, 3))
    weights = _weights(triangle, column + 0.5, row + 0.5)
    inverse_depth = jnp.sum(weights / triangle[..., 2], axis=-1)
    valid = (jobs < ends[-1])[:, None] & (column <= high[face, 0][:, None]) & (row <= high[face, 1][:, None])
    valid = valid & (jnp.min(weights, axis=-1) >= _INSIDE) & (inverse_depth > 0)
    pixel = jnp.where(valid, row * width + column, width * height)
    return face, pixel, 1 / jnp.where(valid, inverse_depth, 1)

  def keep_depth(start, buffer):
    _, pixel, depth = fragments(start)
    return buffer.at[pixel].min(depth, mode="drop")

  def keep_face(nearest, start, buffer):
    face, pixel, depth = fragments(start)
    limit = nearest.at[pixel].get(mode="fill", fill_value=0) * (1 + _SAME_DEPTH)
    return buffer.at[jnp.where(depth <= limit, pixel, width * height)].min(face[:, None], mode="drop")

  def walk(body, buffer):
    return jax.lax.while_loop(lambda s: s[0] < ends[-1], lambda s: (s[0] + _CHUNK, body(s[0], s[1])), (jnp.int32(0), buffer))[1]

  nearest = walk(keep_depth, jnp.full(width * height, jnp.inf, corners.dtype))
  none = corners.shape[0]
  face_ids = walk(functools.partial(keep_face, nearest), jnp.full(width * height, none, jnp.int32))
  return jnp.where(face_ids == none, -1, face_ids).reshape(height, width)
