"""Cloth that stands where the rig has its neck, told from skin by colour.

The person mask is cut at the rig's neck, but collars reach higher, most of all beside the neck. Kept as neck, they are learnt as skin of
the shirt's colour, and tear when the head turns away from the shirt.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from silky_jax.data.images import grow, to_lab
from silky_jax.flame import regions

__all__ = ["Collar"]

_FACE = tuple(regions.PARTS.index(name) for name in ("skin", "nose"))
_NECK, _CLOTH = regions.PARTS.index("neck"), regions.PARTS.index("cloth")
_FEWEST = 200  # samples that a colour needs
_NOISE = 3.0  # CIELAB units added to every spread: compression alone makes as much
_MARGIN = 4.0  # by how much cloth must explain a pixel better, in squared deviations


class Collar:
  """The colours of one person's skin and cloth, each a Gaussian in CIELAB; nothing is cloth where one of them was not seen."""

  def __init__(self, samples: Iterable[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]):
    """Learn from pictures and their labels; training frames alone, since what is learnt shapes every mask."""
    found: dict[str, list[np.ndarray]] = {"face": [], "neck": [], "cloth": []}
    for image, labels in samples:
      color, side = to_lab(image), image.shape[0]
      found["face"].append(color[_core(np.isin(labels, _FACE), side // 64)])
      found["neck"].append(color[_core(labels == _NECK, side // 20)])  # far from the collar
      found["cloth"].append(color[_core(labels == _CLOTH, side // 40)])
    pools = {name: np.concatenate(parts) for name, parts in found.items()}
    self._colors = {name: _gaussian(pool) for name, pool in pools.items() if len(pool) >= _FEWEST}

  def covers(self, image: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Neck pixels that look like cloth and hang together with the cloth below, and scraps that they cut off from the head."""
    nothing = np.zeros(labels.shape, bool)
    skins = [self._colors[name] for name in ("face", "neck") if name in self._colors]
    if "cloth" not in self._colors or not skins:
      return nothing
    neck = labels == _NECK
    if not neck.any():
      return nothing
    color = to_lab(image)[neck]
    likely = nothing.copy()
    likely[neck] = _misfit(color, self._colors["cloth"]) + _MARGIN < np.min([_misfit(color, skin) for skin in skins], axis=0)
    likely = ndimage.median_filter(likely, 5) & neck
    pieces: np.ndarray = ndimage.label(likely | (labels == _CLOTH))[0]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
    cloth = likely & np.isin(pieces, np.unique(pieces[labels == _CLOTH]))
    head = (labels != 0) & (labels != _CLOTH)
    kept = ndimage.binary_opening(head & ~cloth, np.ones((3, 3), bool)) | (head & ~grow(cloth, 2))
    return head & ~_largest(kept) if cloth.any() else nothing


def _core(mask: Bool[np.ndarray, "h w"], margin: int) -> Bool[np.ndarray, "h w"]:
  return ~grow(~mask, max(1, margin))


def _largest(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
  pieces: np.ndarray = ndimage.label(mask)[0]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
  return (pieces == 1 + int(np.argmax(np.bincount(pieces[mask])[1:]))) if mask.any() else mask


def _gaussian(samples: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
  return samples.mean(axis=0), np.cov(samples.T) + _NOISE**2 * np.eye(3)


def _misfit(color: Float[np.ndarray, "n 3"], gaussian: tuple[np.ndarray, np.ndarray]) -> Float[np.ndarray, "n"]:
  """-2 log likelihood, without the constant."""
  mean, covariance = gaussian
  away = color - mean
  return np.einsum("nc,cd,nd->n", away, np.linalg.inv(covariance), away) + np.linalg.slogdet(covariance)[1]
