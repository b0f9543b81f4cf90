"""Learnable corrections of what a tracker said: per moment of pose and expression, per view of the camera. Shared by all families.

    p'(k) = p(k) + s * (u_k - mean_j u_j)      every driving parameter p of training moment k; s: its usual error, u: trained, starts at 0
    T'(v) = exp(s * w_v) T(v)                  world_to_camera of view v, in the camera's axes; f'(v) = f(v) exp(s * w_v)

Tracking errors of a training frame would otherwise be learnt as blur. Only training moments have a row: a held-out or a foreign frame is
driven by its tracked parameters alone. Corrections of pose and expression sum to zero over the training moments: what is off in all frames
alike belongs to the avatar, or to the camera, and so is there for held-out frames too. A view's camera is calibration: its correction,
learnt on training pictures, holds for every picture of that view. With one still camera, or one camera that moves, the pose says it all,
and `camera` adds nothing.

What holds them back is their mean square, u^2; or, with `inertia`, what the track itself says of how noisy and how inert each parameter d
is: with the likeliest noise r and process noise q of `physics.inertia`, d' corrected and d^ predicted from the two frames before,

    mean_k ((d'_k - d_k) / r)^2 + mean_k ((d'_k - d^'_k) / (q s_k^2))^2,   s_k^2 = (t_k - t_k-1) (t_k - t_k-2) / 2,

minus twice the log likelihood of a track under Kalman's model. It wants windows of three frames.

The head turns about a point inside itself, so that turning does not have to be learnt together with moving. After VHAP and GaussianAvatars
(Qian et al. 2024), which tune their tracked parameters likewise; the scales, the zero sum and the step's size are ours.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from silky_jax.config import ConfigError
from silky_jax.math.precision import exact
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.physics import kinematics
from silky_jax.physics.inertia import STILL, fit_inertia, stretches
from silky_jax.types import Frame, PyTree, Variables

__all__ = ["KEY", "CorrectionsConfig", "begin", "calibrate", "correct", "per_look_descent", "prior", "schedule"]

KEY = "corrections"
_MOMENT = {"head": 3, "translation": 3, "jaw": 3, "gaze": 2, "eyelids": 2}  # and "expression"
_FORGET = 0.99  # of a column's mean square gradient, per step
_LARGEST = 3.0  # times a column's usual gradient


@dataclasses.dataclass(frozen=True)
class CorrectionsConfig:
  """Settings. The sizes are what a tracker is usually off by; a correction is learnt and held back in these units."""

  enabled: bool = False
  camera: bool = False  # whether each view's camera is corrected too: for datasets of several cameras
  start: float = 0.1  # share of the run after which they are learnt: before, the avatar knows less than the tracker
  rate: tuple[float, float] = (0.3, 0.03)  # of a size, per look at a frame; right after the start, at the end
  prior: float = 1e-2  # weight in the loss of the mean square, in sizes
  inertia: bool = False  # whether the prior is what the track itself says of its noise and its inertia (`physics.inertia`)
  head: float = 0.5  # degrees
  translation: float = 0.002  # metres
  jaw: float = 1.0  # degrees
  gaze: float = 2.0  # degrees
  eyelids: float = 0.05
  expression: float = 0.03
  camera_rotation: float = 0.2  # degrees
  camera_translation: float = 0.002  # metres
  focal: float = 0.005  # relative
  pivot: tuple[float, float, float] = (0.0, 0.10, 0.0)  # metres, from the root joint: what stays where it is when the head is turned

  def sizes(self) -> dict[str, float]:
    """By parameter, in its unit: radians, metres, coefficients."""
    angles = {name: float(np.radians(getattr(self, name))) for name in ("head", "jaw", "gaze")}
    return {**angles, "translation": self.translation, "eyelids": self.eyelids, "expression": self.expression}


def begin(config: CorrectionsConfig, variables: Variables, drivers: Frame, train: Int[np.ndarray, "n"]) -> Variables:
  """Give an avatar corrections that change nothing yet.

  Args:
    config: settings.
    variables: from the family's init.
    drivers: all frames of the sequence, without pictures.
    train: positions of the training frames; only their moments get a row.

  Raises:
    ConfigError: a size that is not positive, or a start outside 0..1; `inertia` of too few frames in a row.
  """
  sizes = config.sizes()
  for name, size in {**sizes, "focal": config.focal, "camera_rotation": config.camera_rotation}.items():
    if size <= 0:
      raise ConfigError(f"corrections.{name}: expected a size above 0, got {size}")
  if not 0 <= config.start <= 1 or config.prior < 0:
    raise ConfigError(f"corrections: expected start in 0..1 and prior >= 0, got {config.start} and {config.prior}")
  moments = np.unique(np.asarray(drivers.timestep)[train])
  row = np.full(int(np.max(drivers.timestep)) + 1, -1, np.int32)
  row[moments] = np.arange(len(moments))
  widths = {**_MOMENT, "expression": np.shape(drivers.expression)[-1]}
  params = {name: jnp.zeros((len(moments), width), jnp.float32) for name, width in widths.items()}
  buffers = {
    "row": jnp.asarray(row),
    "pivot": jnp.asarray(config.pivot, jnp.float32),
    "size": {name: jnp.asarray(size, jnp.float32) for name, size in sizes.items()},
  }
  if config.inertia:
    buffers["inertia"] = _inertia(drivers, train)
  if config.camera:
    params["camera"] = jnp.zeros((int(np.max(drivers.view)) + 1, 7), jnp.float32)
    turn = np.radians(config.camera_rotation)
    buffers["size"]["camera"] = jnp.asarray([turn] * 3 + [config.camera_translation] * 3 + [config.focal], jnp.float32)
  return variables.replace(params={**variables.params, KEY: params}, buffers={**variables.buffers, KEY: buffers})


@exact
def correct(variables: Variables, frame: Frame) -> Frame:
  """Frames of the sequence the avatar is trained on, as they are learnt to have been: of training moments all, of others the camera.

  Args:
    variables: with or without corrections; without, the frame comes back as it is.
    frame: any batch.
  """
  if KEY not in variables.params:
    return frame
  params, buffers = variables.params[KEY], variables.buffers[KEY]
  row = buffers["row"].at[frame.timestep].get(mode="fill", fill_value=-1)

  def change(name: str) -> Float[Array, "*b d"]:
    centred = params[name] - jnp.mean(params[name], axis=0)
    return jnp.where((row >= 0)[..., None], centred[row], 0.0) * buffers["size"][name]

  eyes = jnp.pad(change("gaze"), [(0, 0)] * row.ndim + [(0, 1)])
  pose = jnp.asarray(frame.pose)
  turned = pose.at[..., 0, :].add(change("head")).at[..., 2, :].add(change("jaw")).at[..., 3:, :].add(eyes[..., None, :])
  stays = (matrix_from_axis_angle(pose[..., 0, :]) - matrix_from_axis_angle(turned[..., 0, :])) @ buffers["pivot"]
  lids = jnp.asarray(frame.eyelids)
  return calibrate(
    variables,
    frame.replace(
      pose=turned,
      translation=frame.translation + change("translation") + stays,
      expression=frame.expression + change("expression"),
      # Between open and closed, unless the tracker itself went beyond.
      eyelids=jnp.clip(lids + change("eyelids"), jnp.minimum(lids, 0.0), jnp.maximum(lids, 1.0)),
    ),
  )


@exact
def calibrate(variables: Variables, frame: Frame) -> Frame:
  """Frames of the sequence the avatar was trained on, held out or not, with the cameras that training found.

  Args:
    variables: with or without corrections.
    frame: any batch.
  """
  if "camera" not in variables.params.get(KEY, {}):
    return frame
  change = (variables.params[KEY]["camera"] * variables.buffers[KEY]["size"]["camera"])[frame.view]
  moved = jnp.zeros((*change.shape[:-1], 4, 4)).at[..., :3, :3].set(matrix_from_axis_angle(change[..., :3]))
  moved = moved.at[..., :3, 3].set(change[..., 3:6]).at[..., 3, 3].set(1.0)
  focal = jnp.ones((*change.shape[:-1], 3)).at[..., :2].set(jnp.exp(change[..., 6:]))
  diagonal = jnp.eye(3) * focal[..., None]
  intrinsics = jnp.asarray(frame.camera.intrinsics)
  camera = frame.camera.replace(
    world_to_camera=moved @ jnp.asarray(frame.camera.world_to_camera),
    intrinsics=jnp.where(jnp.eye(3, dtype=bool), intrinsics @ diagonal, intrinsics),
  )
  return frame.replace(camera=camera)


def prior(variables: Variables, frame: Frame, clip: Frame) -> Float[Array, ""]:
  """What holds corrections back; see the head of this file.

  Args:
    variables: with corrections.
    frame: those whose own numbers are looked at, and the cameras that took them.
    clip: [b, t] windows of successive frames as tracked, for `inertia`.
  """
  params, buffers = variables.params[KEY], variables.buffers[KEY]
  row = buffers["row"].at[frame.timestep].get(mode="fill", fill_value=-1).ravel()
  known = (row >= 0)[:, None]
  looked_at = {name: table if name == "camera" else jnp.where(known, table[row], 0.0) for name, table in params.items()}
  if "inertia" in buffers:
    looked_at = {name: table for name, table in looked_at.items() if name in ("camera", "gaze")}  # glances jump: they have no inertia
  held = jnp.mean(jnp.concatenate([part.ravel() for part in looked_at.values()]) ** 2)
  return held + _unlikely(variables, clip) if "inertia" in buffers else held


def _channels(frame: Frame) -> Float[Array, "*b c"]:
  """What inertia is asked of: skull's turn (of root and neck, for small angles), jaw, place, lids, expression."""
  pose = jnp.asarray(frame.pose)
  parts = (pose[..., 0, :] + pose[..., 1, :], pose[..., 2, :], frame.translation, frame.eyelids, frame.expression)
  return jnp.concatenate([jnp.asarray(part) for part in parts], axis=-1)


