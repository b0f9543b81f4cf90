"""Clips of Gaussians to judge, and the term with all its slopes, compiled once per setting for every test that asks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.math.rotation import matrix_from_quaternion, quaternion_from_matrix
from silky_jax.physics.term import Motion, PhysicsConfig, PhysicsResult, physics_term

GROUPS = 4  # the last without members
FRAMES, COUNT = 6, 12
ABSOLUTE = PhysicsConfig(mode="absolute", blur_gain=0.0)  # blurred by 0.5 mm whatever the residuals are


def _both(motion, config, rms):
  result = physics_term(motion, config, GROUPS, rms)
  return result.value, result


_slopes = jax.jit(jax.grad(_both, has_aux=True, allow_int=True), static_argnames="config")


def judge(motion: Motion, config: PhysicsConfig, rms=None) -> tuple[PhysicsResult, Motion]:
  """The term, and its gradient in every field of the clip."""
  slopes, result = _slopes(motion, config, jnp.zeros(GROUPS) if rms is None else rms)
  return result, slopes


def assert_finite(result: PhysicsResult, slopes: Motion) -> None:
  """Value, memory and every slope are numbers."""
  assert np.isfinite(result.value) and np.isfinite(result.rms).all()
  for name in ("residuals", "anchors", "carried", "quaternions", "log_deviations", "edges"):
    slope = getattr(slopes, name)
    assert slope is None or np.isfinite(slope).all(), name


def clip(t=FRAMES, n=COUNT, seed=0, wild=0.0) -> Motion:
  """Residuals that accelerate evenly, log-deviations linear in time: geodesics; `wild` mm of noise on the residuals."""
  rng = np.random.default_rng(seed)
  frame = np.arange(t)[:, None, None]
  residuals = rng.normal(size=(n, 3)) * 2e-3 + frame * rng.normal(size=(n, 3)) * 1e-4 + frame**2 * rng.normal(size=(n, 3)) * 2e-5
  residuals = residuals + wild * 1e-3 * rng.normal(size=residuals.shape)
  deviations = np.log(3e-3) + rng.normal(size=(n, 3)) * 0.4 + frame * rng.normal(size=(n, 3)) * 0.03
  anchors = rng.normal(size=(n, 3)) * 0.05 + 0.004 * np.sin(frame * 1.7 + rng.uniform(0, 6, (n, 1)))
  carried = np.concatenate([np.ones((t, n, 1)), rng.normal(size=(t, n, 3)) * 0.1], axis=-1)
  return _motion(residuals, anchors, carried, np.broadcast_to(rng.normal(size=(n, 4)), (t, n, 4)), deviations)


def advected(t=FRAMES, n=COUNT, seed=0) -> Motion:
  """Gaussians that jerky triangles carry, shear and all, on anchors that accelerate evenly."""
  rng = np.random.default_rng(seed)
  frame = np.arange(t)[:, None, None]
  edges = _triangles(rng, n)
  motions = np.eye(3) + 0.15 * rng.normal(size=(t, n, 3, 3))  # of all space; normals go with it, so that it is the triangle's
  start = rng.normal(size=(n, 3, 3)) * 1.5e-3
  covariances = motions @ (start @ start.swapaxes(-1, -2) + 1e-6 * np.eye(3)) @ motions.swapaxes(-1, -2)
  carried = np.concatenate([np.ones((t, n, 1)), rng.normal(size=(t, n, 3)) * 0.3], axis=-1)
  turn = np.asarray(matrix_from_quaternion(jnp.asarray(carried)))
  values, axes = np.linalg.eigh(turn.swapaxes(-1, -2) @ covariances @ turn)
  axes = axes * np.sign(np.linalg.det(axes))[..., None, None]
  anchors = rng.normal(size=(n, 3)) * 0.05 + frame * rng.normal(size=(n, 3)) * 1e-3 + frame**2 * rng.normal(size=(n, 3)) * 1e-4
  quaternions = np.asarray(quaternion_from_matrix(jnp.asarray(axes)))
  made = _motion(np.zeros((t, n, 3)), anchors, carried, quaternions, 0.5 * np.log(values))
  return made._replace(edges=jnp.asarray(motions @ edges, jnp.float32)[None])


def _triangles(rng, n):
  edges = rng.normal(size=(n, 2, 3)) * 3e-3
  normals = np.cross(edges[:, 0], edges[:, 1])
  return np.concatenate([edges, (normals / np.linalg.norm(normals, axis=-1, keepdims=True))[:, None]], axis=1).swapaxes(-1, -2)


def _motion(residuals, anchors, carried, quaternions, deviations) -> Motion:
  t, n = residuals.shape[:2]
  f = lambda x: jnp.asarray(np.broadcast_to(x, (1, t, *np.shape(x)[-2:])), jnp.float32)
  return Motion(
    times=jnp.arange(t, dtype=jnp.float32)[None] * 0.04,
    valid=jnp.ones((1, t), bool),
    shots=jnp.zeros((1, t), jnp.int32),
    residuals=f(residuals),
    anchors=f(anchors),
    carried=f(carried),
    quaternions=f(quaternions),
    log_deviations=f(deviations),
    opacities=jnp.full((1, t, n), 0.8, jnp.float32),
    groups=jnp.asarray(np.arange(n) % (GROUPS - 1)),
  )


@functools.cache
def only(frame: int, gaussian: int, t=FRAMES, n=COUNT):
  """Opacities by which the term is the distance of one Gaussian in one frame."""
  return jnp.zeros((1, t, n)).at[0, frame, gaussian].set(1.0)
