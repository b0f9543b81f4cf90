"""Lips that touch and lids that meet.

MakeHuman's lips stand a little apart at their corners, and identity targets pull them further apart or through each other; its blink was
made for wider eyes than the mean adult's and overshoots the lower lid. Both are mended here: the lips of the mean and of every identity
component are drawn together along their seam, and the blink is scaled so that the lids of the mean head meet at 1.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.open_head.shade import orbit
from silky_jax.flame.regions import REGIONS
from silky_jax.render.mesh import rasterize_mesh

__all__ = ["Seam", "fit_blink", "gap", "lid_seam", "lip_seam", "seal_lips", "settle_teeth"]

_SIZE = 1024  # px of the close-ups that the seams are read off
_LIP_SPAN, _LID_SPAN = 0.075, 0.05  # metres that they show
_OVERLAP = 2e-4  # metres by which closed lips and lids pass each other, so that no light falls through
_NEAR, _FAR = 1.5e-3, 11e-3  # metres from the seam: moved fully, moved not at all
_ALONG = 1.5e-3  # metres, how far the gap is averaged along the seam
# Metres by which teeth and tongue are moved from MakeHuman's place: upper incisors come to show under the lip, in front of the lower ones.
_SETTLED = {"upper_teeth": (0, -2.0e-3, 2.5e-3), "lower_teeth": (0, -2.0e-3, 0.5e-3), "tongue": (0, -3.0e-3, 0)}


class Seam(NamedTuple):
  """Pairs of surface points that face each other, one pair per picture column."""

  across: np.ndarray  # [c] x, metres
  upper: tuple[np.ndarray, np.ndarray]  # vertex ids [c, 3] and weights [c, 3]
  lower: tuple[np.ndarray, np.ndarray]


def _picture(vertices, faces, centre, span):
  camera = orbit(0, 0, size=_SIZE, distance=1.0, span=span, centre=centre)
  ids, weights, _ = rasterize_mesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32), camera)
  return np.asarray(ids), np.asarray(weights)


def _seam(vertices, faces, ids, weights, above: np.ndarray, below: np.ndarray) -> Seam:
  """Lowest pixel of `above` and highest of `below` in every column that has both."""
  rows = np.arange(_SIZE)[:, None]
  last = np.where(above, rows, -1).max(0)
  first = np.where(below & (rows > last), rows, _SIZE).min(0)
  columns = np.flatnonzero((last >= 0) & (first < _SIZE))
  points = []
  for row in (last[columns], first[columns]):
    points.append((faces[ids[row, columns]], weights[row, columns].astype(np.float64)))
  across = np.einsum("ck,ck->c", points[0][1], vertices[points[0][0], 0])
  return Seam(across, *points)


def lip_seam(vertices: np.ndarray, faces: np.ndarray, regions: np.ndarray) -> Seam:
  """Where the lips of a closed mouth meet, seen from the front."""
  names = np.array(REGIONS)[regions]
  lips = np.isin(names, ["upper_lip", "lower_lip"])
  centre = (vertices[lips].min(0) + vertices[lips].max(0)) / 2
  ids, weights = _picture(vertices, faces, centre, _LIP_SPAN)
  masks = [(ids >= 0) & (names == f"{side}_lip")[faces].all(1)[ids] for side in ("upper", "lower")]
  return _seam(vertices, faces, ids, weights, *masks)


def lid_seam(vertices: np.ndarray, faces: np.ndarray, regions: np.ndarray, side: str) -> Seam:
  """The rims of upper and lower lid of an open eye, seen from the front."""
  names = np.array(REGIONS)[regions]
  ball = (names == f"{side}_eyeball")[faces].all(1)
  ids, weights = _picture(vertices, faces, vertices[names == f"{side}_eyeball"].mean(0), _LID_SPAN)
  seen = (ids >= 0) & ball[ids]
  rows = np.arange(_SIZE)[:, None]
  highest, lowest = np.where(seen, rows, _SIZE).min(0), np.where(seen, rows, -1).max(0)
  skin = (ids >= 0) & ~ball[ids]
  return _seam(vertices, faces, ids, weights, skin & (rows < highest) & (lowest >= 0), skin & (rows > lowest) & (lowest >= 0))


def gap(field: np.ndarray, seam: Seam) -> np.ndarray:
  """[c] upper minus lower y of positions or of offsets; linear in the field [v, 3]."""
  upper, lower = (np.einsum("ck,ck->c", weights, field[ids, 1]) for ids, weights in (seam.upper, seam.lower))
  return upper - lower


def seal_lips(template: np.ndarray, basis: np.ndarray, seam: Seam, jaw: np.ndarray, skin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Draw the lips together: in the template to a small overlap, in every component to no change of their gap.

  Half of the gap is taken from each lip, in full near the seam and fading out 11 mm away from it.

  Args:
    template: [v, 3] metres.
    basis: [v, 3, k] identity components.
    seam: of the template.
    jaw: [v] jaw skin weight; above 1/2 a vertex goes with the lower lip.
    skin: [v] bool, body vertices.

  Returns:
    template and basis, corrected in y.
  """
  template, basis = template.copy(), basis.copy()
  line = sum(np.einsum("ck,ckd->cd", weights, template[ids]) for ids, weights in (seam.upper, seam.lower)) / 2
  along = np.exp(-(((template[:, None, 0] - seam.across) / _ALONG) ** 2) / 2) + 1e-12
  along /= along.sum(1, keepdims=True)
  ends = np.clip((np.abs(seam.across).max() + 2e-3 - np.abs(template[:, 0])) / 2e-3, 0, 1)
  distance = np.linalg.norm(template[:, None] - line, axis=-1).min(1)
  fade = np.clip((_FAR - distance) / (_FAR - _NEAR), 0, 1)
  side = np.where(jaw > 0.5, 0.5, -0.5) * (fade * fade * (3 - 2 * fade)) * skin * ends
  for _ in range(12):  # a pair hangs on vertices that move a little less than the seam itself
    template[:, 1] += side * (along @ (gap(template, seam) + _OVERLAP))
    for k in range(basis.shape[-1]):
      basis[:, 1, k] += side * (along @ gap(basis[..., k], seam))
  return template, basis


def fit_blink(unit: np.ndarray, template: np.ndarray, seam: Seam) -> np.ndarray:
  """Scale a blink along the eye so that the lids of the template meet at weight 1.

  Args:
    unit: [v, 3] offsets of a full blink, metres.
    template: [v, 3].
    seam: that eye's.

  Returns:
    [v, 3] offsets; the scale is a parabola in x fitted to (gap + overlap) / closure, weighted by the closure.
  """
  closure = -gap(unit, seam)
  centre, half = seam.across.mean(), np.ptp(seam.across) / 2
  place = (seam.across - centre) / half
  design = np.stack([np.ones_like(place), place, place**2], axis=1) * closure[:, None]
  coefficients = np.linalg.lstsq(design, gap(template, seam) + _OVERLAP, rcond=None)[0]
  here = np.clip((template[:, 0] - centre) / half, -1, 1)
  scale = coefficients @ np.stack([np.ones_like(here), here, here**2])
  return unit * np.clip(scale, 0.3, 1.3)[:, None]


def settle_teeth(template: np.ndarray, regions: np.ndarray) -> np.ndarray:
  """Teeth and tongue moved to where a closed mouth has them."""
  template = template.copy()
  for name, offset in _SETTLED.items():
    template[regions == REGIONS.index(name)] += offset
  return template