def _inertia(drivers: Frame, train: Int[np.ndarray, "n"]) -> dict[str, Array]:
  """Of each channel 1 / r and 1 / q; 0 of one that never moves."""
  _, first = np.unique(np.asarray(drivers.timestep)[train], return_index=True)
  pick = lambda x: np.asarray(x)[train][first]
  times, shots = pick(drivers.time).astype(np.float64), pick(drivers.shot)
  table = np.asarray(_channels(drivers), np.float64)[train][first]
  try:
    found = fit_inertia(table, times, stretches(times, shots), orders=(1,))
  except ValueError as error:
    raise ConfigError(f"corrections.inertia: {error}; train without it") from error
  moves = table.std(axis=0) > STILL
  over = lambda x: jnp.asarray(np.where(moves, 1 / np.where(moves, x, 1.0), 0.0), jnp.float32)
  return {"noise": over(found.noise), "jump": over(found.process_noise)}


@exact
def _unlikely(variables: Variables, clip: Frame) -> Float[Array, ""]:
  model = variables.buffers[KEY]["inertia"]
  tracked, now = _channels(clip), _channels(correct(variables, clip))
  seen = clip.valid.astype(now.dtype)
  off = jnp.sum(jnp.mean(((now - tracked) * model["noise"]) ** 2, axis=-1) * seen) / jnp.maximum(jnp.sum(seen), 1.0)
  if clip.time.shape[-1] < 3:
    raise ConfigError(f"corrections.inertia: wants windows of at least 3 frames (clips.length), got {clip.time.shape[-1]}")
  weights = kinematics.history_weights(clip.time, order=1)
  usable = kinematics.usable(clip.time, clip.valid, clip.shot, order=1).astype(now.dtype)
  missed = now[..., 2:, :] - kinematics.predict(now[..., None, :], weights)[..., 0, :]
  time = clip.time
  reach = 0.5 * (time[..., 2:] - time[..., 1:-1]) * (time[..., 2:] - time[..., :-2])
  missed = missed / jnp.where(usable > 0, reach, 1.0)[..., None]
  jumps = jnp.sum(jnp.mean((missed * model["jump"]) ** 2, axis=-1) * usable) / jnp.maximum(jnp.sum(usable), 1.0)
  return off + jumps


