"""project on a GPU: one kernel for the splats of all pictures, one for all gradients. Plain JAX takes a dozen small ones each way.

The arithmetic is `reference.project` written for one Gaussian, its entries in separate vectors; the gradient is that of the same lines,
taken inside the kernel, so that nothing has to be kept from the forward pass. Gradients of a camera are summed per block of Gaussians,
then over blocks, in a fixed order.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array
from silky_kernels.project.reference import LARGEST, MARGIN, SLACK
from silky_kernels.rasterize.definition import SMALLEST_ALPHA
from silky_kernels.triton import interpreted, launch, load, merge_batches, store

__all__ = ["project"]

_BLOCK = 128
_CAMERA = 16  # numbers: three rows of the pose, focal lengths, centre
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_SMOOTH = 7  # numbers per splat with a gradient: mean2d, depth, conic, opacity

Numbers = tuple[Array, ...]


class _Settings(NamedTuple):
  width: int
  height: int
  near: float
  low_pass: float
  interpret: bool


def project(means, covariances, opacities, features, world_to_camera, intrinsics, width, height, near, low_pass) -> Numbers:
  """See `api.project`; returns (means2d, boxes, depths, conics, opacities, radii)."""
  settings = _Settings(width, height, near, low_pass, interpreted())
  camera = jnp.concatenate([world_to_camera[:3].reshape(12), jnp.diagonal(intrinsics)[:2], intrinsics[:2, 2]])
  arrays = means, covariances, opacities, lax.stop_gradient(features), camera
  found: Any = _project(settings, *(array[None] for array in arrays))
  return tuple(array[0] for array in found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(settings, *arrays):
  return merge_batches(functools.partial(_forward_launch, settings))(*arrays)


def _forward(settings, *arrays):
  return _project(settings, *arrays), arrays


def _backward(settings, arrays, cotangents):
  to_means2d, _, to_depths, to_conics, to_opacities, _ = cotangents
  given = (*arrays, to_means2d, to_depths, to_conics, to_opacities)
  to_means, to_covariances, to_opacities, to_camera = merge_batches(functools.partial(_backward_launch, settings))(*given)
  return to_means, to_covariances, to_opacities, jnp.zeros_like(arrays[3]), to_camera


_project.defvjp(_forward, _backward)


# ---- one Gaussian per thread


class _Splat(NamedTuple):
  smooth: Numbers  # x, y, depth, conic (xx, xy, yy), opacity
  box_x: Array
  box_y: Array


def _splat(settings: _Settings, mean: Numbers, covariance: Numbers, opacity: Array, camera: Numbers, sound: Array) -> _Splat:
  """`covariance`: upper triangle of the symmetric part. `sound`: no NaN, infinity or huge number in the Gaussian."""
  rotation, translation = (camera[0:3], camera[4:7], camera[8:11]), (camera[3], camera[7], camera[11])
  focal, centre, size = camera[12:14], camera[14:16], (float(settings.width), float(settings.height))
  mean = tuple(jnp.where(sound, x, 0.0) for x in mean)
  covariance = tuple(jnp.where(sound, x, 0.0) for x in covariance)
  local = [row[0] * mean[0] + row[1] * mean[1] + row[2] * mean[2] + t for row, t in zip(rotation, translation, strict=True)]
  ahead = sound & (local[2] > settings.near) & (opacity >= SMALLEST_ALPHA)
  # Culled points move to a harmless place before any division: a masked NaN would still poison the gradient.
  x, y, z = (jnp.where(ahead, value, safe) for value, safe in zip(local, (0.0, 0.0, 1.0), strict=True))
  at = [x / z * focal[0] + centre[0], y / z * focal[1] + centre[1]]

  def row(axis: int, along: Array) -> list[Array]:
    """Of J R: d pixel / d world = f / z (R_axis - slope R_z)."""
    margin = MARGIN * 0.5 * size[axis] / focal[axis]
    slope = jnp.minimum(jnp.maximum(along / z, -centre[axis] / focal[axis] - margin), (size[axis] - centre[axis]) / focal[axis] + margin)
    return [focal[axis] / z * (rotation[axis][k] - slope * rotation[2][k]) for k in range(3)]

  s = {pair: covariance[k] for k, pair in enumerate(_UPPER)}
  entry = lambda i, j: s[min(i, j), max(i, j)]
  turned = lambda row: [row[0] * entry(i, 0) + row[1] * entry(i, 1) + row[2] * entry(i, 2) for i in range(3)]
  dot = lambda a, b: a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
  row_x, row_y = row(0, x), row(1, y)
  turned_x, turned_y = turned(row_x), turned(row_y)
  xx, xy, yy = dot(row_x, turned_x) + settings.low_pass, dot(row_y, turned_x), dot(row_y, turned_y) + settings.low_pass

  determinant = xx * yy - xy * xy
  opacity = jnp.where(ahead, opacity, 0.0)
  reach = jnp.sqrt(2 * jnp.log(jnp.maximum(lax.stop_gradient(opacity) / SMALLEST_ALPHA, 1.0)))
  boxes = [reach * jnp.sqrt(jnp.maximum(lax.stop_gradient(value), 0.0)) * (1 + SLACK) + SLACK for value in (xx, yy)]
  drawn = ahead & (xx > 0) & (yy > 0) & (determinant > 0) & (determinant < jnp.inf)
  for place, box, extent in zip(at, boxes, size, strict=True):
    drawn = drawn & (place + box > 0) & (place - box < extent) & (box < jnp.inf)
  xx, xy, yy, determinant = (jnp.where(drawn, value, safe) for value, safe in ((xx, 1.0), (xy, 0.0), (yy, 1.0), (determinant, 1.0)))
  masked = lambda value: jnp.where(drawn, value, 0.0)
  conic = (yy / determinant, -xy / determinant, xx / determinant)
  return _Splat((masked(at[0]), masked(at[1]), masked(z), *conic, masked(opacity)), masked(boxes[0]), masked(boxes[1]))


class _Gaussian(NamedTuple):
  mean: Numbers
  covariance: Numbers  # upper triangle of the symmetric part
  opacity: Array
  camera: Numbers
  sound: Array
  index: Array  # of the Gaussians of all pictures
  real: Array


def _load(count: int, channels: int, means: Any, covariances: Any, opacities: Any, features: Any, cameras: Any) -> _Gaussian:
  picture = pl.program_id(1)
  place = pl.program_id(0) * _BLOCK + lax.iota(jnp.int32, _BLOCK)
  real, index = place < count, picture * count + place
  mean = tuple(load(means, index * 3 + k, real) for k in range(3))
  entry = {(i, j): load(covariances, index * 9 + 3 * i + j, real) for i in range(3) for j in range(3)}
  covariance = tuple(entry[i, i] if i == j else 0.5 * (entry[i, j] + entry[j, i]) for i, j in _UPPER)
  opacity = load(opacities, index, real)
  sound = real & (jnp.abs(opacity) < jnp.inf)
  for value in (*mean, *entry.values()):
    sound = sound & (jnp.abs(value) < LARGEST)
  for k in range(channels):
    sound = sound & (jnp.abs(load(features, index * channels + k, real)) < jnp.inf)
  camera = tuple(load(cameras, picture * _CAMERA + k) for k in range(_CAMERA))
  return _Gaussian(mean, covariance, opacity, camera, sound, index, real)


def _forward_launch(settings, means, covariances, opacities, features, cameras):
  batch, count, channels = features.shape

  def kernel(means: Any, covariances: Any, opacities: Any, features: Any, cameras: Any, *outputs: Any) -> None:
    own = _load(count, channels, means, covariances, opacities, features, cameras)
    made = _splat(settings, *own[:5])
    radius = jnp.ceil(jnp.maximum(made.box_x, made.box_y))
    smooth = made.smooth
    rows = (smooth[0:2], (made.box_x, made.box_y), smooth[2:3], smooth[3:6], smooth[6:7], (radius,))
    for output, values in zip(outputs, rows, strict=True):
      for k, value in enumerate(values):
        store(output, own.index * len(values) + k, value, own.real)

  widths = (2, 2, 1, 3, 1, 1)
  outputs = [(batch * count * width, jnp.float32) for width in widths]
  grid = (-(-count // _BLOCK), batch)
  inputs = [means, covariances, opacities, features, cameras]
  found = launch(kernel, grid, outputs, inputs, warps=4, interpret=settings.interpret, name="silky_project")
  shape = lambda width: (batch, count) if width == 1 else (batch, count, width)
  return tuple(array.reshape(shape(width)) for array, width in zip(found, widths, strict=True))


def _backward_launch(settings, means, covariances, opacities, features, cameras, *cotangents):
  batch, count, channels = features.shape
  blocks = -(-count // _BLOCK)

  def kernel(*references: Any) -> None:
    inputs, (to_means2d, to_depths, to_conics, to_opacities), outputs = references[:5], references[5:9], references[9:]
    own = _load(count, channels, *inputs)
    flat = (*own.mean, *own.covariance, own.opacity, *(jnp.broadcast_to(x, (_BLOCK,)) for x in own.camera))

    def smooth(*flat: Array) -> Numbers:
      return _splat(settings, flat[:3], flat[3:9], flat[9], flat[10:], own.sound).smooth

    widths = (2, 1, 3, 1)
    given = zip((to_means2d, to_depths, to_conics, to_opacities), widths, strict=True)
    along = tuple(load(array, own.index * width + k, own.real) for array, width in given for k in range(width))
    found = jax.vjp(smooth, *flat)[1](along)
    # What is not sound has no gradient, and its own numbers would make NaN of the zeros.
    found = [jnp.where(own.sound, value, 0.0) for value in found]
    for k in range(3):
      store(outputs[0], own.index * 3 + k, found[k], own.real)
    for (i, j), value in zip(_UPPER, found[3:9], strict=True):
      for a, b in {(i, j), (j, i)}:
        store(outputs[1], own.index * 9 + 3 * a + b, value if i == j else 0.5 * value, own.real)
    store(outputs[2], own.index, found[9], own.real)
    first = (pl.program_id(1) * blocks + pl.program_id(0)) * _CAMERA
    for k, value in enumerate(found[10:]):
      store(outputs[3], first + k, jnp.sum(value))

  sizes = [batch * count * 3, batch * count * 9, batch * count, batch * blocks * _CAMERA]
  inputs = [means, covariances, opacities, features, cameras, *cotangents]
  outputs = [(size, jnp.float32) for size in sizes]
  to_means, to_covariances, to_opacities, to_camera = launch(
    kernel, (blocks, batch), outputs, inputs, warps=4, interpret=settings.interpret, name="silky_project_transposed"
  )
  shape = (batch, count)
  to_camera = jnp.sum(to_camera.reshape(batch, blocks, _CAMERA), axis=1)
  return to_means.reshape(*shape, 3), to_covariances.reshape(*shape, 3, 3), to_opacities.reshape(shape), to_camera
