"""The physics term of a clip: Gaussians compared with where inertia puts them.

Three modes. "anchor": what the model adds to the mesh, mu - x in the surface's carried axes, moves by inertia; the mesh is known input,
so blinks and plosives cost nothing. "absolute": the Gaussians' own motion in the head's axes does, which also calms the tracked parameters
where those are learnt; there inertia counts less where the surface itself jerks. "world": the same in the world's axes, head and all.

Two sides. "past": each frame is predicted from frames before it, as a live driver could. "both": from the frame before and the frame
after, for training offline: a tenth of the noise gain, and windows of three frames.
"""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from silky_jax.math.rotation import matrix_from_quaternion
from silky_jax.math.spd import congruence
from silky_jax.math.symmetric3 import product
from silky_jax.physics import consistency, kinematics
from silky_jax.physics.transport import (
  LONGEST,
  between_covariances,
  deformation,
  history_of,
  predict_covariances,
  regular,
  transport_covariances,
)

__all__ = ["Motion", "PhysicsConfig", "PhysicsResult", "physics_term"]

_MM = 1e3  # per metre: the one place where this room's millimetres are made
_LEAST_LOG_DEVIATION = math.log(0.05e-3)  # metres: below it the blur is all there is
# Of one Gaussian's axes: a covariance's condition stays below 10^6, eight roundings of float32. A model's 0.05 to 20 mm are far inside.
_LARGEST_LOG_RATIO = math.log(1e3)


@dataclasses.dataclass(frozen=True)
class PhysicsConfig:
  """Settings of the term."""

  mode: Literal["anchor", "absolute", "world"] = "anchor"
  sided: Literal["past", "both"] = "past"  # predicted from frames before; or, offline, between the neighbours in time
  order: int = 2  # of the prediction of means from the past: 1 keeps the velocity, 2 the acceleration too
  damping: float = 1.0  # of predictions from the past, not of the mesh's; 0 predicts that all stands still
  # Of covariances. "mesh" carries them with the triangles; the others know no surface. Of "both" sides the name picks the metric only.
  predictor: Literal["mesh", "airm1", "airm2", "logeuclid2", "bures1"] = "airm2"
  measure: Literal["hellinger", "bhattacharyya", "airm", "w2"] = "hellinger"
  blur_gain: float = 1.0  # blur in units of a region's root mean square residual
  blur_memory: float = 0.9  # of the residuals' running mean over steps; 0 is this step's alone
  least_blur: float = 0.5  # mm
  jerk_scale: float = 1.0  # modes "absolute" and "world": mm that the same prediction may miss on the surface (per frame^3 at order 2)
  sample: int = 1024  # Gaussians that the family takes per step, others in the next; 0 takes all

  @property
  def frames(self) -> int:
    """The least length of a window: the frame that is predicted and all that its prediction looks at."""
    if self.sided == "both":
      return 3
    # Where a triangle fails it, "mesh" wants what airm1 wants: no more than the means do.
    return 1 + max(self.order + 1, history_of(self.predictor))

  @property
  def history(self) -> int:
    """How many frames a prediction looks at, all of them before it or, two-sided, one after it."""
    return self.frames - 1


class Motion(NamedTuple):
  """What the term looks at: a clip of Gaussians. Metres, seconds. In mode "world" read the world's axes for the head's."""

  times: Float[Array, "b t"]
  valid: Bool[Array, "b t"]
  shots: Int[Array, "b t"]
  residuals: Float[Array, "b t n 3"]  # mu - x in the surface's axes
  anchors: Float[Array, "b t n 3"]  # x in the head's axes
  carried: Float[Array, "b t n 4"]  # the surface's axes, as rotations of the head's
  quaternions: Float[Array, "b t n 4"]  # axes of the covariances, as rotations of the surface's
  log_deviations: Float[Array, "b t n 3"]  # log m
  opacities: Float[Array, "b t n"]
  groups: Int[Array, "n"]
  edges: Float[Array, "b t n 3 3"] | None = (
    None  # of "mesh": columns [e1 e2 n] of the triangle: edges, m, and unit normal, in the head's axes
  )


