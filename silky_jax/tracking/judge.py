"""A fit beside the truth of the studio: how far off are pose, camera, expression and identity?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.model import landmarks as rig_landmarks
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.tracking import energy
from silky_jax.tracking.fit import Fit

__all__ = ["compare", "rotation_errors"]

_MOVED = 0.05  # coefficients: less than that in standard deviation is no movement to follow


def rotation_errors(a: Float[np.ndarray, "t 3 3"], b: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t"]:
  """Angle between rotations, degrees; exact also near zero, where the trace's arccos is not."""
  difference = np.swapaxes(np.asarray(a, np.float64), -1, -2) @ np.asarray(b, np.float64)
  d = difference
  skew = np.stack([d[:, 2, 1] - d[:, 1, 2], d[:, 0, 2] - d[:, 2, 0], d[:, 1, 0] - d[:, 0, 1]], axis=-1)
  return np.degrees(np.arctan2(np.linalg.norm(skew, axis=-1) / 2, (np.trace(difference, axis1=1, axis2=2) - 1) / 2))


def compare(
  fit: Fit,
  model: energy.LandmarkRig,
  *,
  rotation: Float[np.ndarray, "t 3 3"],
  depth: Float[np.ndarray, "t"],
  focal: float,
  expression: Float[np.ndarray, "t e"],
  face: Float[np.ndarray, "t l 3"],
  neutral: Float[np.ndarray, "l 3"],
) -> dict[str, Any]:
  """Errors of a fit.

  Args:
    fit: what the tracker found.
    model: the rig cut down to its landmarks, as the fit saw it.
    rotation: the skull's true rotation, in the axes of a camera that looks along -z.
    depth: true mean depth of the landmarks before the camera, metres.
    focal: true focal length, px.
    expression: true coefficients.
    face: true landmarks with the head still, as expression, jaw and lids moved them, metres.
    neutral: true landmarks of the neutral face, metres.

  Returns:
    "rotation_degrees" (mean over frames of the angle between found and true head rotation), "rotation_degrees_p95",
    "focal_relative", "distance_over_focal_relative" (mean over frames, up to the factor that one camera cannot know),
    "scale_relative" (that factor, less one), "expression_correlation" (mean over coefficients that moved), "expression_worst"
    (name and value), "expression_pooled_correlation" (of all coefficients at once, each about its own mean),
    "expression_motion_correlation" (of what expression, jaw and lids do to the landmarks of this face, head still), "identity_mm"
    (mean over landmarks after similarity alignment), "identity_mm_worst".
  """
  rig, embedding, _ = open_head.load()
  found = np.asarray(matrix_from_axis_angle(jnp.asarray(fit.x[:, energy.ROTATION])))
  angles = rotation_errors(found, rotation)
  where = jax.jit(jax.vmap(energy.landmark_points, in_axes=(None, 0, None)))
  ratio = ((fit.distance - np.asarray(where(model, jnp.asarray(fit.x), jnp.asarray(fit.shape)))[..., 2].mean(axis=1)) / fit.focal) / (
    depth / focal
  )
  correlations = {}
  for k, name in enumerate(rig.expression_names):
    truth = expression[:, k]
    if truth.std() > _MOVED:
      guess = fit.x[:, energy.EXPRESSION][:, k]
      correlations[name] = float(np.corrcoef(truth, guess)[0, 1]) if guess.std() > 1e-6 else 0.0
  worst = min(correlations, key=correlations.__getitem__) if correlations else ""
  still = jnp.asarray(fit.x).at[:, energy.ROTATION].set(0.0).at[:, energy.TRANSLATION].set(0.0)
  moved = np.asarray(where(model, still, jnp.asarray(fit.shape)))
  zero = jnp.zeros(rig.expression_basis.shape[-1])
  head, _ = flame_vertices(rig, jnp.asarray(fit.shape), zero, jnp.zeros((5, 3)))
  off = np.linalg.norm(_aligned(np.asarray(rig_landmarks(head, rig.faces, embedding)), neutral) - neutral, axis=1) * 1e3
  return {
    "rotation_degrees": float(angles.mean()),
    "rotation_degrees_p95": float(np.percentile(angles, 95)),
    "focal_relative": float(fit.focal / focal - 1),
    "distance_over_focal_relative": float(np.abs(ratio / ratio.mean() - 1).mean()),
    "scale_relative": float(ratio.mean() - 1),
    "expression_correlation": float(np.mean(list(correlations.values()))) if correlations else float("nan"),
    "expression_pooled_correlation": _correlation(expression, fit.x[:, energy.EXPRESSION]),
    "expression_motion_correlation": _correlation(face, moved),
    "expression_worst": f"{worst} {correlations.get(worst, 0):.3f}",
    "expression_correlations": {name: round(value, 3) for name, value in correlations.items()},
    "identity_mm": float(off.mean()),
    "identity_mm_worst": float(off.max()),
  }


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
