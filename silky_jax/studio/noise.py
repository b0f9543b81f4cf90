"""Tracker-like errors on driving parameters: part of them white, part of them slow, and alike within a region of the face."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.types import Camera

__all__ = ["NoiseConfig", "disturb", "disturb_cameras"]

_GROUPS = ("brow", "eye", "cheek", "jaw", "mouth", "nose", "tongue")


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
  """Standard deviations at level 1, per frame; about what landmark trackers leave on webcam clips."""

  head: float = 0.6  # degrees, of the head's rotation about each axis
  jaw: float = 1.0  # degrees
  gaze: float = 2.0  # degrees
  translation: tuple[float, float, float] = (0.001, 0.001, 0.004)  # metres, across, up, towards the camera
  expression: float = 0.03  # coefficients
  eyelids: float = 0.05
  slow_share: float = 0.5  # of the variance that is correlated in time
  slow_seconds: float = 0.4  # after which the slow part forgets
  regional_share: float = 0.5  # of the expression's variance that a region's coefficients share
  # Of several cameras, each its own, the same in all frames: what calibration leaves. One camera has none: its errors are the head's.
  camera_rotation: float = 0.15  # degrees, about each of its axes
  camera_translation: float = 0.002  # metres, along each
  focal: float = 0.003  # relative


def disturb(
  parameters: dict[str, Float[np.ndarray, "t *_"]],
  names: tuple[str, ...],
  *,
  level: float,
  fps: float,
  seed: int,
  config: NoiseConfig | None = None,
) -> dict[str, Float[np.ndarray, "t *_"]]:
  """Parameters as a tracker would have found them.

  Args:
    parameters: "expression" [t, e], "pose" [t, 5, 3], "eyelids" [t, 2], "translation" [t, 3].
    names: of the expression's coefficients; their first word is their region.
    level: scales every deviation; 0 returns copies.
    fps: frames per second.
    seed: of the noise.
    config: deviations at level 1.

  Returns:
    The same keys, float32. Eyelids stay within 0..1.

  Raises:
    ValueError: a negative level.
  """
  if level < 0:
    raise ValueError(f"level: expected 0 or more, got {level}")
  config = config or NoiseConfig()
  rng = np.random.default_rng([seed, 2])
  frames = len(parameters["pose"])
  draw = lambda width: _correlated(frames, width, fps, rng, config)
  regions = [next((k for k, group in enumerate(_GROUPS) if name.startswith(group)), len(_GROUPS)) for name in names]
  shared, signs = draw(len(_GROUPS) + 1)[:, regions], rng.choice([-1.0, 1.0], len(names))
  own = draw(len(names))
  share = config.regional_share
  expression = config.expression * (np.sqrt(share) * signs * shared + np.sqrt(1 - share) * own)
  pose = np.zeros((frames, 5, 3))
  head = np.radians(config.head) * draw(3)
  pose[:, 0], pose[:, 1] = 0.4 * head, 0.6 * head
  pose[:, 2, 0] = np.radians(config.jaw) * draw(1)[:, 0]
  pose[:, 3:] = (np.radians(config.gaze) * draw(2) @ np.array([[1.0, 0, 0], [0, 1.0, 0]]))[:, None]
  change = {
    "expression": expression,
    "pose": pose,
    "eyelids": config.eyelids * draw(2),
    "translation": np.array(config.translation) * draw(3),
  }
  out = {key: (np.asarray(parameters[key]) + level * change[key]).astype(np.float32) for key in change}
  if level:
    out["eyelids"] = np.clip(out["eyelids"], 0.0, 1.0)
  return out


def disturb_cameras(cameras: Camera, *, level: float, seed: int, config: NoiseConfig | None = None) -> Camera:
  """Cameras as a calibration would have found them; a single one is left as it is.

  Args:
    cameras: views and frames [k, t].
    level: scales every deviation.
    seed: of the noise.
    config: deviations at level 1.
  """
  config, views = config or NoiseConfig(), np.shape(cameras.world_to_camera)[0]
  if views < 2 or not level:
    return cameras
  draws = level * np.random.default_rng([seed, 6]).normal(size=(views, 7))
  moved = np.tile(np.eye(4), (views, 1, 1, 1))
  moved[:, 0, :3, :3] = np.asarray(matrix_from_axis_angle(jnp.asarray(np.radians(config.camera_rotation) * draws[:, :3])))
  moved[:, 0, :3, 3] = config.camera_translation * draws[:, 3:6]
  gain = np.ones((views, 1, 3, 3))
  gain[:, 0, [0, 1], [0, 1]] = np.exp(config.focal * draws[:, 6:])
  return cameras.replace(world_to_camera=moved @ np.asarray(cameras.world_to_camera), intrinsics=gain * np.asarray(cameras.intrinsics))


def _correlated(frames: int, width: int, fps: float, rng: np.random.Generator, config: NoiseConfig) -> Float[np.ndarray, "t w"]:
  """Unit variance: white noise, and an autoregressive part that forgets with exp(-t / slow_seconds)."""
  white, drive = rng.normal(size=(2, frames, width))
  keep = np.exp(-1 / (config.slow_seconds * fps))
  slow = np.empty_like(drive)
  state = drive[0] if frames else None
  for k in range(frames):
    state = drive[0] if k == 0 else keep * state + np.sqrt(1 - keep**2) * drive[k]
    slow[k] = state
  return np.sqrt(1 - config.slow_share) * white + np.sqrt(config.slow_share) * slow
