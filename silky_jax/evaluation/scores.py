"""How like two pictures are: PSNR, SSIM and LPIPS inside a mask, in regions, over the whole picture and in time.

A score is the mean over frames of that frame's score, kept as `training.metrics.Means` so that frames can be scored in
any grouping. A frame that cannot have a score (no mouth in sight) carries weight 0.
"""

import functools
from collections.abc import Callable, Mapping

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

from silky_jax.training.metrics import Means

__all__ = [
  "EYES",
  "MOUTH",
  "Perceptual",
  "composite",
  "frame_scores",
  "inside",
  "means_of",
  "pair_scores",
  "psnr",
  "region_lpips",
  "ssim",
  "successive_pairs",
]

MOUTH = (11, 12, 13)  # labels of CelebAMask-HQ: inside of the mouth, upper lip, lower lip
EYES = (4, 5)
_WINDOW, _SIGMA = 11, 1.5  # px: Wang et al. 2004, and what scikit-image and dm-pix call the standard
_FLOOR = 1e-10  # of squared error: equal pictures score 100 dB, not infinity
_SMALLEST_REGION = 12.0  # px of mask weight; below it a region's score says nothing
_LONGEST_GAP = 5  # frames, 0.2 s at 25 fps: two scored frames further apart are not one motion

# LPIPS of one net as a function of two picture batches; it brings its weights and its own jit.
Perceptual = Callable[[Float[Array, "t h w 3"], Float[Array, "t h w 3"]], Float[Array, "t"]]


def means_of(values: Mapping[str, Shaped[Array | np.ndarray, "t"]], count: int | None = None) -> Means:
  """A mergeable mean of per-frame values; a frame whose value is NaN carries no weight.

  Args:
    values: per name, one number per frame.
    count: only the first so many frames are real; all when None.
  """
  arrays = {name: np.asarray(value, np.float64)[:count] for name, value in values.items()}
  totals = {name: float(np.nansum(value)) for name, value in arrays.items()}
  return Means(totals, {name: float(np.isfinite(value).sum()) for name, value in arrays.items()})


def composite(image: Float[Array, "*b h w c"], mask: Float[Array, "*b h w"], background: Float[Array, "c"]) -> Float[Array, "*b h w c"]:
  """image * mask + background * (1 - mask).

  Args:
    image: colours 0..1.
    mask: 0..1.
    background: one colour.
  """
  return image * mask[..., None] + background * (1.0 - mask[..., None])


def inside(image: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], mask: Float[Array, "*b h w"]) -> Float[Array, "*b h w c"]:
  """The picture inside the mask, the truth outside: image * mask + target * (1 - mask).

  Args:
    image: colours 0..1.
    target: colours 0..1.
    mask: 0..1.
  """
  return image * mask[..., None] + target * (1.0 - mask[..., None])


def psnr(predicted: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], mask: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
  """Peak signal-to-noise ratio of the mask-weighted squared error, dB, data range 1.

  Equation: -10 log10(sum_p m_p |a_p - b_p|^2 / (c sum_p m_p)), at most 100 dB.

  Args:
    predicted: colours 0..1.
    target: colours 0..1.
    mask: weights 0..1 of the pixels.

  Returns:
    dB per picture; NaN where the mask weighs less than 12 px.
  """
  weight = jnp.sum(mask, axis=(-2, -1))
  squared = jnp.sum(mask * jnp.mean((predicted - target) ** 2, axis=-1), axis=(-2, -1)) / jnp.maximum(weight, _SMALLEST_REGION)
  return jnp.where(weight < _SMALLEST_REGION, jnp.nan, -10.0 * jnp.log10(jnp.maximum(squared, _FLOOR)))


