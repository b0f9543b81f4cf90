"""Landmarks of a clip -> one identity, one focal length, and pose, expression, jaw, gaze and eyelids per frame.

Three steps: identity and focal length on a few key frames (frames eliminated, `solve.shared_step`), all frames by
vmapped small solves with identity fixed, then the whole clip at once with a penalty on acceleration
(`solve.banded_smooth`). Identity and focal length see training frames only.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from silky_jax.config import UserError
from silky_jax.math.precision import exact
from silky_jax.tracking import energy, solve
from silky_jax.tracking.energy import LandmarkRig, Observation, PriorConfig

Progress = Callable[[str, int, int], None]
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FitConfig:
  prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
  key_frames: int = 48
  rounds: int = 8  # of (key frames, then identity and focal)
  shared_steps: int = 3
  frame_steps: int = 5
  smooth_steps: int = 4
  robust: float = 2.0  # Cauchy scale, in standard deviations of a landmark
  focal_guess: float = 1.1  # times the longer side: a webcam's usual field of view of about 50 degrees
  face_width: float = 0.145  # metres, only for the first guess of the distance
  batch: int = 48  # also the number of key frames, which shares the compile; frames per vmapped solve: memory, not the result
  # Standard deviation of the acceleration, per frame^2: what is slower than this is signal, what is faster is noise.
  rotation_acceleration: float = 0.006  # rad
  translation_acceleration: tuple[float, float, float] = (0.0010, 0.0010, 0.0020)  # m; depth is seen worst
  expression_acceleration: float = 0.05
  jaw_acceleration: float = 0.02  # rad
  gaze_acceleration: float = 0.10  # rad: eyes jump
  eyelid_acceleration: float = 0.35  # lids close within two frames


@dataclasses.dataclass(frozen=True)
class Fit:
  """A tracked clip. Head rotation sits at the root, the neck is at rest (see `torso.split_neck`)."""

  x: Float[np.ndarray, "t p"]  # energy.py's layout
  shape: Float[np.ndarray, "k"]
  focal: float  # px of the video
  distance: float  # metres, camera to world origin
  key_frames: Int[np.ndarray, "_"]
  predicted: Float[np.ndarray, "t l 2"]  # px


def fit_clip(
  model: LandmarkRig,
  landmarks: Float[np.ndarray, "t l 2"],
  size: tuple[int, int],
  times: Float[np.ndarray, "t"],
  shots: Int[np.ndarray, "t"],
  training: Bool[np.ndarray, "t"],
  config: FitConfig | None = None,
  progress: Progress | None = None,
) -> Fit:
  """Fit a clip.

  Args:
    model: the rig cut down to its landmarks.
    landmarks: px of the video; NaN rows are frames without a face, and are interpolated by the smoothing.
    size: width and height of the video, px; the principal point is its centre.
    times: seconds.
    shots: counts cuts; nothing is smoothed across one.
    training: frames that identity and focal length may see.
    config: settings.
    progress: called with (what, done, total).

  Raises:
    UserError: fewer than 5 training frames show a face.
  """
  config = config or FitConfig()
  progress = progress or (lambda *_: None)
  found = np.isfinite(landmarks).all(axis=(1, 2))
  if (found & training).sum() < 5:
    raise UserError(f"a face was found in {found.sum()} frames, of which {(found & training).sum()} may be trained on: wanted at least 5")
  seen = observations(landmarks, found, size)
  log_focal = float(np.log(config.focal_guess * max(size)))
  distance = jnp.float32(np.exp(log_focal) * config.face_width / np.median(seen.face_width[found & training]))
  keys = _key_frames(landmarks, found & training, config.key_frames)
  k = model.rig.shape_basis.shape[-1]
  z = jnp.concatenate([jnp.zeros(k), jnp.asarray([log_focal])]).astype(jnp.float32)
  x_keys, z = _identity(model, z, seen, keys, distance, log_focal, config, progress)
  x = x_keys[_nearest(landmarks, found, keys)]
  x = _all_frames(model, x, z, seen, distance, config, progress)
  seen = robust_weights(model, x, z, seen, distance, config)
  x = _smooth(model, np.array(x), z, seen, distance, times, shots, found, config, progress)
  mean_z = float(x[found & training, 5].mean())
  x[:, 5] -= mean_z
  distance = float(distance) - mean_z
  predicted = predict(model, jnp.asarray(x), z, seen.centre, distance)
  return Fit(x, np.asarray(z[:-1]), float(jnp.exp(z[-1])), distance, keys, np.asarray(predicted))


def observations(landmarks: Float[np.ndarray, "t l 2"], found: Bool[np.ndarray, "t"], size: tuple[int, int]) -> Observation:
  from silky_jax.tracking.landmarks import FACE_SIDES

  filled = np.where(found[:, None, None], landmarks, 0.0).astype(np.float32)
  width = np.linalg.norm(filled[:, FACE_SIDES[0]] - filled[:, FACE_SIDES[1]], axis=-1)
  width = np.where(found, width, np.median(width[found]))
  weights = np.broadcast_to(found[:, None], filled.shape[:2]).astype(np.float32)
  centre = np.broadcast_to(np.asarray(size, np.float32) / 2, (len(filled), 2))
  return Observation(jnp.asarray(filled), jnp.asarray(weights), jnp.asarray(width, jnp.float32), jnp.asarray(centre))


def _key_frames(landmarks: Float[np.ndarray, "t l 2"], allowed: Bool[np.ndarray, "t"], count: int) -> Int[np.ndarray, "_"]:
  """Farthest-point sampling of the landmark vectors: poses, distances and expressions that differ most."""
  candidates = np.flatnonzero(allowed)
  features = landmarks[candidates].reshape(len(candidates), -1)
  chosen = [int(np.argmin(np.linalg.norm(features - features.mean(axis=0), axis=1)))]
  gap = np.linalg.norm(features - features[chosen[0]], axis=1)
  while len(chosen) < min(count, len(candidates)):
    chosen.append(int(np.argmax(gap)))
    gap = np.minimum(gap, np.linalg.norm(features - features[chosen[-1]], axis=1))
  return np.sort(candidates[chosen])


def pick(seen: Observation, indices) -> Observation:
  return jax.tree.map(lambda a: a[indices], seen)


def frame_residual(model: LandmarkRig, x, z, seen: Observation, distance, prior: PriorConfig):
  return jnp.concatenate([energy.landmark_residuals(model, x, z, seen, distance, prior), energy.frame_priors(x, model.look, prior)])


@functools.partial(jax.jit, static_argnames=("prior", "steps", "pose_only"))
@exact
def _solve_frames(model, x, z, seen, distance, *, prior: PriorConfig, steps: int, pose_only: bool):
  """Every frame of a batch on its own; `pose_only` moves rotation and translation alone."""

  def one(x_t, seen_t):
    if not pose_only:
      return solve.levenberg_marquardt(lambda y: frame_residual(model, y, z, seen_t, distance, prior), x_t, steps=steps)[0]
    head = lambda six: energy.landmark_residuals(model, x_t.at[:6].set(six), z, seen_t, distance, prior)
    return x_t.at[:6].set(solve.levenberg_marquardt(head, x_t[:6], steps=steps)[0])

  return jax.vmap(one)(x, seen)


@functools.partial(jax.jit, static_argnames=("prior", "frames_weight"))
@exact
def _shared(model, x, z, seen, distance, log_focal, damping, *, prior: PriorConfig, frames_weight: float):
  def frame(x_t, z, t):
    seen_t = jax.tree.map(lambda a: a[t], seen)
    full = lambda pair: frame_residual(model, pair[0], pair[1], seen_t, distance, prior)
    jx, jz = jax.jacfwd(full)((x_t, z))
    return full((x_t, z)), jx, jz

  return solve.shared_step(frame, lambda z: energy.shared_priors(z, log_focal, prior), x, z, damping, frames_weight)


def _identity(model, z, seen, keys, distance, log_focal, config: FitConfig, progress: Progress):
  """Alternate the key frames' own unknowns with what they share."""
  key_seen = pick(seen, keys)
  x = jnp.zeros((len(keys), energy.FIXED + model.rig.expression_basis.shape[-1]), jnp.float32)
  x = _solve_frames(model, x, z, key_seen, distance, prior=config.prior, steps=15, pose_only=True)
  weight = min(1.0, config.prior.frames_independent / len(keys))
  for round_ in range(config.rounds):
    x = _solve_frames(model, x, z, key_seen, distance, prior=config.prior, steps=config.frame_steps, pose_only=False)
    for _ in range(config.shared_steps):
      x, z = _shared(model, x, z, key_seen, distance, log_focal, 1e-4, prior=config.prior, frames_weight=weight)
    if round_ == config.rounds // 2:
      key_seen = robust_weights(model, x, z, key_seen, distance, config)
    progress("identity", round_ + 1, config.rounds)
  if not bool(jnp.isfinite(z).all()):
    raise UserError("the identity fit diverged: the landmarks do not look like one face. Check the video.")
  return x, z


