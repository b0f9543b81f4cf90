"""The FLAME head (Li et al. 2017, "Learning a model of facial shape and expression from 4D scans"): coefficients and pose to vertices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.geometry.mesh import barycentric_points
from silky_jax.math.precision import exact
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.types import FlameRig, LandmarkEmbedding

__all__ = ["HEAD_JOINT", "flame_vertices", "joints", "landmarks", "shaped"]

HEAD_JOINT = 1  # the neck joint carries the skull; eyelids turn with it


@exact
def shaped(rig: FlameRig, shape: Float[Array, "k"], offset: Float[Array, "v 3"] | None = None) -> Float[Array, "v 3"]:
  """The person at rest: T + S beta + offset.

  Args:
    rig: the head.
    shape: identity coefficients, in standard deviations; may be shorter than the rig's basis.
    offset: personal displacement of the template, metres.

  Returns:
    Vertices in metres.
  """
  vertices = rig.template + rig.shape_basis[..., : shape.shape[0]] @ shape
  return vertices if offset is None else vertices + offset


@exact
def joints(
  rig: FlameRig,
  shape: Float[Array, "k"],
  expression: Float[Array, "e"] | None = None,
  offset: Float[Array, "v 3"] | None = None,
) -> Float[Array, "j 3"]:
  """Joint positions at rest: J (T + S beta + E psi + offset), as FLAME does it. Pose does not move them.

  Args:
    rig: the head. The open head's regressor is built so that expression moves its joints by less than 0.1 mm.
    shape: identity coefficients.
    expression: expression coefficients; none when None.
    offset: personal displacement of the template, metres.

  Returns:
    Metres.
  """
  return rig.joint_regressor @ _expressed(rig, shape, expression, offset)


def _expressed(rig, shape, expression, offset):
  vertices = shaped(rig, shape, offset)
  return vertices if expression is None else vertices + rig.expression_basis[..., : expression.shape[0]] @ expression


@exact
def flame_vertices(
  rig: FlameRig,
  shape: Float[Array, "k"],
  expression: Float[Array, "e"],
  pose: Float[Array, "5 3"],
  *,
  eyelids: Float[Array, "2"] | None = None,
  offset: Float[Array, "v 3"] | None = None,
) -> tuple[Float[Array, "v 3"], Float[Array, "j 4 4"]]:
  """Posed vertices of one person at one moment; vmap for more.

  v_p = T + S beta + offset + E psi + sum_q P_q (R - I)_q over the joints beyond the root, then linear blend skinning
  (Li et al. 2017, equations 2-6), then eyelids: v += R_head (B_left e_0 + B_right e_1), as in the metrical tracker but turned with
  the head, so that a rigid motion of the whole head commutes with blinking.

  Args:
    rig: the head; coefficients may be shorter than its bases.
    shape: identity coefficients, standard deviations.
    expression: expression coefficients.
    pose: axis-angle in radians of root (global), neck, jaw, left eye, right eye. Positive x of the jaw opens the mouth.
    eyelids: left, right; 0 open, 1 closed. None is open.
    offset: personal displacement of the template, metres.

  Returns:
    vertices: metres, without the frame's translation.
    joint_transforms: 4x4 per joint from the rest pose to the posed head (world = transform @ rest).
    Everything is differentiable, also at zero pose.
  """
  rest = _expressed(rig, shape, expression, offset)
  rotations = matrix_from_axis_angle(pose)
  feature = (rotations[1:] - jnp.eye(3, dtype=pose.dtype)).reshape(-1)
  vertices = rest + jnp.einsum("q,qvc->vc", feature, rig.pose_basis)
  transforms = _joint_transforms(rotations, rig.joint_regressor @ rest, rig.parents)
  blended = jnp.einsum("vj,jrc->vrc", rig.skinning, transforms[:, :3])
  vertices = jnp.einsum("vrc,vc->vr", blended[..., :3], vertices) + blended[..., 3]
  if eyelids is not None:
    closing = jnp.einsum("s,svc->vc", eyelids, rig.eyelid_basis)
    vertices = vertices + closing @ transforms[HEAD_JOINT, :3, :3].T
  return vertices, transforms


def landmarks(vertices: Float[Array, "*b v 3"], faces: jax.Array, embedding: LandmarkEmbedding) -> Float[Array, "*b l 3"]:
  """Landmarks on a posed head.

  Args:
    vertices: posed, metres.
    faces: [f, 3] of the rig.
    embedding: face and barycentric weights per landmark.

  Returns:
    Points in metres.
  """
  return barycentric_points(vertices, faces, embedding.face_indices, embedding.barycentric)


def _joint_transforms(rotations: Float[Array, "j 3 3"], rest: Float[Array, "j 3"], parents: tuple[int, ...]) -> Float[Array, "j 4 4"]:
  """Rest to posed, along the parents: G_j = G_parent [R_j | J_j - R_j J_j]."""
  translations = rest - jnp.einsum("jrc,jc->jr", rotations, rest)
  local = jnp.concatenate([rotations, translations[..., None]], axis=-1)
  bottom = jnp.broadcast_to(jnp.asarray([0, 0, 0, 1], rest.dtype), (rest.shape[0], 1, 4))
  local = jnp.concatenate([local, bottom], axis=-2)
  world: list[Array] = []
  for joint, parent in enumerate(parents):
    world.append(local[joint] if parent < 0 else world[parent] @ local[joint])
  return jnp.stack(world)
