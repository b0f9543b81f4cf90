"""A fit beside the truth of the studio: how far off are pose, camera, expression and identity?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from silky_jax.config import UserError
from silky_jax.flame import open_head
from silky_jax.flame.model import HEAD_JOINT, flame_vertices
from silky_jax.flame.model import landmarks as rig_landmarks
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.tracking import energy, landmarks
from silky_jax.tracking.fit import Fit
from silky_jax.types import Camera, FlameRig

__all__ = ["Known", "against", "compare", "frame_errors", "known_face", "rotation_errors"]

_MOVED = 0.05  # coefficients: less than that in standard deviation is no movement to follow
_LOOKS_BACK = np.diag([1.0, -1.0, -1.0])  # from OpenCV's camera axes to those of a camera that looks along -z, which trackers turn heads in


class Known(NamedTuple):
  """What really was in front of the camera."""

  rotation: Float[np.ndarray, "t 3 3"]  # of the skull, in the axes of a camera that looks along -z
  depth: Float[np.ndarray, "t"]  # mean of the landmarks before the camera, metres
  focal: float  # px
  expression: Float[np.ndarray, "t e"]
  face: Float[np.ndarray, "t l 3"]  # landmarks as expression, jaw and lids moved them, the head still, metres
  neutral: Float[np.ndarray, "l 3"]  # landmarks of the neutral face, metres
  name: str = ""  # of the truth, for caches and pages


def known_face(
  rig: FlameRig,
  parameters: dict[str, Float[np.ndarray, "..."]],
  camera: Camera,
  name: str = "",
) -> Known:
  """The truth of a clip from its parameters.

  Args:
    rig: the head.
    parameters: "shape", "offset", and per frame "expression", "pose", "eyelids", "translation".
    camera: one per frame [t], of the video that is tracked.
    name: of the truth.
  """
  embedding = open_head.load()[1]
  shape, offset = (jnp.asarray(parameters[key], jnp.float32) for key in ("shape", "offset"))

  @jax.jit
  def pose_all(expression, pose, eyelids):
    def one(e, p, l):
      vertices, joints = flame_vertices(rig, shape, e, p, eyelids=l, offset=offset)
      calm, _ = flame_vertices(rig, shape, e, p.at[:2].set(0.0), eyelids=l, offset=offset)
      return *(rig_landmarks(x, rig.faces, embedding) for x in (vertices, calm)), joints[HEAD_JOINT, :3, :3]

    return jax.lax.map(lambda x: one(*x), (expression, pose, eyelids))

  moving = (jnp.asarray(parameters[key], jnp.float32) for key in ("expression", "pose", "eyelids"))
  points, face, heads = (np.asarray(x) for x in pose_all(*moving))
  view = np.asarray(camera.world_to_camera)
  seen = np.einsum("trc,tlc->tlr", view[:, :3, :3], points + parameters["translation"][:, None]) + view[:, None, :3, 3]
  neutral, _ = flame_vertices(rig, shape, jnp.zeros(rig.expression_basis.shape[-1]), jnp.zeros((5, 3)), offset=offset)
  return Known(
    rotation=_LOOKS_BACK @ view[:, :3, :3] @ heads,
    depth=seen[..., 2].mean(axis=1),
    focal=float(np.asarray(camera.intrinsics)[0, 0, 0]),
    expression=np.asarray(parameters["expression"]),
    face=face,
    neutral=np.asarray(rig_landmarks(neutral, rig.faces, embedding)),
    name=name,
  )


def rotation_errors(a: Float[np.ndarray, "t 3 3"], b: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t"]:
  """Angle between rotations, degrees; exact also near zero, where the trace's arccos is not."""
  d = np.swapaxes(np.asarray(a, np.float64), -1, -2) @ np.asarray(b, np.float64)
  skew = np.stack([d[:, 2, 1] - d[:, 1, 2], d[:, 0, 2] - d[:, 2, 0], d[:, 1, 0] - d[:, 0, 1]], axis=-1)
  return np.degrees(np.arctan2(np.linalg.norm(skew, axis=-1) / 2, (np.trace(d, axis1=1, axis2=2) - 1) / 2))


def frame_errors(fit: Fit, model: energy.LandmarkRig, known: Known) -> dict[str, Float[np.ndarray, "t"]]:
  """Errors frame by frame.

  Args:
    fit: what the tracker found.
    model: the rig cut down to its landmarks, as the fit saw it.
    known: the truth.

  Returns:
    "rotation_degrees": angle between found and true head rotation. "rotation_steady_degrees": the same after the one turn in the head
    that serves all frames best; landmark models agree on where the front of a face is to a few degrees only. "distance_relative": of
    distance over focal length, up to the one factor that a single camera cannot know. "face_mm": mean over landmarks of how far what
    expression, jaw and lids do to them is off, each landmark about its own mean over time.
  """
  found = np.asarray(matrix_from_axis_angle(jnp.asarray(fit.x[:, energy.ROTATION])))
  where = jax.jit(jax.vmap(energy.landmark_points, in_axes=(None, 0, None)))
  points = np.asarray(where(model, jnp.asarray(fit.x), jnp.asarray(fit.shape)))
  ratio = ((fit.distance - points[..., 2].mean(axis=1)) / fit.focal) / (known.depth / known.focal)
  moved = _moved(fit, model)
  off = (moved - moved.mean(axis=0)) - (known.face - known.face.mean(axis=0))
  between = np.swapaxes(found, 1, 2) @ known.rotation
  return {
    "rotation_degrees": rotation_errors(found, known.rotation),
    "rotation_steady_degrees": rotation_errors(found @ _nearest_rotation(between.mean(axis=0)), known.rotation),
    "distance_relative": ratio / ratio.mean() - 1,
    "face_mm": 1e3 * np.linalg.norm(off, axis=-1).mean(axis=1),
  }


