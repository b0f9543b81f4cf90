"""The stated population of random adult heads, and its principal components.

A person is drawn as follows; every draw is independent, seed `SEED`.

* gender (0 female, 1 male): Beta(0.6, 0.6); old fraction (0 = 25 years, 1 = 90 years): uniform on [0, 0.8];
  ancestry (african, asian, caucasian): Dirichlet(0.6, 0.6, 0.6). They blend MakeHuman's whole-person targets.
* weight: normal, mean 0, sd 0.4, clipped to +-1, from minweight to maxweight at average muscle.
* every paired local target of the head folders (`-decr/-incr`, `-down/-up`, `-in/-out`, ...) has one signed amplitude, normal with
  mean 0 and the sd of `amplitude`, clipped to +-1; positive plays the second target of the pair, negative the first.
* a left/right pair (`l-`, `r-`) shares its amplitude; each side adds its own of `ASYMMETRY` times the sd.
* a target without opposite has the positive part of such an amplitude.
* sideways shifts (`head-angle`, `*-trans-in/out` without a side) have a quarter of the sd; whole-head shifts are left out.

Each head is then moved rigidly (rotation and translation, no scaling) onto the mean head by its face and scalp, so that size differs
between people and place does not; and every head enters with its mirror image, so that mean and
components are symmetric. The identity basis is the leading principal components under the weights of `vertex_weights`.
"""

import re
from dataclasses import dataclass

import numpy as np

from experiments.open_head.makehuman import MakeHuman

__all__ = ["SEED", "Population", "components", "draw_heads"]

SEED = 20240
COUNT = 3000
ASYMMETRY = 0.25
_CLIP = 1.0
_ANCESTRIES = ("african", "asian", "caucasian")
_GENDERS = ("female", "male")
_AGES = ("young", "old")

_OPPOSITES = (
  ("decr", "incr"),
  ("down", "up"),
  ("in", "out"),
  ("backward", "forward"),
  ("concave", "convex"),
  ("compress", "uncompress"),
)
# Shifts of the whole head are pose, not identity; these two pointed ear shapes are no human ears.
_LEFT_OUT = re.compile(r"head-trans-|ear-shape-pointed|ear-shape-triangle")
_SIDEWAYS = re.compile(r"^(head-angle|(nose|mouth|neck)-trans-(in|out))")

# A target is the end of a slider; how far real people go along it is set by its largest displacement, so that no slider counts for more
# than its size in mm. Chosen so that the spread of landmarks after similarity alignment is that of real faces (docs/open_head.md).
_LARGEST = (
  (r"head-scale|head-fat", 5.0),
  (r"head", 2.6),
  (r"neck|measure-neck", 3.0),
  (r"[lr]-ear", 2.5),
  (r"", 2.4),
)  # mm, sd; first match counts
_MOST = 0.3  # largest sd of an amplitude


def amplitude(name: str, *offsets: np.ndarray) -> float:
  """Standard deviation of the signed amplitude of a target (or a pair), from its offsets in decimetres."""
  largest = 100 * np.mean([np.linalg.norm(o, axis=-1).max() for o in offsets])
  wanted = next(value for pattern, value in _LARGEST if re.match(pattern, name))
  return (0.25 if _SIDEWAYS.match(name) else 1.0) * min(_MOST, wanted / largest)


@dataclass(frozen=True)
class Population:
  """Heads as offsets from their mean, in metres, over the kept vertices."""

  mean: np.ndarray  # [v, 3]
  offsets: np.ndarray  # [n, v, 3] float32


def _axes(targets: dict[str, np.ndarray]) -> list[tuple[str | None, str, float]]:
  """(negative target or None, positive target, sd) for every signed axis, sides apart."""
  names = sorted(targets)
  axes, used = [], set()
  for name in names:
    if name in used or _LEFT_OUT.search(name):
      continue
    stem, _, ending = name.rpartition("-")
    for low, high in _OPPOSITES:
      if ending in (low, high) and f"{stem}-{low}" in names and f"{stem}-{high}" in names:
        used |= {f"{stem}-{low}", f"{stem}-{high}"}
        pair = f"{stem}-{low}", f"{stem}-{high}"
        axes.append((*pair, amplitude(name, *(targets[p] for p in pair))))
        break
    else:
      axes.append((None, name, amplitude(name, targets[name])))
  return axes


def _local_amplitudes(axes, count: int, generator: np.random.Generator) -> np.ndarray:
  """[count, axes] signed amplitudes; left and right of one thing go together."""
  shared: dict[str, np.ndarray] = {}
  columns = []
  for _, positive, deviation in axes:
    side = positive[:2] in ("l-", "r-")
    key = positive[2:] if side else positive
    if key not in shared:
      shared[key] = generator.normal(size=count)
    own = ASYMMETRY * generator.normal(size=count) if side else 0
    columns.append(np.clip(deviation * (shared[key] + own), -_CLIP, _CLIP))
  return np.stack(columns, axis=1).astype(np.float32)


