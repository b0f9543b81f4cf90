"""What `ablate_physics` measures of one avatar: scores of held-out pictures and of their change, and where its points really are.

Positions are those of Gaussians that ride on skin, against the same UV points of the true mesh (studio films only):

  error_mm       root mean square distance to the true position, world
  jitter_mm      root mean square third derivative of the positions (mm per frame^3), in the world; `true_jitter_mm` is the truth's
  skull_error_mm, skull_jitter_mm, skull_true_jitter_mm  the same in the axes of the skull, the tracked one's and the true one's: what is
                 left when errors of the head's place are taken out, which no term on Gaussians sees
  covariance_jitter  mean affine-invariant distance of a covariance, in the world, from itself a frame before
  own_jitter_mm  jitter of what the model adds to the mesh, in the surface's axes
  tearing        share of neighbours across borders of groups that are further apart, measured by the mesh, than twice what they usually
                 are, in the tenth of the held-out frames whose expression is farthest from the mean
  tearing_doubled  the same in expressions twice as far from the mean as those, which no frame shows
  crack          there, root mean square difference of what the network moves two such neighbours by, in distances between neighbours
  seam           the same of where they are moved to in all frames alike: where hair begins it stands off the forehead
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from silky_jax.data.clips import load_drivers
from silky_jax.data.formats import native
from silky_jax.evaluation import scores
from silky_jax.evaluation.playback import bytes_of
from silky_jax.losses import perceptual
from silky_jax.math import spd
from silky_jax.models import corrections
from silky_jax.models.drive import make_renderer
from silky_jax.models.protocol import Avatar
from silky_jax.models.silky.anatomy import anatomy_of
from silky_jax.render.pipeline import RenderConfig
from silky_jax.studio.dataset import Truth
from silky_jax.types import FlameRig, Frame, Variables

__all__ = ["HELD_OUT", "jitter", "measure_motion", "measure_pictures", "pictures", "stretch"]

HELD_OUT = ("heldout_blocks", "heldout_tail")
_MM = 1e3
_EXTREME = 0.1  # of the held-out frames
_TORN, _NEAR = 2.0, 0.25  # times as far apart as usual; of a distance between neighbours: what two sites are apart at least
_STRIDE = 3  # frames: webcams repeat pictures, and repeats are not held out
_CHUNK = 16  # pictures rendered at a time


# ---- pictures


class _Shown(NamedTuple):
  """Some frames of a split."""

  images: Float[np.ndarray, "t h w 3"]
  photos: Float[np.ndarray, "t h w 3"]
  masks: Float[np.ndarray, "t h w"]
  scores: dict[str, Float[np.ndarray, "t"]]


def _show(
  avatar: Avatar,
  variables: Variables,
  rig: FlameRig,
  sequence: native.NativeSequence,
  index: Int[np.ndarray, "t"],
  settings: RenderConfig,
  background: tuple[float, ...],
) -> _Shown:
  """Frames rendered and scored, so many at a time that one program serves all."""
  color, see, parts = jnp.asarray(background), perceptual.load("alexnet"), []
  for first in range(0, len(index), _CHUNK):
    chosen = index[first : first + _CHUNK]
    padded = sequence.frames(np.resize(chosen, _CHUNK))
    image, photo, found = _render_and_score(avatar, settings, variables, rig, padded, color, see)
    count = len(chosen)
    parts.append(jax.tree.map(lambda x, count=count: np.asarray(x)[:count], _Shown(image, photo, padded.mask, found)))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def measure_pictures(
  avatar: Avatar,
  variables: Variables,
  rig: FlameRig,
  sequence: native.NativeSequence,
  settings: RenderConfig,
  background: tuple[float, ...],
) -> dict[str, float]:
  """Mean scores over held-out frames, driven as the sequence says; names as of `evaluation.scores`, and `tlp`.

  tlp: mean |LPIPS(r_t, r_t-1) - LPIPS(g_t, g_t-1)| of renders and truth (Chu et al. 2020).
  """
  see = perceptual.load("alexnet")
  gathered: dict[str, list[np.ndarray]] = {}
  for split in HELD_OUT:
    index = np.asarray(sequence.splits[split])
    if not len(index):  # a short film has no blocks
      continue
    shown = _show(avatar, variables, rig, sequence, index, settings, background)
    for name, values in shown.scores.items():
      gathered.setdefault(name, []).append(values)
    pairs = scores.successive_pairs(index, np.zeros(0, int))
    for first in range(0, len(pairs), _CHUNK):
      chosen = pairs[first : first + _CHUNK]
      found = _score_pairs(*(part[np.resize(chosen, (_CHUNK, 2))] for part in shown[:3]), see)
      for name, values in found.items():
        gathered.setdefault(name, []).append(np.asarray(values)[: len(chosen)])
  return {name: float(np.nanmean(np.concatenate(values))) for name, values in gathered.items()}


def pictures(
  avatar: Avatar,
  variables: Variables,
  rig: FlameRig,
  sequence: native.NativeSequence,
  settings: RenderConfig,
  background: tuple[float, ...],
) -> UInt8[np.ndarray, "t h w 3"]:
  """Renders of the last split that is held out, as bytes."""
  return bytes_of(_show(avatar, variables, rig, sequence, np.asarray(sequence.splits[HELD_OUT[-1]]), settings, background).images)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _render_and_score(avatar, settings, variables, rig, frames, background, see):
  render = make_renderer(avatar, settings)
  made = jax.lax.map(lambda frame: render(variables, rig, frame, background).image, frames)
  image = jnp.clip(made, 0.0, 1.0)
  photo = scores.composite(jnp.asarray(frames.image), frames.mask, background)
  kept = ("psnr", "ssim", "lpips_alex", "mouth.psnr", "mouth.ssim", "eyes.psnr", "eyes.ssim")
  distance = lambda a, b: perceptual.lpips(see, a, b)
  found = scores.frame_scores(image, image, photo, frames.mask, frames.parts, lpips=distance)
  regions = scores.region_lpips(image, photo, frames.mask, frames.parts, lpips=distance)
  return image, photo, {name: found[name] for name in kept} | regions


@jax.jit
def _score_pairs(image, photo, mask, see):
  distance = lambda a, b: perceptual.lpips(see, a, b)
  shown = scores.inside(image, photo, mask)
  found = scores.pair_scores(image, photo, mask, lpips=distance)
  return found | {"tlp": jnp.abs(distance(shown[:, 1], shown[:, 0]) - distance(photo[:, 1], photo[:, 0]))}


# ---- motion


class _Track(NamedTuple):
  """Of t frames in a row or with gaps."""

  means: Float[np.ndarray, "t n 3"]  # mm, world
  anchors: Float[np.ndarray, "t n 3"]
  local: Float[np.ndarray, "t n 3"]  # mm, surface's axes
  flicker: Float[np.ndarray, "p n"]  # of successive frames
  skull: tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3"]]  # its axes, and its place, mm

  def inside(self, points: Float[np.ndarray, "t n 3"]) -> Float[np.ndarray, "t n 3"]:
    """Points of the world in the skull's axes."""
    return np.einsum("tij,tni->tnj", self.skull[0], points - self.skull[1][:, None])