def _nearest(landmarks: Float[np.ndarray, "t l 2"], found: Bool[np.ndarray, "t"], keys: Int[np.ndarray, "_"]) -> Int[np.ndarray, "t"]:
  """For every frame the key frame whose landmarks are nearest; the first where no face was found."""
  features = np.where(found[:, None], landmarks.reshape(len(landmarks), -1), 0.0)
  return np.array([int(np.argmin(np.linalg.norm(features[keys] - row, axis=1))) for row in features])


def _all_frames(model, x, z, seen, distance, config: FitConfig, progress: Progress):
  """Every frame on its own, in batches of one size (one compile)."""
  count = x.shape[0]
  out = []
  for start in range(0, count, config.batch):
    index = np.minimum(np.arange(start, start + config.batch), count - 1)
    x_b, seen_b = x[index], pick(seen, index)
    x_b = _solve_frames(model, x_b, z, seen_b, distance, prior=config.prior, steps=5, pose_only=True)
    x_b = _solve_frames(model, x_b, z, seen_b, distance, prior=config.prior, steps=config.frame_steps, pose_only=False)
    out.append(x_b[: min(config.batch, count - start)])
    progress("frames", min(start + config.batch, count), count)
  return jnp.concatenate(out)


@jax.jit
@exact
def predict(model, x, z, centre, distance):
  one = lambda x_t, c: energy.project(energy.landmark_points(model, x_t, z[:-1]), jnp.exp(z[-1]), distance, c)
  return jax.lax.map(lambda pair: one(*pair), (x, centre), batch_size=32)


