"""The demo protocol: held-out frames, the avatar beside its baselines and its calibration, each score with its circumstances."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from silky_jax.data.clips import Sequence
from silky_jax.data.images import blur, crop_resize
from silky_jax.evaluation import baselines, scores
from silky_jax.evaluation.playback import RenderFrames, bytes_of, chunks, driving, join, play_layers
from silky_jax.geometry.camera import rescale
from silky_jax.training.metrics import Means
from silky_jax.types import Frame

__all__ = ["AVATAR", "BASELINES", "CALIBRATION", "EvalConfig", "Evaluation", "Truth", "evaluate", "read_truth"]

AVATAR = "avatar"
BASELINES = ("nearest_frame", "aligned_frame")
CALIBRATION = ("truth_shifted_1px", "truth_shifted_2px", "truth_blurred")
_WHITE = np.ones(3, np.float32)
_VGG_BATCH = 2  # a pair of 256 px pictures takes 0.2 GB inside VGG
_TRACKED = (
  "pose, expression, jaw, eyes, lids and camera exposure of a held-out frame were tracked in that frame (baselines are given the "
  "exposure too) and was not changed with the avatar; identity, camera and every trained number come from training frames"
)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How to score."""

  resolution: int = 256  # px, side of the square pictures that are compared
  splits: tuple[str, ...] = ("heldout_blocks", "heldout_tail")
  batch: int = 8  # frames at once; bounds memory, changes no score
  vgg_every: int = 1  # LPIPS with VGG on every n-th scored frame: it costs 0.26 s a frame on 2 cores
  blur: float = 1.0  # px, standard deviation of the calibration's blurred truth


@dataclasses.dataclass(frozen=True)
class Truth:
  """Photographs of some frames at one size, as bytes, and what drives an avatar to show the same."""

  frames: Frame  # without pictures; the camera has the photographs' size
  image: UInt8[np.ndarray, "t h w 3"]
  mask: UInt8[np.ndarray, "t h w"]
  parts: UInt8[np.ndarray, "t h w"]
  landmarks: Float[np.ndarray, "t l 2"]  # px of the photographs here


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Scores, and what a report shows of them; every dict by split."""

  metrics: dict[str, Any]  # split -> name -> scores
  renders: dict[str, UInt8[np.ndarray, "t h w 3"]]  # the avatar's pictures
  indices: dict[str, Int[np.ndarray, "t"]]  # scored frame numbers
  psnr: dict[str, Float[np.ndarray, "t"]]  # dB, the avatar in the mask, frame by frame


@dataclasses.dataclass(frozen=True)
class _Shown:
  """What takes the truth's place, on the background: `image` is looked at inside the mask, `whole` everywhere; `white`: on white."""

  image: UInt8[np.ndarray, "t h w 3"]
  whole: UInt8[np.ndarray, "t h w 3"]
  white: UInt8[np.ndarray, "t h w 3"]


def read_truth(sequence: Sequence, indices: Int[np.ndarray, "t"], resolution: int, *, chunk: int = 32) -> Truth:
  """Photographs, masks, labels and tracked parameters of some frames, brought to `resolution`.

  Args:
    sequence: the dataset.
    indices: frame numbers; at least one.
    resolution: px.
    chunk: frames read at once.

  Raises:
    ValueError: no indices, or the dataset's pictures are not square.
  """
  height, width = sequence.size
  if height != width or not len(indices):
    raise ValueError(f"sequence, indices: expected square pictures and at least one frame, got {height} x {width} and {len(indices)}")
  drivers, pictures, landmarks = [], [], []
  for start in range(0, len(indices), chunk):
    frames = sequence.frames(indices[start : start + chunk])
    pictures.append(
      (_resize(bytes_of(frames.image), resolution), _resize(bytes_of(frames.mask), resolution), _resize_labels(frames.parts, resolution))
    )
    landmarks.append(np.asarray(frames.landmarks, np.float32) * (resolution / width))
    drivers.append(driving(frames))
  image, mask, parts = (np.concatenate(x) for x in zip(*pictures, strict=True))
  frames = join(drivers)
  frames = frames.replace(camera=rescale(frames.camera, width=resolution, height=resolution))
  return Truth(frames, image, mask, parts, np.concatenate(landmarks))


def _resize(images: np.ndarray, size: int) -> np.ndarray:
  side = images.shape[1]
  return images if side == size else np.stack([crop_resize(image, (0.0, 0.0, float(side)), size) for image in images])


def _resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
  labels = np.asarray(labels)
  pick = np.floor((np.arange(size) + 0.5) * labels.shape[1] / size).astype(int)
  return labels[:, pick][:, :, pick]


def _unit(image: UInt8[np.ndarray, "*b"]) -> Float[Array, "*b"]:
  return jnp.asarray(image, jnp.float32) / 255.0


