"""How the torso stands, which no landmark shows: so that the rig's neck is where the person mask has a neck.

The head's rotation is fitted; how much of it is the neck's and how much the torso's is not, nor where the neck begins between the
shoulders. A torso that is turned like the head puts the base of the neck beside the shirt's collar whenever someone leans or tilts.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.optimize import minimize

from silky_jax.flame.regions import face_mask
from silky_jax.geometry.camera import project
from silky_jax.math.precision import exact
from silky_jax.math.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from silky_jax.render.mesh import rasterize_mesh
from silky_jax.tracking import energy
from silky_jax.tracking.labels import posed_vertices
from silky_jax.types import Camera, FlameRig

__all__ = ["Torso", "fit_torso", "split_neck"]

_SPREAD = np.array([*np.radians([8.0, 8.0, 8.0]), 0.02])  # a priori: of the turn against the head's, and of the shift in metres
_FIRST = np.array([*np.radians([4.0, 4.0, 4.0]), 0.01])  # first steps of the search
_PRIOR = 1e-2  # share of pixels that one spread weighs
_REACH = 0.6  # head widths on either side of the neck's middle; shoulders are cloth, and say little about the neck
_EVALUATIONS = 160


class Torso(NamedTuple):
  """One person's torso in one clip."""

  head: Float[np.ndarray, "3"]  # mean rotation of the head over the training frames, axis-angle
  rest: Float[np.ndarray, "3"]  # the torso's while the head has that one
  offset: Float[np.ndarray, "v 3"]  # personal displacement of the template, metres


@exact
def split_neck(
  rig: FlameRig,
  shape: Float[np.ndarray, "k"],
  rotation: Float[np.ndarray, "t 3"],
  translation: Float[np.ndarray, "t 3"],
  torso: Torso,
  share: float,
) -> tuple[Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3"]]:
  """Divide a head rotation about the root into root and neck rotation, leaving the head where it is.

  The torso follows the head by `share` of its rotation away from its mean, starting from the torso's rest; the neck joint does the
  remainder. With x = R_h (v - j0) + j0 + t for the head as fitted and x = R_r (R_n (v - J1) + J1 - J0) + J0 + t' for the rig, whose
  joints the offset moved from j to J: R_n = R_r^T R_h and t' = t + j0 - J0 + R_h (J1 - j0) - R_r (J1 - J0).

  Args:
    rig, shape: the head.
    rotation, translation: of the head as fitted, axis-angle and metres.
    torso: how it stands.
    share: 0..1.

  Returns:
    Root rotation, neck rotation (axis-angle) and translation.
  """
  template = rig.template + rig.shape_basis @ shape
  fitted, joints = np.asarray(rig.joint_regressor @ template), np.asarray(rig.joint_regressor @ (template + torso.offset))
  turned = np.asarray(matrix_from_axis_angle(jnp.asarray(rotation)))
  middle, base = (np.asarray(matrix_from_axis_angle(jnp.asarray(x, jnp.float32))) for x in (torso.head, torso.rest))
  turn = np.asarray(axis_angle_from_matrix(jnp.asarray(middle.T @ turned)))
  root = base @ np.asarray(matrix_from_axis_angle(jnp.asarray(share * turn)))
  neck = np.swapaxes(root, -1, -2) @ turned
  moved = translation + fitted[0] - joints[0] + turned @ (joints[1] - fitted[0]) - root @ (joints[1] - joints[0])
  to_vector = lambda m: np.asarray(axis_angle_from_matrix(jnp.asarray(m, jnp.float32)))
  return to_vector(root), to_vector(neck), moved.astype(np.float32)


def fit_torso(
  rig: FlameRig,
  shape: Float[np.ndarray, "k"],
  head: Float[np.ndarray, "3"],
  x: Float[np.ndarray, "t p"],
  persons: UInt8[np.ndarray, "t h w"],
  camera: Camera,
  share: float,
) -> Torso:
  """Turn the torso and shift it sideways until the neck fits the person mask.

  Minimises the share of pixels, from the chin down to the neck's border and near the neck, where the silhouette of
  neck and torso and the person mask differ, by Nelder and Mead's simplex: four numbers, no derivative to speak of. The shift goes into
  the template, by the weight that the torso has in a vertex's skinning.

  Args:
    rig: the rig.
    shape: identity.
    head: mean rotation of the head over the training frames.
    x: fitted parameters of a few training frames.
    persons: their person masks at the camera's size.
    camera: the clip's.
    share: of the head's rotation away from its mean that the torso follows.

  Returns:
    The torso; turned like the head and not shifted where no pixel says anything.
  """
  mean = np.asarray(matrix_from_axis_angle(jnp.asarray(head)))
  carried = np.asarray(rig.skinning)[:, :1]

  def stands(change: np.ndarray) -> Torso:
    extra = np.asarray(matrix_from_axis_angle(jnp.asarray(change[:3], jnp.float32)))
    rest = np.asarray(axis_angle_from_matrix(jnp.asarray(extra @ mean)))
    return Torso(head, rest, (carried * np.array([change[3], 0.0, 0.0])).astype(np.float32))

  def vertices(torso: Torso) -> jax.Array:
    root, neck, moved = split_neck(rig, shape, x[:, energy.ROTATION], x[:, energy.TRANSLATION], torso, share)
    gaze = np.pad(x[:, energy.GAZE], ((0, 0), (0, 1)))
    pose = np.stack([root, neck, x[:, energy.JAW], gaze, gaze], axis=1).astype(np.float32)
    return posed_vertices(rig, shape, x[:, energy.EXPRESSION], pose, x[:, energy.EYELIDS], moved, torso.offset)

  lower = jnp.asarray(np.asarray(rig.faces)[np.asarray(face_mask(rig, ("neck", "torso")))])
  silhouettes = jax.jit(lambda v: jax.lax.map(lambda one: rasterize_mesh(one, lower, camera)[0] >= 0, v))
  start = stands(np.zeros(4))
  zone = _zone(rig, np.asarray(project(vertices(start), camera)[0]), persons.shape[1:])
  person = persons > 127
  if not (zone & person).any():
    return start

  def cost(scaled: np.ndarray) -> float:
    differing = (np.asarray(silhouettes(vertices(stands(scaled * _SPREAD)))) != person) & zone
    return float(differing.sum() / zone.sum() + _PRIOR * np.sum(scaled**2))

  simplex = np.concatenate([np.zeros((1, 4)), np.diag(_FIRST / _SPREAD)])
  found = minimize(cost, np.zeros(4), method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": _EVALUATIONS, "xatol": 2e-2})
  return stands(found.x * _SPREAD)


def _zone(rig: FlameRig, pixels: Float[np.ndarray, "t v 2"], size: tuple[int, int]) -> Bool[np.ndarray, "t h w"]:
  """Between the chin and the neck's border, and near the neck's middle."""
  named = functools.partial(rig.region_names.index)
  regions = np.asarray(rig.regions)
  neck = pixels[:, regions == named("neck")]
  head = pixels[:, ~np.isin(regions, (named("neck"), named("torso")))]
  chin, border = head[..., 1].max(axis=1), neck[..., 1].max(axis=1)
  middle, width = neck[..., 0].mean(axis=1), np.ptp(head[..., 0], axis=1)
  rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
  high = (rows > chin[:, None, None]) & (rows < border[:, None, None])
  return high & (np.abs(columns - middle[:, None, None]) < _REACH * width[:, None, None])