class PhysicsResult(NamedTuple):
  """The term, and what the next step's wants to know."""

  value: Float[Array, ""]
  rms: Float[Array, "g"]  # mm: running root mean square residual of each group, a constant


class _State(NamedTuple):
  """What moves by inertia, per frame; mm."""

  means: Array
  anchors: Array
  covariances: Array


class _Expected(NamedTuple):
  """The predictable frames, and what inertia expects of them."""

  at: slice
  usable: Bool[Array, "b u"]
  state: _State


def physics_term(motion: Motion, config: PhysicsConfig, group_count: int, rms: Float[Array, "g"] | None = None) -> PhysicsResult:
  """Mean adaptive distance between Gaussians and their predictions, over a clip.

  Equation: sum of w_ik d(N_ik, predicted N_ik) / sum of w_ik over predictable frames k and Gaussians i, w the opacity (and, absolute, the
  trust in inertia of `consistency.jerk_weights`). Both are blurred by max(least_blur, blur_gain m), m the running residual of the group,
  this step's included.

  Args:
    motion: a clip. Deviations below 0.05 mm, or below a thousandth of their Gaussian's largest, count as that much, without a gradient.
    config: settings.
    group_count: of `motion.groups`.
    rms: mm, what the step before returned; None, or 0 for a group, where there is nothing yet.

  Returns:
    value: 0 to 1 for "hellinger"; 0 where no frame of the clip can be predicted. Differentiable once.
    rms: for the next step; of a group without a predictable frame what it was. No gradient.

  Raises:
    ValueError: predictor "mesh" without `motion.edges`.
  """
  if config.predictor == "mesh" and motion.edges is None:
    raise ValueError("motion.edges: predictor 'mesh' wants [b, t, n, 3, 3], the columns [e1 e2 n] of each Gaussian's triangle; got None")
  before = jnp.zeros(group_count, motion.residuals.dtype) if rms is None else lax.stop_gradient(rms)
  if motion.times.shape[-1] < config.frames:
    return PhysicsResult(jnp.zeros(()), before)
  state = _state(motion, config.mode)
  at, fine, expected = (_between if config.sided == "both" else _ahead)(motion, state, config)
  now = _State(*(x[:, at] for x in state))

  weights = lax.stop_gradient(motion.opacities[:, at]) * fine[..., None]
  if config.mode != "anchor":
    weights = weights * consistency.jerk_weights(now.anchors - expected.anchors, scale=config.jerk_scale)
  residual = jnp.where(fine[..., None, None], now.means - expected.means, 0)
  counted = jnp.broadcast_to(fine[..., None], weights.shape).astype(residual.dtype)
  running = consistency.running_rms(before, residual, counted, motion.groups, memory=config.blur_memory)
  blur = consistency.blur_of(running, motion.groups, gain=config.blur_gain, least=config.least_blur)
  # What is not predictable is compared with itself: finite, and of weight 0.
  means = jnp.where(fine[..., None, None], expected.means, now.means)
  covariances = jnp.where(fine[..., None, None, None], expected.covariances, now.covariances)
  distance = consistency.adaptive_distance(now.means, now.covariances, means, covariances, blur, measure=config.measure)
  return PhysicsResult(consistency.mean_over(distance, weights), running)


