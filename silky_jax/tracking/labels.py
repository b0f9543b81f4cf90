"""Head-and-neck masks and region labels from the tracked rig and the person mask.

There is no freely usable hair and skin parser, so the labels are the rig's: a pixel of the person takes the label of
the face in front of it; person pixels that the rig does not cover are hair above the neck and cloth below it. The
person mask is cut at the rig's own neck border, since nothing moves the torso.
"""

import functools

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from silky_jax.data.images import grow
from silky_jax.flame import regions
from silky_jax.flame.model import flame_vertices
from silky_jax.render.mesh import rasterize_mesh
from silky_jax.types import Camera, FlameRig

HAIR, CLOTH = regions.PARTS.index("hair"), regions.PARTS.index("cloth")


@functools.partial(jax.jit)
def posed_vertices(rig: FlameRig, shape, expression, pose, eyelids, translation, offset=None) -> Float[jax.Array, "t v 3"]:
  """World-space vertices of a batch of frames."""
  one = lambda e, p, l, t: flame_vertices(rig, shape, e, p, eyelids=l, offset=offset)[0] + t
  return jax.vmap(one)(expression, pose, eyelids, translation)


@jax.jit
def face_ids(vertices: Float[jax.Array, "t v 3"], faces: Int[jax.Array, "f 3"], camera: Camera) -> Int[jax.Array, "t h w"]:
  """Index of the face in front of every pixel, -1 where there is none."""
  return jax.lax.map(lambda v: rasterize_mesh(v, faces, camera)[0], vertices)


def label_map(
  ids: Int[np.ndarray, "h w"], face_labels: Int[np.ndarray, "f"], person: UInt8[np.ndarray, "h w"], cut: Float[np.ndarray, "w"]
):
  """The 19 labels of one frame: rig inside its silhouette, hair and cloth outside, background where there is no person."""
  row = np.arange(ids.shape[0])[:, None] + 0.5
  outside = np.where(row < cut[None], HAIR, CLOTH)
  labels = np.where(ids >= 0, face_labels[ids], outside)
  labels = np.where((row >= cut[None]) & (labels != CLOTH), CLOTH, labels)
  return np.where(person > 127, labels, 0).astype(np.uint8)


def neck_border(rig: FlameRig) -> Int[np.ndarray, "m 2"]:
  """Edges (vertex pairs) between the neck and the torso."""
  torso = np.asarray(rig.regions) == rig.region_names.index("torso")
  faces = np.asarray(rig.faces)
  mixed = faces[(torso[faces].any(axis=1)) & (~torso[faces]).any(axis=1)]
  pairs = np.concatenate([mixed[:, [0, 1]], mixed[:, [1, 2]], mixed[:, [2, 0]]])
  inside = ~torso[pairs].any(axis=1)
  return np.unique(np.sort(pairs[inside], axis=1), axis=0)


def neck_cut(pixels: Float[np.ndarray, "v 2"], edges: Int[np.ndarray, "m 2"], width: int, scale: float) -> Float[np.ndarray, "w"]:
  """Row (px) per column below which the torso begins: the front of the neck's border, rising at 45 degrees beyond its ends.

  The rise leaves the shoulders out, which stand beside the neck at the height of its border.

  Args:
    pixels: projected vertices.
    edges: `neck_border`.
    width: columns.
    scale: half width of the smoothing along the border, px.
  """
  along = np.linspace(0, 1, 16)[:, None, None]
  points = ((1 - along) * pixels[edges[:, 0]] + along * pixels[edges[:, 1]]).reshape(-1, 2)
  column = np.floor(points[:, 0]).astype(int)
  inside = (column >= 0) & (column < width)
  if not inside.any():
    return np.full(width, np.inf)
  cut = np.full(width, -np.inf)
  np.maximum.at(cut, column[inside], points[inside, 1])
  known = np.flatnonzero(np.isfinite(cut))
  columns = np.arange(width)
  cut = np.interp(columns, known, cut[known])
  half = max(1, round(scale))
  cut = np.convolve(np.pad(cut, half, mode="edge"), np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
  return cut - np.maximum(0, np.maximum(known[0] + half - columns, columns - known[-1] + half))


def head_mask(person: UInt8[np.ndarray, "h w"], cut: Float[np.ndarray, "w"]) -> UInt8[np.ndarray, "h w"]:
  """The person mask above the neck's border, with a soft edge of one pixel."""
  row = np.arange(person.shape[0])[:, None] + 0.5
  return np.round(person * np.clip(cut[None] - row + 0.5, 0.0, 1.0)).astype(np.uint8)


def exposure(
  images: UInt8[np.ndarray, "t h w 3"], persons: UInt8[np.ndarray, "t h w"], training: Int[np.ndarray, "_"]
) -> tuple[Float[np.ndarray, "t 3"], float]:
  """Gain of the camera per frame and channel, seen on the background: webcams brighten and tint the picture as the person moves.

  The gain is the median, over pixels that no frame covers with the person, of the frame against the mean of the training frames.
  The camera stands still, so nothing else changes there.

  Returns:
    Gains, and the share of pixels they were measured on. Where that is below 5 %, gains are 1.
  """
  covered = grow((persons > 5).any(axis=0), images.shape[1] // 28)
  share = float(1.0 - covered.mean())
  if share < 0.05:
    return np.ones((len(images), 3), np.float32), share
  free = images[:, ~covered]
  reference = np.maximum(free[training].mean(axis=0), 1.0)
  usable = reference.min(axis=1) > 25
  if usable.mean() < 0.2:
    return np.ones((len(images), 3), np.float32), 0.0
  gains = np.stack([np.median(frame[usable] / reference[usable], axis=0) for frame in free])
  return np.clip(gains, 0.5, 2.0).astype(np.float32), share