def ssim(predicted: Float[Array, "t h w c"], target: Float[Array, "t h w c"], mask: Float[Array, "t h w"]) -> Float[Array, "t"]:
  """Structural similarity: the standard map (11x11 Gaussian window, sigma 1.5, data range 1), averaged with the mask as weight.

  The map exists where the window fits, so the outer 5 px of the picture carry no weight.

  Args:
    predicted: colours 0..1; the window looks up to 5 px beyond the mask.
    target: colours 0..1.
    mask: weights 0..1.

  Returns:
    -1..1 per picture; NaN where the mask weighs less than 12 px.
  """
  inner = mask[:, _WINDOW // 2 : -(_WINDOW // 2), _WINDOW // 2 : -(_WINDOW // 2)]
  similarity = jnp.mean(dm_pix.ssim(predicted, target, return_map=True, filter_fn=_window), axis=-1)
  weight = jnp.sum(inner, axis=(-2, -1))
  mean = jnp.sum(inner * similarity, axis=(-2, -1)) / jnp.maximum(weight, _SMALLEST_REGION)
  return jnp.where(weight < _SMALLEST_REGION, jnp.nan, mean)


def _window(image: Float[Array, "t h w c"]) -> Float[Array, "t y x c"]:
  """The Gaussian window where it fits whole, as two products with banded matrices: ten times dm-pix's own speed on a CPU."""
  rows, columns = (jnp.asarray(_band(size)) for size in image.shape[1:3])
  exact = jax.lax.Precision.HIGHEST  # variances are differences of nearly equal numbers
  return jnp.einsum("xw,tywc->tyxc", columns, jnp.einsum("yh,thwc->tywc", rows, image, precision=exact), precision=exact)


@functools.cache
def _band(size: int) -> np.ndarray:
  """[size - 10, size]: row i is the normalised window over pixels i .. i + 10."""
  taps = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
  matrix = np.zeros((size - _WINDOW + 1, size), np.float32)
  for i in range(len(matrix)):
    matrix[i, i : i + _WINDOW] = taps / taps.sum()
  return matrix


def _among(parts: UInt8[Array, "t h w"], labels: tuple[int, ...]) -> Float[Array, "t h w"]:
  return functools.reduce(jnp.logical_or, [parts == label for label in labels]).astype(jnp.float32)


@jax.jit
def _frame_scores(image, whole, target, mask, parts):
  shown = inside(image, target, mask)
  everywhere = jnp.ones_like(mask)
  mouth, eyes = mask * _among(parts, MOUTH), mask * _among(parts, EYES)
  return shown, {
    "psnr": psnr(image, target, mask),
    "ssim": ssim(shown, target, mask),
    "whole.psnr": psnr(whole, target, everywhere),
    "whole.ssim": ssim(whole, target, everywhere),
    "mouth.psnr": psnr(image, target, mouth),
    "mouth.ssim": ssim(shown, target, mouth),
    "eyes.psnr": psnr(image, target, eyes),
    "eyes.ssim": ssim(shown, target, eyes),
  }


def frame_scores(
  image: Float[Array, "t h w 3"],
  whole: Float[Array, "t h w 3"],
  target: Float[Array, "t h w 3"],
  mask: Float[Array, "t h w"],
  parts: UInt8[Array, "t h w"],
  *,
  lpips: Perceptual | None = None,
) -> dict[str, Float[Array, "t"]]:
  """Scores of single frames.

  The truth is the photograph on the avatar's background, as in training: in the soft rim of the mask both are mixtures.
  In the mask: PSNR weighs by the mask m; SSIM and LPIPS see `image m + target (1 - m)`, so outside the mask both
  pictures agree. Mouth and eyes: the mask times the truth's labels. Whole picture: `whole` as it is, so that paint
  outside the head counts as error.

  Args:
    image: what is scored inside the mask.
    whole: what is scored over the whole picture: the same thing shown on the background.
    target: the photograph, composited on the background outside its mask.
    mask: the photograph's soft head-and-neck mask.
    parts: the photograph's 19 labels.
    lpips: LPIPS with the AlexNet, of two picture batches; left out when None.

  Returns:
    One number per frame under "psnr", "ssim", "lpips_alex", and the same with "whole.", "mouth.", "eyes." in front
    (no LPIPS of regions). NaN where a region is not in sight.
  """
  shown, values = _frame_scores(image, whole, target, mask, parts)
  return values | ({"lpips_alex": lpips(shown, target), "whole.lpips_alex": lpips(whole, target)} if lpips is not None else {})


def region_lpips(
  image: Float[Array, "t h w 3"],
  target: Float[Array, "t h w 3"],
  mask: Float[Array, "t h w"],
  parts: UInt8[Array, "t h w"],
  *,
  lpips: Perceptual,
) -> dict[str, Float[Array, "t"]]:
  """LPIPS of the mouth and of the eyes, over the whole picture, which shows the truth everywhere else.

  Args:
    image, target, mask, parts, lpips: as in `frame_scores`.

  Returns:
    One number per frame under "mouth.lpips_alex" and "eyes.lpips_alex"; NaN where a region is not in sight.
  """
  found = {}
  for name, labels in (("mouth", MOUTH), ("eyes", EYES)):
    region = mask * _among(parts, labels)
    seen = jnp.sum(region, axis=(-2, -1)) >= _SMALLEST_REGION
    found[f"{name}.lpips_alex"] = jnp.where(seen, lpips(inside(image, target, region), target), jnp.nan)
  return found


@jax.jit
def _changes(image, target, mask):
  both = jnp.maximum(mask[:, 0], mask[:, 1])
  change, truth = image[:, 1] - image[:, 0], target[:, 1] - target[:, 0]
  grey = jnp.full(3, 0.5, image.dtype)
  return psnr(change, truth, both), composite(0.5 + 0.5 * change, both, grey), composite(0.5 + 0.5 * truth, both, grey)


def pair_scores(
  image: Float[Array, "t 2 h w 3"],
  target: Float[Array, "t 2 h w 3"],
  mask: Float[Array, "t 2 h w"],
  *,
  lpips: Perceptual | None = None,
) -> dict[str, Float[Array, "t"]]:
  """Scores of the change between successive frames: is it the truth's change, or flicker?

  PSNR of (b_1 - b_0) against (a_1 - a_0) with data range 1, in the union of both masks; LPIPS of the differences shown
  around middle grey, 0.5 + 0.5 difference, grey outside the masks.

  Args:
    image: pairs of successive pictures, earlier first.
    target: the truth of the same moments, as in `frame_scores`.
    mask: the truth's masks.
    lpips: as in `frame_scores`.

  Returns:
    One number per pair under "temporal.psnr", "temporal.lpips_alex".
  """
  value, change, truth = _changes(image, target, mask)
  return {"temporal.psnr": value} | ({"temporal.lpips_alex": lpips(change, truth)} if lpips is not None else {})


def successive_pairs(
  indices: Int[np.ndarray, "t"], repeats: Int[np.ndarray, "_"], *, longest_gap: int = _LONGEST_GAP
) -> Int[np.ndarray, "p 2"]:
  """Positions of scored frames that follow each other: nothing lies between them but marked near-repeats.

  Args:
    indices: scored frame numbers, ascending.
    repeats: frame numbers that repeat the picture before them.
    longest_gap: frames; a pair further apart is left out.

  Returns:
    Pairs of positions in `indices`.
  """
  repeated = set(repeats.tolist())
  pairs = [
    (k, k + 1)
    for k, (a, b) in enumerate(zip(indices[:-1].tolist(), indices[1:].tolist(), strict=True))
    if b - a <= longest_gap and all(between in repeated for between in range(a + 1, b))
  ]
  return np.asarray(pairs, np.int64).reshape(-1, 2)