def robust_weights(model, x, z, seen: Observation, distance, config: FitConfig) -> Observation:
  """Cauchy weights 1 / (1 + (r / c)^2) from the distances at x."""
  found = predict(model, x, z, seen.centre, distance)
  r = jnp.linalg.norm(found - seen.landmarks, axis=-1) / (config.prior.landmark * seen.face_width[:, None])
  return seen.replace(weights=jnp.where(seen.weights > 0, 1.0 / (1.0 + (r / config.robust) ** 2), 0.0))


@functools.partial(jax.jit, static_argnames=("prior",))
@exact
def _quadratics(model, x, z, seen, distance, *, prior: PriorConfig):
  def one(x_t, seen_t):
    residual = lambda y: frame_residual(model, y, z, seen_t, distance, prior)
    j = jax.jacfwd(residual)(x_t)
    return j.T @ j, j.T @ residual(x_t)

  return jax.lax.map(lambda pair: one(*pair), (x, seen), batch_size=16)


def _smooth(model, x, z, seen, distance, times, shots, found, config: FitConfig, progress: Progress) -> Float[np.ndarray, "t p"]:
  """All frames at once under the penalty on acceleration."""
  x = _interpolate(x, found)
  quadratics = lambda x: _quadratics(model, jnp.asarray(x, jnp.float32), z, seen, distance, prior=config.prior)
  for step in range(config.smooth_steps):
    x = smooth_step(x, quadratics, times, shots, config)
    progress("smoothing", step + 1, config.smooth_steps)
  return x


def smooth_step(x, quadratics: Callable, times, shots, config: FitConfig) -> Float[np.ndarray, "t p"]:
  """One Gauss-Newton step on the whole clip; `quadratics(x)` gives every frame's own normal matrix and gradient."""
  frame_time = np.median(np.diff(times)) if len(times) > 1 else 1.0
  clock = times / max(float(frame_time), 1e-6)
  joined = np.concatenate([[0.0], (np.diff(shots) == 0).astype(float)])
  normals, gradients = quadratics(x)
  moved = solve.banded_smooth(
    np.asarray(normals), np.asarray(gradients), x.astype(np.float64), clock, joined, _stiffness(x.shape[1], config)
  )
  return moved.astype(np.float32)


def _stiffness(count: int, config: FitConfig) -> Float[np.ndarray, "p"]:
  sigma = np.full(count, config.expression_acceleration)
  sigma[energy.ROTATION] = config.rotation_acceleration
  sigma[energy.TRANSLATION] = config.translation_acceleration
  sigma[energy.JAW] = config.jaw_acceleration
  sigma[energy.GAZE] = config.gaze_acceleration
  sigma[energy.EYELIDS] = config.eyelid_acceleration
  return 1.0 / sigma**2


def _interpolate(x: Float[np.ndarray, "t p"], found: Bool[np.ndarray, "t"]) -> Float[np.ndarray, "t p"]:
  """Start values of unseen frames from their seen neighbours."""
  if found.all():
    return x
  index = np.arange(len(x))
  return np.stack([np.interp(index, index[found], column[found]) for column in x.T], axis=1).astype(x.dtype)