# ---- how they are learnt ---------------------------------------------------------------------------------------------------------


def per_look_descent(rate: optax.Schedule) -> optax.GradientTransformation:
  """Descent for tables of which a step sees one row: gradients over the usual size of their column's, without momentum.

  A short run looks at a frame five times. Adam would move its row by the rate whatever is wrong with it, and on for ten steps in which it
  is not looked at; here a frame that is further off
  than others moves further, and only when it is seen.

  Args:
    rate: of the step's number.
  """

  def init(params: PyTree) -> PyTree:
    return jnp.zeros((), jnp.int32), jax.tree.map(lambda table: jnp.zeros(table.shape[1:], jnp.float32), params)

  def update(gradients: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
    del params
    count, squares = state
    squares = jax.tree.map(lambda s, g: _FORGET * s + (1 - _FORGET) * jnp.sum(g * g, axis=0), squares, gradients)
    seen = 1 - _FORGET ** (count + 1).astype(jnp.float32)
    # A column without any gradient (a coefficient that moves nothing seen) stays where it is.
    usual = jax.tree.map(lambda s: jnp.sqrt(jnp.where(s > 0, s / seen, 1.0)), squares)
    steps = jax.tree.map(lambda g, u: jnp.negative(rate(count)) * jnp.clip(g / u, -_LARGEST, _LARGEST), gradients, usual)
    return steps, (count + 1, squares)

  return optax.GradientTransformation(init, update)


def schedule(config: CorrectionsConfig, *, steps: int) -> optax.Schedule:
  """The rate over a run: 0 until the start, then log-linear from the first to the last."""
  first, last = config.rate
  start = round(config.start * steps)
  falling = optax.exponential_decay(first, transition_steps=max(steps - start, 1), decay_rate=last / first, end_value=last)

  def rate(count: Any) -> Array:
    since = jnp.asarray(count) - start
    return jnp.where(since < 0, 0.0, falling(jnp.maximum(since, 0)))

  return rate
