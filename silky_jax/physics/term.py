"""The physics term of a clip: Gaussians compared with where inertia puts them.

Two modes. "anchor": what the model adds to the mesh, mu - x in the surface's carried axes, moves by inertia; the mesh is known input,
so blinks and plosives cost nothing. "absolute": the Gaussians' own motion in the head's axes does, which also calms the tracked parameters
where those are learnt; there inertia counts less where the surface itself jerks.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from silky_jax.math.rotation import matrix_from_quaternion
from silky_jax.math.spd import congruence
from silky_jax.physics import consistency, kinematics
from silky_jax.physics.transport import LONGEST, history_of, predict_covariances

__all__ = ["Motion", "PhysicsConfig", "PhysicsResult", "physics_term"]

_MM = 1e3  # per metre: the one place where this room's millimetres are made


@dataclasses.dataclass(frozen=True)
class PhysicsConfig:
  """Settings of the term."""

  mode: Literal["anchor", "absolute"] = "anchor"
  order: int = 2  # of the prediction of means: 1 keeps the velocity, 2 the acceleration too
  damping: float = 1.0  # of both predictions; 0 predicts that all stands still
  sided: Literal["past", "both"] = "past"  # predicted from frames before; or, offline, between the neighbours in time
  predictor: Literal["airm1", "airm2", "logeuclid2", "bures1"] = "airm2"  # of covariances
  measure: Literal["hellinger", "bhattacharyya", "airm", "w2"] = "hellinger"
  blur_gain: float = 1.0  # blur in units of a region's root mean square residual
  blur_memory: float = 0.9  # of the residuals' running mean over steps; 0 is this step's alone
  least_blur: float = 0.5  # mm
  jerk_scale: float = 1.0  # mm per frame^3, mode "absolute"
  sample: int = 2048  # Gaussians that the family takes per step, others in the next; 0 takes all

  @property
  def history(self) -> int:
    """Frames that a prediction looks back."""
    return max(self.order + 1, history_of(self.predictor))


class Motion(NamedTuple):
  """What the term looks at: a clip of Gaussians. Metres, seconds."""

  times: Float[Array, "b t"]
  valid: Bool[Array, "b t"]
  shots: Int[Array, "b t"]
  residuals: Float[Array, "b t n 3"]  # mu - x in the surface's axes
  anchors: Float[Array, "b t n 3"]  # x in the head's axes
  carried: Float[Array, "b t n 4"]  # the surface's axes, as rotations of the head's
  quaternions: Float[Array, "b t n 4"]  # axes of the covariances, as rotations of the surface's
  log_deviations: Float[Array, "b t n 3"]
  opacities: Float[Array, "b t n"]
  groups: Int[Array, "n"]


class PhysicsResult(NamedTuple):
  """The term, and what the next step's wants to know."""

  value: Float[Array, ""]
  rms: Float[Array, "g"]  # mm: running root mean square residual of each group, a constant


def physics_term(motion: Motion, config: PhysicsConfig, group_count: int, rms: Float[Array, "g"] | None = None) -> PhysicsResult:
  """Mean adaptive distance between Gaussians and their predictions, over a clip.

  Equation: sum of w_ik d(N_ik, predicted N_ik) / sum of w_ik over predictable frames k and Gaussians i, w the opacity (and, absolute, the
  trust in inertia of `consistency.jerk_weights`). Both are blurred by max(least_blur, blur_gain m), m the running residual of the group,
  this step's included.

  Args:
    motion: a clip.
    config: settings.
    group_count: of `motion.groups`.
    rms: mm, what the step before returned; None, or 0 for a group, where there is nothing yet.

  Returns:
    value: 0 to 1 for "hellinger"; 0 where no frame of the clip can be predicted. Differentiable once.
    rms: for the next step; of a group without a predictable frame what it was. No gradient.
  """
  if config.sided == "both":
    raise NotImplementedError("physics_term: sided='both' is not built yet; wanted 'past'")
  before = jnp.zeros(group_count, motion.residuals.dtype) if rms is None else lax.stop_gradient(rms)
  history = config.history
  count = motion.times.shape[-1] - history
  if count < 1:
    return PhysicsResult(jnp.zeros(()), before)
  means, anchors, covariances = _state(motion, config.mode)
  fine = kinematics.usable(motion.times, motion.valid, motion.shots, order=history - 1)
  last = lambda x: x[..., -count:, :, :]  # predictions of a lower order begin earlier than both can be made
  predicted = last(kinematics.predict_means(means, motion.times, order=config.order, damping=config.damping))
  ahead = _predicted_covariances(covariances, motion.times, config, count)
  now, spread = means[:, -count:], covariances[:, -count:]

  weights = lax.stop_gradient(motion.opacities[:, -count:]) * fine[..., None]
  if config.mode == "absolute":
    surface = last(kinematics.predict_means(anchors, motion.times, order=config.order))
    weights = weights * consistency.jerk_weights(anchors[:, -count:] - surface, scale=config.jerk_scale)
  residual = jnp.where(fine[..., None, None], now - predicted, 0)
  counted = jnp.broadcast_to(fine[..., None], weights.shape).astype(residual.dtype)
  running = consistency.running_rms(before, residual, counted, motion.groups, memory=config.blur_memory)
  blur = consistency.blur_of(running, motion.groups, gain=config.blur_gain, least=config.least_blur)
  # What is not predictable is compared with itself: finite, and of weight 0.
  predicted = jnp.where(fine[..., None, None], predicted, now)
  ahead = jnp.where(fine[..., None, None, None], ahead, spread)
  distance = consistency.adaptive_distance(now, spread, predicted, ahead, blur, measure=config.measure)
  return PhysicsResult(consistency.mean_over(distance, weights), running)


def _state(motion: Motion, mode: str) -> tuple[Array, Array, Array]:
  """What moves by inertia, the anchors, and the covariances in the same axes; mm."""
  axes = matrix_from_quaternion(motion.quaternions) * (_MM * jnp.exp(motion.log_deviations))[..., None, :]
  covariances = congruence(axes, jnp.eye(3, dtype=axes.dtype))
  residuals, anchors = _MM * motion.residuals, _MM * motion.anchors
  if mode == "anchor":
    return residuals, anchors, covariances
  carried = matrix_from_quaternion(motion.carried)
  return anchors + jnp.sum(carried * residuals[..., None, :], axis=-1), anchors, congruence(carried, covariances)


def _predicted_covariances(covariances: Array, times: Array, config: PhysicsConfig, count: int) -> Array:
  frames, length = history_of(config.predictor), times.shape[-1]
  back = lambda x, k: x[:, length - count - k : length - k]
  gaps_open = [back(times, k)[..., None] for k in range(frames + 1)]
  # Where time stands still (padding), any step is as good: those frames have no weight.
  safe = [gaps_open[0]]
  for older in gaps_open[1:]:
    safe.append(jnp.where(safe[-1] - older > 1e-6, older, safe[-1] - 1.0))
  past = [back(covariances, k) for k in range(1, frames + 1)]
  return predict_covariances(past, safe, predictor=config.predictor, damping=config.damping, longest=LONGEST)