def measure_motion(
  avatar: Avatar,
  variables: Variables,
  rig: FlameRig,
  sequence: native.NativeSequence,
  truth: tuple[Truth, native.NativeSequence] | None,
  *,
  training: bool = True,
) -> dict[str, float]:
  """See the module's text. Training frames by corrected drivers, held-out ones as the sequence has them.

  Args:
    avatar, variables, rig: the avatar.
    sequence: the film, however driven.
    truth: of a studio film, and the film driven by it.
    training: whether to look at the training frames too.
  """
  held_out = np.concatenate([np.asarray(sequence.splits[split]) for split in HELD_OUT])
  ways = {"train": (np.asarray(sequence.splits["train"]), True)} if training else {}
  ways["heldout"] = (held_out, False)
  skin = np.asarray(_on_skin(variables, rig))
  found: dict[str, float] = {}
  for name, (index, corrected) in ways.items():
    frames = load_drivers(sequence, index)
    track = _track(avatar, variables, rig, corrections.correct(variables, frames) if corrected else frames, index)
    found[f"{name}.jitter_mm"] = jitter(track.means[:, skin], index)
    found[f"{name}.own_jitter_mm"] = jitter(track.local[:, skin], index)
    found[f"{name}.covariance_jitter"] = float(track.flicker[:, skin].mean())
    if truth is not None:
      real = _MM * _true_points(truth[0], variables, rig, index)
      exact = _track(avatar, variables, rig, load_drivers(truth[1], index), index)
      for kind, own, other in (("", track.means, real), ("skull_", track.inside(track.means), exact.inside(real))):
        found[f"{name}.{kind}jitter_mm"] = jitter(own[:, skin], index)
        found[f"{name}.{kind}true_jitter_mm"] = jitter(other[:, skin], index)
        found[f"{name}.{kind}error_mm"] = float(np.sqrt(np.mean(np.sum((own - other)[:, skin] ** 2, axis=-1))))
    if name == "heldout" and "transport" in variables.buffers:
      found |= _torn(avatar, variables, rig, track, frames)
  return found