def _macro_offsets(source: MakeHuman, ids: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
  """[count, v, 3] offsets of the whole-person targets, decimetres."""
  male = generator.beta(0.6, 0.6, count)
  old = generator.uniform(0, 0.8, count)
  ancestry = generator.dirichlet([0.6] * 3, count)
  weight = np.clip(0.4 * generator.normal(size=count), -1, 1)
  heaviness = {"minweight": np.maximum(-weight, 0), "averageweight": 1 - np.abs(weight), "maxweight": np.maximum(weight, 0)}
  offsets = np.zeros((count, len(ids) * 3), np.float32)
  for gender, of_gender in zip(_GENDERS, (1 - male, male), strict=True):
    for age, of_age in zip(_AGES, (1 - old, old), strict=True):
      for k, name in enumerate(_ANCESTRIES):
        share = of_gender * of_age * ancestry[:, k]
        offsets += np.outer(share, source.macro(f"{name}-{gender}-{age}")[ids].ravel()).astype(np.float32)
      for name, of_weight in heaviness.items():
        target = source.macro(f"universal-{gender}-{age}-averagemuscle-{name}")[ids].ravel()
        offsets += np.outer(of_gender * of_age * of_weight, target).astype(np.float32)
  return offsets.reshape(count, -1, 3)


def _align(heads: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Rigid motion of every head onto the reference by weighted least squares (Kabsch)."""
  weights = weights / weights.sum()
  centres = np.einsum("v,nvc->nc", weights, heads)
  centred = reference - weights @ reference
  moments = np.einsum("nvc,v,vd->ncd", heads - centres[:, None], weights, centred)
  left, _, right = np.linalg.svd(moments)
  flip = np.ones((len(heads), 3))
  flip[:, 2] = np.linalg.det(left @ right)
  rotations = np.einsum("nji,nj,nkj->nik", right, flip, left)
  return np.einsum("nik,nvk->nvi", rotations, heads - centres[:, None]) + weights @ reference


def draw_heads(
  source: MakeHuman, ids: np.ndarray, mirror: np.ndarray, weights: np.ndarray, *, count: int = COUNT, seed: int = SEED
) -> Population:
  """Random heads over the kept vertices, rigidly aligned.

  Args:
    source: the MakeHuman files.
    ids: [v] base mesh vertices to keep.
    mirror: [v] which of them lies at (-x, y, z).
    weights: [v] weights of the alignment (face and scalp).
    count: people; twice as many heads come back.
    seed: of all draws.

  Returns:
    Population in metres, in MakeHuman's axes and origin.
  """
  generator = np.random.default_rng(seed)
  targets = source.head_targets()
  axes = _axes(targets)
  amplitudes = _local_amplitudes(axes, count, generator)
  heads = _macro_offsets(source, ids, count, generator).reshape(count, -1)
  for column, (negative, positive, _) in enumerate(axes):
    heads += np.outer(np.maximum(amplitudes[:, column], 0), targets[positive][ids].ravel().astype(np.float32))
    if negative is not None:
      heads += np.outer(np.maximum(-amplitudes[:, column], 0), targets[negative][ids].ravel().astype(np.float32))
  heads = (heads.reshape(count, -1, 3) + source.base.vertices[ids].astype(np.float32)) / 10
  heads = np.concatenate([heads, heads[:, mirror] * np.float32([-1, 1, 1])])
  mean = heads.mean(0)
  for _ in range(2):
    heads = _align(heads, mean, weights).astype(np.float32)
    mean = heads.mean(0)
  mean = mean.astype(np.float64)
  return Population(mean, (heads - mean).astype(np.float32))


def components(population: Population, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Leading principal components, orthogonal under vertex weights.

  Args:
    population: heads.
    weights: [v] positive weights of the inner product.
    count: components to keep.

  Returns:
    basis: [v, 3, count] metres, each scaled to one standard deviation of its coefficient.
    explained: [count] cumulative fraction of the weighted variance.
  """
  root = np.sqrt(weights).astype(np.float32)[:, None]
  rows = (population.offsets * root).reshape(len(population.offsets), -1)
  gram = (rows @ rows.T).astype(np.float64)
  values, vectors = np.linalg.eigh(gram)
  values, vectors = values[::-1], vectors[:, ::-1]
  deviations = np.sqrt(values[:count] / (len(rows) - 1))
  directions = rows.T @ (vectors[:, :count] / np.sqrt(values[:count])).astype(np.float32)
  basis = (directions * deviations.astype(np.float32)).reshape(*population.mean.shape, count) / root[..., None]
  largest = np.abs(basis).reshape(-1, count).argmax(0)
  signs = np.sign(basis.reshape(-1, count)[largest, np.arange(count)])
  return (basis * signs).astype(np.float64), np.cumsum(values[:count]) / values.sum()
