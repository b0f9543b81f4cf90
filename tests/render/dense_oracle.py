"""A second renderer, written from the formulas to judge the first: float64, every pixel against every Gaussian, no boxes, no tiles.

It shares no code with the library. The Jacobian comes from differentiating the projection, the conic from a linear solve, the
transmittance from a product over all nearer Gaussians; gradients are autodiff's. Call it through `float64()`.
"""

import contextlib
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Scene(NamedTuple):
  """Everything a picture depends on, by the parameters that training sees; float64 NumPy arrays."""

  means: np.ndarray  # [n, 3]
  quaternions: np.ndarray  # [n, 4] wxyz
  deviations: np.ndarray  # [n, 3]
  opacities: np.ndarray  # [n]
  colours: np.ndarray  # [n, c]
  background: np.ndarray  # [c]


class View(NamedTuple):
  """A camera; float64 NumPy arrays and ints."""

  world_to_camera: np.ndarray  # [4, 4]
  intrinsics: np.ndarray  # [3, 3]
  width: int
  height: int


@contextlib.contextmanager
def float64():
  """Runs what is inside in double precision."""
  before = jax.config.jax_enable_x64
  jax.config.update("jax_enable_x64", True)
  try:
    yield
  finally:
    jax.config.update("jax_enable_x64", before)


def _turn(quaternion, vector):
  """v + 2 w (u x v) + 2 u x (u x v) for the unit quaternion (w, u)."""
  unit = quaternion / jnp.sqrt(quaternion @ quaternion)
  once = jnp.cross(unit[1:], vector)
  return vector + 2 * unit[0] * once + 2 * jnp.cross(unit[1:], once)


def _project_one(view, mean, quaternion, deviations, near, low_pass):
  """(mean2d [2], inverse covariance [2, 2], depth) of one Gaussian in front of the camera."""
  rotation, translation = view.world_to_camera[:3, :3], view.world_to_camera[:3, 3]
  fx, fy, cx, cy = view.intrinsics[0, 0], view.intrinsics[1, 1], view.intrinsics[0, 2], view.intrinsics[1, 2]

  def pixel(point):
    return jnp.stack([fx * point[0] / point[2] + cx, fy * point[1] / point[2] + cy])

  local = rotation @ mean + translation
  local = jnp.where(local[2] > near, local, jnp.array([0.0, 0.0, 1.0]))
  # 1.3 times the half field of view on either side: the near edge of the picture, and 0.15 of its size more.
  left, right = (0 - 0.15 * view.width - cx) / fx, (view.width + 0.15 * view.width - cx) / fx
  top, bottom = (0 - 0.15 * view.height - cy) / fy, (view.height + 0.15 * view.height - cy) / fy
  slope_x = jnp.minimum(jnp.maximum(local[0] / local[2], left), right)
  slope_y = jnp.minimum(jnp.maximum(local[1] / local[2], top), bottom)
  held = jnp.stack([slope_x * local[2], slope_y * local[2], local[2]])
  jacobian = jax.jacfwd(pixel)(held)
  axes = [jacobian @ (rotation @ (_turn(quaternion, axis) * deviation)) for axis, deviation in zip(jnp.eye(3), deviations, strict=True)]
  covariance = sum(jnp.outer(axis, axis) for axis in axes) + low_pass * jnp.eye(2)
  return pixel(local), jnp.linalg.inv(covariance), local[2]


def render(scene: Scene, view: View, *, near: float = 0.01, low_pass: float = 0.3):
  """(image [h, w, c], alpha [h, w], depth [h, w]) with differentiable jnp operations."""
  depths = (scene.means @ view.world_to_camera[:3, :3].T + view.world_to_camera[:3, 3])[:, 2]
  means2d, inverses, held = jax.vmap(lambda m, q, s: _project_one(view, m, q, s, near, low_pass))(
    scene.means, scene.quaternions, scene.deviations
  )
  x, y = jnp.meshgrid(jnp.arange(view.width) + 0.5, jnp.arange(view.height) + 0.5)
  offsets = jnp.stack([x, y], axis=-1)[:, :, None, :] - means2d
  exponent = -0.5 * jnp.einsum("hwni,nij,hwnj->hwn", offsets, inverses, offsets)
  alpha = jnp.minimum(scene.opacities * jnp.exp(exponent), 0.999)
  alpha = jnp.where((alpha >= 1 / 255) & (depths > near), alpha, 0.0)
  order = jnp.argsort(depths, stable=True)
  alpha = alpha[:, :, order]
  passed = jnp.cumprod(1 - alpha, axis=-1)
  weights = jnp.where(passed > 1e-4, alpha * jnp.concatenate([jnp.ones_like(passed[..., :1]), passed[..., :-1]], axis=-1), 0.0)
  total = weights.sum(axis=-1)
  image = jnp.einsum("hwn,nc->hwc", weights, scene.colours[order]) + (1 - total)[..., None] * scene.background
  return image, total, jnp.einsum("hwn,n->hw", weights, held[order])


@functools.partial(jax.jit, static_argnums=(3, 4))
def _judge(scene, world_to_camera, intrinsics, width, height, cotangents):
  def loss(scene):
    outputs = render(scene, View(world_to_camera, intrinsics, width, height))
    return sum(jnp.sum(output * cotangent) for output, cotangent in zip(outputs, cotangents, strict=True)), outputs

  return jax.grad(loss, has_aux=True)(scene)


def judge(scene: Scene, view: View, cotangents) -> tuple[tuple[np.ndarray, ...], Scene]:
  """((image, alpha, depth), gradient of sum <cotangent, output> with respect to every array of the scene), in double precision."""
  with float64():
    gradient, outputs = _judge(*jax.tree.map(jnp.asarray, (scene, view.world_to_camera, view.intrinsics)), *view[2:], cotangents)
    return jax.tree.map(np.asarray, outputs), jax.tree.map(np.asarray, gradient)