def _track(avatar: Avatar, variables: Variables, rig: FlameRig, frames: Frame, index: Int[np.ndarray, "t"]) -> _Track:
  pairs = np.flatnonzero(np.diff(index) == 1)
  means, anchors, local, covariances, head, translation = _positions(avatar, variables, rig, frames)
  flicker = _flicker(covariances, jnp.asarray(pairs))
  far = lambda x: _MM * np.asarray(x, np.float64)
  return _Track(far(means), far(anchors), far(local), np.asarray(flicker), (np.asarray(head, np.float64), far(translation)))


@functools.partial(jax.jit, static_argnums=0)
def _positions(avatar, variables, rig, frames):
  def one(frame):
    gaussians, aux = avatar.deform(variables, rig, frame)
    return gaussians.means, aux["anchors"], aux["local"], gaussians.covariances, aux["head"], aux["translation"]

  return jax.lax.map(one, frames)


@jax.jit
def _flicker(covariances, pairs):
  return jax.lax.map(lambda i: spd.distance(_MM**2 * covariances[i + 1], _MM**2 * covariances[i]), pairs)


def jitter(points: Float[np.ndarray, "t n 3"], index: Int[np.ndarray, "t"]) -> float:
  """Root mean square third derivative, by divided differences of four frames that follow each other at most _STRIDE apart: on film without
  repeated pictures the third difference."""
  near = np.flatnonzero(np.all(np.stack([np.diff(index)[k : len(index) - 3 + k] for k in range(3)]) <= _STRIDE, axis=0))
  at = index[near[:, None] + np.arange(4)].astype(np.float64)
  apart = at[:, :, None] - at[:, None, :] + np.eye(4)
  weights = 6 / np.prod(apart, axis=-1)  # of each of the four, in the derivative of the cubic through them
  third = sum(weights[:, k, None, None] * points[near + k] for k in range(4))
  return float(np.sqrt(np.mean(np.sum(third**2, axis=-1))))


def _on_skin(variables: Variables, rig: FlameRig) -> Any:
  """Gaussians on parts that no hair covers and no tracker guesses."""
  names = [name not in ("scalp", "neck", "torso", "eye_socket", "mouth_interior") for name in rig.region_names]
  return jnp.asarray(names)[variables.buffers["regions"]] & (variables.buffers["alive"] > 0)


def _true_points(truth: Truth, variables: Variables, rig: FlameRig, index: Int[np.ndarray, "t"]) -> Float[np.ndarray, "t n 3"]:
  corners = np.asarray(rig.faces)[np.asarray(variables.buffers["faces"])]
  return np.einsum("nk,tnkc->tnc", np.asarray(variables.buffers["barycentric"], np.float64), truth.vertices[index][:, corners])


def stretch(
  apart: Float[np.ndarray, "t p"], on_mesh: Float[np.ndarray, "t p"], spacing: Float[np.ndarray, "p"]
) -> Float[np.ndarray, "t p"]:
  """How far apart pairs of neighbours are, in the distance of their places on the mesh; two places that nearly meet there count as a
  quarter of the distance between sites apart."""
  return apart / np.maximum(on_mesh, _NEAR * spacing)


def _torn(avatar: Avatar, variables: Variables, rig: FlameRig, track: _Track, frames: Frame) -> dict[str, float]:
  """`tearing` and the rest about borders of groups."""
  buffers = variables.buffers
  groups, neighbours = np.asarray(anatomy_of(buffers)[0].groups), np.asarray(buffers["neighbours"])
  mean, scale = np.asarray(buffers["mean_expression"]), np.asarray(buffers["expression_scale"])
  expression = np.asarray(frames.expression)
  far = np.sum(((expression - mean) / scale) ** 2, axis=-1)
  chosen = np.argsort(-far)[: max(1, round(_EXTREME * len(far)))]
  own, other = np.nonzero((groups[:, None] != groups[neighbours]) & (groups[:, None] >= 0) & (groups[neighbours] >= 0))
  other = neighbours[own, other]
  spacing = _MM * np.asarray(buffers["spacing"], np.float64)[own]
  apart = lambda points: np.linalg.norm(points[..., own, :] - points[..., other, :], axis=-1)
  usual_stretch = np.median(stretch(apart(track.means), apart(track.anchors), spacing), axis=0)
  still = track.local.mean(axis=0)
  usual = lambda points: float(np.sqrt(np.mean((apart(points) / spacing) ** 2)))
  doubled = dataclasses.replace(frames, expression=jnp.asarray(2 * expression - mean, frames.expression.dtype))
  means, anchors = (_MM * np.asarray(part)[chosen] for part in _positions(avatar, variables, rig, doubled)[:2])
  torn = lambda means, anchors: float(np.mean(stretch(apart(means), apart(anchors), spacing) > _TORN * usual_stretch))
  return {
    "tearing": torn(track.means[chosen], track.anchors[chosen]),
    "tearing_doubled": torn(means, anchors),
    "crack": usual(track.local[chosen] - still),
    "seam": usual(still),
  }
