"""What the tracker minimises: landmark distances and priors of one frame, as one vector of residuals.

The residual vector r is dimensionless: every entry is a distance over its standard deviation, so the energy
|r|^2 / 2 is a negative log posterior. Two blocks of unknowns meet in it: `x` of one frame (pose, expression, jaw, gaze,
eyelids, translation) and `z` shared by the clip (identity, log focal length).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.math.precision import exact
from silky_jax.types import FlameRig, LandmarkEmbedding

ROTATION, TRANSLATION, JAW, GAZE, EYELIDS = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 11), slice(11, 13)
EXPRESSION = slice(13, None)
FIXED = 13  # entries before the expression


@dataclasses.dataclass(frozen=True)
class PriorConfig:
  """Standard deviations of the priors; radians, metres, coefficient units."""

  landmark: float = 0.012  # of the face width: what the landmark model is off by, systematically
  independent: float = 80.0  # of 478 landmarks: neighbours err together, so they do not count one by one
  expression: float = 0.25
  look: float = 0.08  # of the coefficients that move the lids along with the gaze, around what the gaze says
  expression_below: float = 0.02  # softness of the wall at 0
  expression_above: float = 0.15  # softness of the wall at 1
  jaw: tuple[float, float, float] = (0.20, 0.02, 0.02)
  jaw_below: float = 0.01
  gaze: float = 0.35
  eyelids: float = 1.0
  eyelids_below: float = 0.10
  eyelids_above: float = 0.05
  identity: float = 1.0
  log_focal: float = 0.20
  frames_independent: float = 6.0  # landmark errors repeat in every frame: many frames are not much more evidence of identity


class LandmarkRig(flax.struct.PyTreeNode):
  """The part of a rig that moves landmarks, so that a solve does not pose the whole head."""

  rig: FlameRig  # the vertices under landmarks and joints alone; joint_regressor and faces re-indexed
  embedding: LandmarkEmbedding
  weights: Float[jax.Array, "l"]  # relative trust in each landmark
  look: Float[jax.Array, "e 2"]  # coefficient per radian of gaze (pitch, yaw), of those that go with it; zeros for the others


@exact
def landmark_rig(rig: FlameRig, embedding: LandmarkEmbedding, weights: Float[np.ndarray, "l"]) -> LandmarkRig:
  """Cut a rig down to the vertices under the landmarks, and one more per joint that stands for all it is regressed from.

  Host code; exact: joints are linear in identity and expression, so a joint is a vertex that pose correctives do not move.
  """
  used_faces = np.asarray(rig.faces)[np.asarray(embedding.face_indices)]
  keep = np.unique(used_faces)
  joint_count = rig.joint_regressor.shape[0]
  still = lambda a, axis: np.concatenate(
    [np.take(np.asarray(a), keep, axis), np.zeros(_with(np.shape(a), axis, joint_count), np.float32)], axis
  )
  joined = lambda a, j: np.concatenate([np.asarray(a)[keep], np.asarray(j)])
  small = rig.replace(
    template=joined(rig.template, rig.joint_regressor @ rig.template),
    shape_basis=joined(rig.shape_basis, jnp.einsum("jv,vck->jck", rig.joint_regressor, rig.shape_basis)),
    expression_basis=joined(rig.expression_basis, jnp.einsum("jv,vce->jce", rig.joint_regressor, rig.expression_basis)),
    pose_basis=still(rig.pose_basis, 1),
    joint_regressor=np.pad(np.eye(joint_count, dtype=np.float32), ((0, 0), (len(keep), 0))),
    skinning=joined(rig.skinning, np.eye(joint_count, rig.skinning.shape[1], dtype=np.float32)),
    eyelid_basis=still(rig.eyelid_basis, 1),
    regions=np.zeros(len(keep) + joint_count, np.int32),
    faces=np.searchsorted(keep, used_faces).astype(np.int32),
  )
  order = jnp.arange(len(used_faces), dtype=jnp.int32)
  return jax.tree.map(jnp.asarray, LandmarkRig(small, embedding.replace(face_indices=order), np.asarray(weights, np.float32), _look(rig)))


def _look(rig: FlameRig) -> Float[np.ndarray, "e 2"]:
  look = np.zeros((rig.expression_basis.shape[-1], 2), np.float32)
  for name, turn in open_head.eye_look().items():
    if name in rig.expression_names:
      look[rig.expression_names.index(name)] = turn[:2] / (turn @ turn)
  return look


def _with(shape: tuple[int, ...], axis: int, count: int) -> tuple[int, ...]:
  return (*shape[:axis], count, *shape[axis + 1 :])


def unpack_pose(x: Float[jax.Array, "p"]) -> Float[jax.Array, "5 3"]:
  """The rig's pose from a frame's unknowns: head rotation at the root, both eyes share one gaze (pitch, yaw)."""
  eye = jnp.concatenate([x[GAZE], jnp.zeros(1, x.dtype)])
  return jnp.stack([x[ROTATION], jnp.zeros(3, x.dtype), x[JAW], eye, eye])


@exact
def landmark_points(model: LandmarkRig, x: Float[jax.Array, "p"], shape: Float[jax.Array, "k"]) -> Float[jax.Array, "l 3"]:
  """Landmarks in world space, metres."""
  vertices, _ = flame_vertices(model.rig, shape, x[EXPRESSION], unpack_pose(x), eyelids=x[EYELIDS])
  corners = vertices[model.rig.faces[model.embedding.face_indices]]
  return jnp.einsum("lk,lkd->ld", model.embedding.barycentric, corners) + x[TRANSLATION]


def project(
  points: Float[jax.Array, "l 3"], focal: Float[jax.Array, ""], distance: float, centre: Float[jax.Array, "2"]
) -> Float[jax.Array, "l 2"]:
  """Pinhole view of world points by the tracker's camera: OpenCV axes, `distance` metres in front of the world's origin."""
  depth = jnp.maximum(distance - points[:, 2], 1e-2)
  return centre + focal * jnp.stack([points[:, 0], -points[:, 1]], axis=-1) / depth[:, None]


class Observation(flax.struct.PyTreeNode):
  """What is known of one frame."""

  landmarks: Float[jax.Array, "l 2"]  # px
  weights: Float[jax.Array, "l"]  # robust weight of each landmark, 0 = unseen
  face_width: Float[jax.Array, ""]  # px
  centre: Float[jax.Array, "2"]  # principal point, px


def landmark_residuals(
  model: LandmarkRig, x: Float[jax.Array, "p"], z: Float[jax.Array, "q"], seen: Observation, distance: float, prior: PriorConfig
) -> Float[jax.Array, "m"]:
  """Landmark distances over their standard deviation; z = [identity, log focal px]."""
  found = project(landmark_points(model, x, z[:-1]), jnp.exp(z[-1]), distance, seen.centre)
  trust = jnp.sqrt(model.weights * seen.weights * prior.independent / model.weights.shape[0])
  return (trust[:, None] * (found - seen.landmarks) / (prior.landmark * seen.face_width)).ravel()


def frame_priors(x: Float[jax.Array, "p"], look: Float[jax.Array, "e 2"], prior: PriorConfig) -> Float[jax.Array, "m"]:
  """Priors of one frame: Gaussians around rest, and one-sided walls where a coefficient has no meaning.

  Lids follow the gaze: landmarks barely tell the coefficients `look` of that motion, but the irises tell the gaze.
  """
  below = lambda value, sigma: jnp.minimum(value, 0.0) / sigma
  above = lambda value, sigma: jnp.maximum(value - 1.0, 0.0) / sigma
  expression, lids = x[EXPRESSION], x[EYELIDS]
  spread = jnp.where(jnp.any(look != 0, axis=1), prior.look, prior.expression)
  return jnp.concatenate(
    [
      (expression - jnp.maximum(look @ x[GAZE], 0.0)) / spread,
      below(expression, prior.expression_below),
      above(expression, prior.expression_above),
      x[JAW] / jnp.asarray(prior.jaw),
      below(x[JAW][:1], prior.jaw_below),
      x[GAZE] / prior.gaze,
      lids / prior.eyelids,
      below(lids, prior.eyelids_below),
      above(lids, prior.eyelids_above),
    ]
  )


def shared_priors(z: Float[jax.Array, "q"], log_focal: float, prior: PriorConfig) -> Float[jax.Array, "q"]:
  """Priors of what the clip shares."""
  return jnp.concatenate([z[:-1] / prior.identity, (z[-1:] - log_focal) / prior.log_focal])