def _state(motion: Motion, mode: str) -> _State:
  """Anchor: residuals, and covariances in the surface's axes. Absolute: both in the head's."""
  logs = motion.log_deviations
  least = jnp.maximum(lax.stop_gradient(jnp.max(logs, axis=-1, keepdims=True)) - _LARGEST_LOG_RATIO, _LEAST_LOG_DEVIATION)
  deviations = _MM * jnp.exp(jnp.maximum(logs, least))
  axes = matrix_from_quaternion(motion.quaternions) * deviations[..., None, :]
  covariances = congruence(axes, jnp.eye(3, dtype=axes.dtype))
  residuals, anchors = _MM * motion.residuals, _MM * motion.anchors
  if mode == "anchor":
    return _State(residuals, anchors, covariances)
  carried = matrix_from_quaternion(motion.carried)
  return _State(anchors + jnp.sum(carried * residuals[..., None, :], axis=-1), anchors, congruence(carried, covariances))


def _ahead(motion: Motion, state: _State, config: PhysicsConfig) -> _Expected:
  """From frames before."""
  length, history = motion.times.shape[-1], config.history
  count = length - history
  last = lambda x: x[:, -count:]  # predictions of a lower order begin earlier than both can be made
  means = last(kinematics.predict_means(state.means, motion.times, order=config.order, damping=config.damping))
  anchors = last(kinematics.predict_means(state.anchors, motion.times, order=config.order))
  by_past = "airm1" if config.predictor == "mesh" else config.predictor
  covariances = _by_past(state.covariances, motion.times, by_past, config.damping, count)
  if config.predictor == "mesh":
    now, older = slice(history, length), slice(history - 1, length - 1)
    moved, fine = _by_surface(motion, state, config.mode, older, now)
    covariances = jnp.where(fine, moved, covariances)
  fine = kinematics.usable(motion.times, motion.valid, motion.shots, order=history - 1)
  return _Expected(slice(history, length), fine, _State(means, anchors, covariances))


def _between(motion: Motion, state: _State, config: PhysicsConfig) -> _Expected:
  """From the frame before and the frame after."""
  length = motion.times.shape[-1]
  older, now, newer = slice(0, length - 2), slice(1, length - 1), slice(2, length)
  ends = state.covariances[:, older], state.covariances[:, newer]
  if config.predictor == "mesh":
    (first, fine), (second, also) = (_by_surface(motion, state, config.mode, end, now) for end in (older, newer))
    ends = jnp.where(fine & also, first, ends[0]), jnp.where(fine & also, second, ends[1])
  share = kinematics.share_of_way(motion.times)[..., None]
  covariances = between_covariances(*ends, share, predictor=config.predictor)
  means, anchors = (kinematics.between(x, motion.times) for x in (state.means, state.anchors))
  fine = kinematics.usable(motion.times, motion.valid, motion.shots, order=1)
  return _Expected(now, fine, _State(means, anchors, covariances))


def _by_surface(motion: Motion, state: _State, mode: str, source: slice, target: slice) -> tuple[Array, Array]:
  """Covariances of some frames, carried to others by the triangles; and whether those allow it, [b u n 1 1]."""
  assert motion.edges is not None
  before, after = motion.edges[:, source], motion.edges[:, target]
  motion_of_surface = deformation(after, before)
  if mode == "anchor":  # from the surface's carried axes then to those now
    then, now = (matrix_from_quaternion(motion.carried[:, frames]) for frames in (source, target))
    motion_of_surface = product(jnp.swapaxes(now, -1, -2), product(motion_of_surface, then))
  return transport_covariances(state.covariances[:, source], motion_of_surface), regular(after, before)[..., None, None]


def _by_past(covariances: Array, times: Array, predictor, damping: float, count: int) -> Array:
  frames, length = history_of(predictor), times.shape[-1]
  back = lambda x, k: x[:, length - count - k : length - k]
  gaps_open = [back(times, k)[..., None] for k in range(frames + 1)]
  # Where time stands still (padding), any step is as good: those frames have no weight.
  safe = [gaps_open[0]]
  for older in gaps_open[1:]:
    safe.append(jnp.where(safe[-1] - older > 1e-6, older, safe[-1] - 1.0))
  past = [back(covariances, k) for k in range(1, frames + 1)]
  return predict_covariances(past, safe, predictor=predictor, damping=damping, longest=LONGEST)