def evaluate(
  render: RenderFrames,
  sequence: Sequence,
  background: Float[np.ndarray, "3"],
  *,
  lpips: Mapping[str, scores.Perceptual],
  config: EvalConfig | None = None,
  say: Callable[[str], None] | None = None,
) -> Evaluation:
  """Score an avatar on the held-out frames, and beside it two baselines and three spoiled truths.

  Args:
    render: the avatar; it sees tracked parameters and a camera, never a picture.
    sequence: the dataset, whose "train" split feeds the baselines and whose "repeat" split separates pairs in time.
    background: colour behind the head, 0..1; the one that the avatar was trained on.
    lpips: "alex" and "vgg", each a function of two picture batches; a net that is left out is not scored.
    config: how to score.
    say: told each result as a line, for a person who waits.

  Returns:
    `metrics[split][name]` with name "avatar", a baseline or a calibration row: "psnr", "ssim", "lpips_alex",
    "lpips_vgg", "frames", groups "whole", "mouth", "eyes", "temporal" of the same, "on_white" (PSNR in the mask with
    white behind both), and "meta". None where nothing could be scored.
  """
  config = config or EvalConfig()
  metrics, renders, indices, psnr = {}, {}, {}, {}
  for split in config.splits:
    chosen = np.asarray(sequence.splits[split])
    indices[split] = chosen
    if not len(chosen):
      metrics[split] = {name: _result(Means.empty(), split, 0, 0, 0, background, config) for name in (AVATAR, *BASELINES, *CALIBRATION)}
      renders[split], psnr[split] = np.zeros((0, config.resolution, config.resolution, 3), np.uint8), np.zeros(0)
      continue
    target = read_truth(sequence, chosen, config.resolution)
    photos = _on(target.image, target.mask, background)
    truth = _Shown(photos, photos, _on(target.image, target.mask, _WHITE))
    pictures, alpha = (np.stack(x) for x in zip(*play_layers(render, target.frames, batch=config.batch), strict=True))
    shown = {AVATAR: _Shown(pictures, pictures, _brighten(pictures, alpha, background))} | _photographs(
      sequence, target, background, config
    )
    shown |= _spoiled(target, photos, background, config)
    pairs = scores.successive_pairs(chosen, np.asarray(sequence.splits.get("repeat", ())))
    metrics[split] = {name: _result(Means.empty(), split, 0, 0, 0, background, config) for name in BASELINES}
    for name, what in shown.items():
      nets = dict(lpips) if name not in CALIBRATION else {key: net for key, net in lpips.items() if key == "alex"}
      means, each = _score(what, truth, target, pairs, nets, config)
      vgg = len(chosen[:: config.vgg_every]) if "vgg" in nets else 0
      metrics[split][name] = _result(means, split, len(chosen), len(pairs), vgg, background, config)
      if say is not None:
        say(f"{split} {name}: PSNR {metrics[split][name]['psnr']:.2f} dB over {len(chosen)} frames")
      if name == AVATAR:
        renders[split], psnr[split] = pictures, each
  return Evaluation(metrics, renders, indices, psnr)


def _photographs(sequence: Sequence, target: Truth, background: np.ndarray, config: EvalConfig) -> dict[str, _Shown]:
  """The baselines: training photographs, cut by the truth's mask for the scores inside it and by their own for the whole.

  A dataset without landmarks has no aligned frame.
  """
  train = np.asarray(sequence.splits["train"])
  known = read_truth(sequence, train, config.resolution)
  near = baselines.nearest(known.frames, target.frames)
  photographs = {"nearest_frame": (_exposed(known, near, target), known.mask[near])}
  if target.landmarks.shape[1]:
    like = baselines.nearest(known.frames, target.frames, baselines.POSE_FREE)
    moves = [baselines.align(known.landmarks[source], target.landmarks[k]) for k, source in enumerate(like)]
    pictures = (_exposed(known, like, target), known.mask[like])
    warped = (np.stack([baselines.warp_similarity(a, move) for a, move in zip(x, moves, strict=True)]) for x in pictures)
    photographs["aligned_frame"] = tuple(warped)
  return {name: _cut(image, mask, target, background) for name, (image, mask) in photographs.items()}


def _cut(image: np.ndarray, mask: np.ndarray, target: Truth, background: np.ndarray) -> _Shown:
  return _Shown(_on(image, target.mask, background), _on(image, mask, background), _on(image, target.mask, _WHITE))