def compare(fit: Fit, model: energy.LandmarkRig, known: Known) -> dict[str, Any]:
  """Errors of a fit as a whole.

  Args:
    fit: what the tracker found.
    model: the rig cut down to its landmarks, as the fit saw it.
    known: the truth.

  Returns:
    Means over frames of `frame_errors`, "rotation_degrees_p95", "focal_relative", "distance_over_focal_relative",
    "expression_correlation" (mean over coefficients that moved), "expression_worst" (name and value),
    "expression_pooled_correlation" (of all coefficients at once, each about its own mean), "expression_motion_correlation" (of what
    expression, jaw and lids do to the landmarks of this face, head still), "identity_mm" (mean over landmarks after similarity
    alignment), "identity_mm_worst".
  """
  rig, embedding, _ = open_head.load()
  series = frame_errors(fit, model, known)
  found = fit.x[:, energy.EXPRESSION]
  moving = [k for k in range(len(rig.expression_names)) if known.expression[:, k].std() > _MOVED]
  correlations = {
    rig.expression_names[k]: float(np.corrcoef(known.expression[:, k], found[:, k])[0, 1]) if found[:, k].std() > 1e-6 else 0.0
    for k in moving
  }
  worst = min(correlations, key=correlations.__getitem__) if correlations else ""
  zero = jnp.zeros(rig.expression_basis.shape[-1])
  head, _ = flame_vertices(rig, jnp.asarray(fit.shape), zero, jnp.zeros((5, 3)))
  off = np.linalg.norm(_aligned(np.asarray(rig_landmarks(head, rig.faces, embedding)), known.neutral) - known.neutral, axis=1) * 1e3
  return {
    "rotation_degrees": float(series["rotation_degrees"].mean()),
    "rotation_degrees_p95": float(np.percentile(series["rotation_degrees"], 95)),
    "rotation_steady_degrees": float(series["rotation_steady_degrees"].mean()),
    "focal_relative": float(fit.focal / known.focal - 1),
    "distance_over_focal_relative": float(np.abs(series["distance_relative"]).mean()),
    "expression_correlation": float(np.mean(list(correlations.values()))) if correlations else float("nan"),
    "expression_pooled_correlation": _correlation(known.expression, found),
    "expression_motion_correlation": _correlation(known.face, _moved(fit, model)),
    "expression_motion_error_mm": float(series["face_mm"].mean()),
    "expression_worst": f"{worst} {correlations.get(worst, 0):.3f}",
    "expression_correlations": {name: round(value, 3) for name, value in correlations.items()},
    "identity_mm": float(off.mean()),
    "identity_mm_worst": float(off.max()),
  }


def against(fit: Fit, known: Known) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "t"]]]:
  """`compare` and `frame_errors` of a fit of the open head.

  Raises:
    UserError: the truth has another number of frames.
  """
  if len(fit.x) != len(known.rotation):
    raise UserError(f"the truth {known.name}: wanted as many frames as the video has, {len(fit.x)}, found {len(known.rotation)}")
  rig, embedding, _ = open_head.load()
  model = energy.landmark_rig(rig, embedding, landmarks.weights())
  return compare(fit, model, known), frame_errors(fit, model, known)


def _moved(fit: Fit, model: energy.LandmarkRig) -> Float[np.ndarray, "t l 3"]:
  """Landmarks of the found face with the head still."""
  still = jnp.asarray(fit.x).at[:, energy.ROTATION].set(0.0).at[:, energy.TRANSLATION].set(0.0)
  return np.asarray(jax.jit(jax.vmap(energy.landmark_points, in_axes=(None, 0, None)))(model, still, jnp.asarray(fit.shape)))


def _nearest_rotation(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
  u, _, vt = np.linalg.svd(matrix)
  return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def _correlation(a: Float[np.ndarray, "t *c"], b: Float[np.ndarray, "t *c"]) -> float:
  """Of all entries at once, each about its own mean over time."""
  return float(np.corrcoef((a - a.mean(axis=0)).ravel(), (b - b.mean(axis=0)).ravel())[0, 1])


def _aligned(points: Float[np.ndarray, "l 3"], target: Float[np.ndarray, "l 3"]) -> Float[np.ndarray, "l 3"]:
  """Points moved, turned and scaled onto a target (Umeyama 1991)."""
  a, b = points - points.mean(axis=0), target - target.mean(axis=0)
  u, s, vt = np.linalg.svd(b.T @ a)
  sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
  turn = u @ np.diag(sign) @ vt
  scale = (s * sign).sum() / (a * a).sum()
  return scale * a @ turn.T + target.mean(axis=0)
