"""A head, not a mask: six views around it, and how much of its silhouette the avatar fills."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from silky_jax.evaluation.playback import RenderFrames, bytes_of, driving
from silky_jax.geometry.camera import from_focal, look_at
from silky_jax.types import Camera, Frame

__all__ = ["SIX_VIEWS", "Views", "evaluate_views", "fill", "largest_patch", "orbit", "repeat"]

SIX_VIEWS = tuple((yaw, pitch) for pitch in (20.0, -20.0) for yaw in (-40.0, 0.0, 40.0))  # degrees; the corners and middles of the range
_COVERED = 0.5  # alpha from which a pixel counts as covered
_RIM = 2  # px: a seam this wide along the silhouette is coverage, not a hole


@dataclasses.dataclass(frozen=True)
class Views:
  """The six pictures and their figures."""

  images: UInt8[np.ndarray, "6 h w 3"]
  alpha: Float[np.ndarray, "6 h w"]
  silhouette: Bool[np.ndarray, "6 h w"]
  metrics: dict[str, Any]


def orbit(
  centre: Float[np.ndarray, "3"], yaw: Float[np.ndarray, "t"], pitch: Float[np.ndarray, "t"], *, distance: float, focal: float, size: int
) -> Camera:
  """Cameras on a sphere about a point, looking at it, +y up in the picture.

  Args:
    centre: metres.
    yaw: degrees; positive goes towards +x, where the subject's left side comes into sight.
    pitch: degrees; positive looks down from above.
    distance: metres from the centre.
    focal: px.
    size: px, width and height.

  Returns:
    Cameras [t].
  """
  a, b = np.radians(np.asarray(yaw, np.float64)), np.radians(np.asarray(pitch, np.float64))
  direction = np.stack([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)], axis=-1)
  eye = jnp.asarray(centre + distance * direction, jnp.float32)
  pose = look_at(eye, jnp.broadcast_to(jnp.asarray(centre, jnp.float32), eye.shape))
  return from_focal(pose, float(focal), width=size, height=size)


def repeat(frame: Frame, camera: Camera) -> Frame:
  """One moment (batch [1], without pictures) seen by many cameras [t]."""
  import jax

  count = camera.world_to_camera.shape[0]
  wide = jax.tree.map(lambda a: np.repeat(np.asarray(a), count, axis=0), driving(frame).replace(camera=None))
  return wide.replace(camera=camera)


def largest_patch(mask: Bool[np.ndarray, "h w"]) -> int:
  """Pixels in the largest 4-connected patch of a mask."""
  if not mask.any():
    return 0
  label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
  while True:
    # Every pixel takes the highest number among itself and its neighbours, until nothing changes.
    wide = np.pad(label, 1)
    higher = np.max([wide[1:-1, 1:-1], wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]], axis=0) * mask
    if (higher == label).all():
      return int(np.bincount(label[mask]).max())
    label = higher


def _inner(mask: Bool[np.ndarray, "h w"], steps: int) -> Bool[np.ndarray, "h w"]:
  """The mask without its rim of `steps` px; the picture's border counts as outside."""
  for _ in range(steps):
    wide = np.pad(mask, 1)
    mask = wide[1:-1, 1:-1] & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
  return mask


def fill(alpha: Float[np.ndarray, "h w"], silhouette: Bool[np.ndarray, "h w"]) -> dict[str, float]:
  """How far an avatar fills a silhouette.

  A hole is a connected patch of pixels with alpha below 0.5, at least 2 px inside the silhouette; it may be open to
  the outside, so a bite out of the ear counts as one.

  Args:
    alpha: 0..1.
    silhouette: where the rig's head is.

  Returns:
    "coverage" (share of the silhouette with alpha of 0.5 or more) and "largest_hole" (share of the silhouette).

  Raises:
    ValueError: the silhouette is empty.
  """
  area = int(silhouette.sum())
  if not area:
    raise ValueError("silhouette: expected some pixels, got none: the head is not in the picture")
  open_ = alpha < _COVERED
  return {
    "coverage": float((silhouette & ~open_).sum() / area),
    "largest_hole": largest_patch(_inner(silhouette, _RIM) & open_) / area,
  }


def evaluate_views(
  render: RenderFrames,
  frame: Frame,
  silhouette: Callable[[Frame], Bool[Array | np.ndarray, "t h w"]],
  centre: Float[np.ndarray, "3"],
  *,
  distance: float,
  focal: float,
  size: int = 256,
) -> Views:
  """Render a head from six sides and see whether it is whole.

  Args:
    render: the avatar.
    frame: the moment to show, batch [1].
    silhouette: where the rig's head (without torso) is in the pictures of some frames.
    centre: of the head, metres.
    distance: of the camera from it, metres.
    focal: px at `size`.
    size: px.

  Returns:
    Pictures, and `metrics`: worst "coverage" and "largest_hole", and "views" with yaw and pitch in degrees.
  """
  yaw, pitch = np.transpose(SIX_VIEWS)
  frames = repeat(frame, orbit(centre, yaw, pitch, distance=distance, focal=focal, size=size))
  image, alpha = render(frames)
  outline, alpha = np.asarray(silhouette(frames)), np.asarray(alpha)
  rows = [{"yaw": a, "pitch": b} | fill(alpha[k], outline[k]) for k, (a, b) in enumerate(SIX_VIEWS)]
  metrics = {
    "coverage": min(row["coverage"] for row in rows),
    "largest_hole": max(row["largest_hole"] for row in rows),
    "measured": f"{size}x{size}, alpha 0.5, rig's head silhouette without torso; holes at least {_RIM} px inside it",
    "views": rows,
  }
  return Views(bytes_of(image), alpha, outline, metrics)
