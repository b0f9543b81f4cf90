"""project on the CPU: one XLA custom call forward, one backward (`csrc/project.cc`). A batch is one call."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from silky_kernels import native

__all__ = ["project"]


def project(
  means: Float[Array, "n 3"],
  covariances: Float[Array, "n 3 3"],
  opacities: Float[Array, "n"],
  features: Float[Array, "n c"],
  world_to_camera: Float[Array, "4 4"],
  intrinsics: Float[Array, "3 3"],
  width: int,
  height: int,
  near: float,
  low_pass: float,
) -> tuple[Float[Array, "..."], ...]:
  """See `api.project`; returns (means2d, boxes, depths, conics, opacities, radii)."""
  layout = (width, height, float(near), float(low_pass), native.SIMD.index(native.best_simd()))
  return _project(layout, means, covariances, opacities, features, world_to_camera, intrinsics)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(layout, *arrays):
  n = arrays[0].shape[0]
  out = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, 2), (n, 2), (n,), (n, 3), (n,), (n,))]
  return native.call("silky_project_forward", out, arrays, **_attributes(layout))


def _forward(layout, *arrays):
  return _project(layout, *arrays), arrays


def _backward(layout, arrays, cotangents):
  means, covariances, opacities, features, world_to_camera, intrinsics = arrays
  to_means2d, _, to_depths, to_conics, to_opacities, _ = cotangents
  out = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (means, covariances, opacities, world_to_camera, intrinsics)]
  given = (*arrays, to_means2d, to_depths, to_conics, to_opacities)
  *space, to_world_to_camera, to_intrinsics = native.call("silky_project_backward", out, given, **_attributes(layout))
  return (*space, jnp.zeros_like(features), to_world_to_camera, to_intrinsics)


def _attributes(layout):
  return dict(zip(("width", "height", "near", "low_pass", "simd"), layout, strict=True))


_project.defvjp(_forward, _backward)