def _brighten(pictures: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
  """The avatar's pictures with white behind them instead."""
  return np.stack([bytes_of(a / 255.0 + (1.0 - b[..., None]) * (_WHITE - background)) for a, b in zip(pictures, alpha, strict=True)])


def _exposed(known: Truth, chosen: np.ndarray, target: Truth) -> np.ndarray:
  """Training photographs as the camera's exposure at the target's moments would have shown them; as they are where it is not tracked."""
  pictures = known.image[chosen]
  if known.frames.exposure is None or target.frames.exposure is None:
    return pictures
  gain = np.asarray(target.frames.exposure) / np.asarray(known.frames.exposure)[chosen]
  return np.stack([bytes_of(picture / 255.0 * g) for picture, g in zip(pictures, gain, strict=True)])


def _spoiled(target: Truth, photos: np.ndarray, background: np.ndarray, config: EvalConfig) -> dict[str, _Shown]:
  """The calibration, cut like the baselines: by the truth's mask inside it, with its own moved outline for the whole."""
  changes = {
    "truth_shifted_1px": lambda images: baselines.shift(images, 1),
    "truth_shifted_2px": lambda images: baselines.shift(images, 2),
    "truth_blurred": lambda images: bytes_of(blur(images, config.blur)),
  }
  shown = {}
  for name, change in changes.items():
    image = change(target.image)
    shown[name] = _Shown(_on(image, target.mask, background), change(photos), _on(image, target.mask, _WHITE))
  return shown


def _on(images: np.ndarray, masks: np.ndarray, background: np.ndarray) -> np.ndarray:
  """Photographs on the background outside their masks, one at a time to bound memory."""
  behind = jnp.asarray(background, jnp.float32)
  return np.stack([bytes_of(scores.composite(_unit(a), _unit(m), behind)) for a, m in zip(images, masks, strict=True)])


def _score(
  shown: _Shown,
  truth: _Shown,
  target: Truth,
  pairs: np.ndarray,
  lpips: Mapping[str, scores.Perceptual],
  config: EvalConfig,
) -> tuple[Means, np.ndarray]:
  """The means over a split, and the PSNR of each frame."""
  photos, total, each = truth.whole, Means.empty(), []
  for at, kept in chunks(len(photos), config.batch):
    image, whole, photo, mask = (_unit(x[at]) for x in (shown.image, shown.whole, photos, target.mask))
    values = scores.frame_scores(image, whole, photo, mask, jnp.asarray(target.parts[at]), lpips=lpips.get("alex"))
    values |= {"on_white.psnr": scores.psnr(_unit(shown.white[at]), _unit(truth.white[at]), mask)}
    total = total.merge(scores.means_of(values, kept))
    each.append(np.asarray(values["psnr"])[:kept])
  for some, kept in chunks(len(pairs), config.batch):
    image, photo, mask = (_unit(x[pairs[some]]) for x in (shown.image, photos, target.mask))
    values = scores.pair_scores(image, photo, mask, lpips=lpips.get("alex"))
    total = total.merge(scores.means_of(values, kept))
  if "vgg" in lpips:
    picked = np.arange(0, len(photos), config.vgg_every)
    for some, kept in chunks(len(picked), _VGG_BATCH):
      image, photo, mask = (_unit(x[picked[some]]) for x in (shown.image, photos, target.mask))
      distance = lpips["vgg"](scores.inside(image, photo, mask), photo)
      total = total.merge(scores.means_of({"lpips_vgg": distance}, kept))
  return total, np.concatenate(each)


def _result(
  means: Means, split: str, frames: int, pairs: int, vgg_frames: int, background: np.ndarray, config: EvalConfig
) -> dict[str, Any]:
  """One name's scores, grouped, with their circumstances."""
  out: dict[str, Any] = dict.fromkeys(("psnr", "ssim", "lpips_alex", "lpips_vgg"))
  out |= {"frames": frames, "whole": {}, "mouth": {}, "eyes": {}, "temporal": {}, "on_white": {}}
  for name, value in means.compute().items():
    group, _, plain = name.rpartition(".")
    (out[group] if group else out)[plain] = value if math.isfinite(value) else None
  side = f"{config.resolution}x{config.resolution}"
  out["meta"] = {
    "split": split,
    "crop": "the dataset's static head crop",
    "mask": "soft head-and-neck mask as weight; SSIM and LPIPS: outside the mask both pictures show the truth",
    "truth": "the photograph, composited on the background outside its mask",
    "outline": "the avatar brings its own; photographs (baselines, calibration) are given the truth's inside the mask",
    "resolution": side,
    "background": [float(x) for x in background],
    "data_range": 1.0,
    "bits": 8,
    "ssim": "11x11 Gaussian window, sigma 1.5",
    "lpips_net": {"lpips_alex": "AlexNet", "lpips_vgg": "VGG16"},
    "lpips_version": "0.1",
    "lpips_vgg_frames": vgg_frames,
    "temporal": f"differences of {pairs} pairs of successive scored frames; LPIPS of 0.5 + 0.5 difference",
    "tracked_parameters": _TRACKED,
  }
  return out
