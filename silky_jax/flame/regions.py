"""Anatomical regions: parsing labels, the open head's region names, and masks over vertices and faces."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8

from silky_jax.types import FlameRig

__all__ = [
  "BOUNDARY",
  "EYES",
  "FACE",
  "HEAD_AND_NECK",
  "HIDDEN",
  "MOUTH",
  "PARTS",
  "PART_OF_REGION",
  "REGIONS",
  "face_mask",
  "face_parts",
  "face_regions",
  "parsing_masks",
  "vertex_mask",
]

# The 19 labels of CelebAMask-HQ parsing maps (Lee et al. 2020), in id order. Left and right are the subject's.
PARTS = (
  "background",
  "skin",
  "left_brow",
  "right_brow",
  "left_eye",
  "right_eye",
  "glasses",
  "left_ear",
  "right_ear",
  "earring",
  "nose",
  "mouth_interior",
  "upper_lip",
  "lower_lip",
  "neck",
  "necklace",
  "cloth",
  "hair",
  "hat",
)

# Region names of the open head and the label each is seen as. A rig with other regions brings names of this table or is labelled skin.
PART_OF_REGION = {
  "face": "skin",
  "forehead": "skin",
  "nose": "nose",
  "left_brow": "left_brow",
  "right_brow": "right_brow",
  "left_eye_region": "skin",
  "right_eye_region": "skin",
  "left_eyeball": "left_eye",
  "right_eyeball": "right_eye",
  "eye_socket": "skin",
  "upper_lip": "upper_lip",
  "lower_lip": "lower_lip",
  "mouth_interior": "mouth_interior",
  "upper_teeth": "mouth_interior",
  "lower_teeth": "mouth_interior",
  "tongue": "mouth_interior",
  "left_ear": "left_ear",
  "right_ear": "right_ear",
  "scalp": "hair",
  "neck": "neck",
  "torso": "cloth",
}
REGIONS = tuple(PART_OF_REGION)

EYES = frozenset({"left_eye_region", "right_eye_region", "left_eyeball", "right_eyeball"})
MOUTH = frozenset({"upper_lip", "lower_lip", "mouth_interior", "upper_teeth", "lower_teeth", "tongue"})
FACE = frozenset({"face", "forehead", "nose", "left_brow", "right_brow"}) | EYES | MOUTH
HEAD_AND_NECK = frozenset(REGIONS) - {"torso"}
# Cloth and shoulders: no part of the head, no Gaussians wanted.
BOUNDARY = frozenset({"torso"})
# Behind the eyeballs: never seen.
HIDDEN = frozenset({"eye_socket"})


def parsing_masks(labels: UInt8[Array, "*b"]) -> tuple[Bool[Array, "*b"], Bool[Array, "*b"], Bool[Array, "*b"]]:
  """The three masks that FlashAvatar-style datasets hold, from a parsing map.

  Args:
    labels: ids into `PARTS`.

  Returns:
    alpha: labels 1 to 17; a hat is none of it.
    neckhead: those without cloth.
    mouth: its interior and both lips.
  """
  inside = (labels >= 1) & (labels <= PARTS.index("hair"))
  mouth = (labels >= PARTS.index("mouth_interior")) & (labels <= PARTS.index("lower_lip"))
  return inside, inside & (labels != PARTS.index("cloth")), mouth


def vertex_mask(rig: FlameRig, names: frozenset[str] | set[str] | tuple[str, ...]) -> Bool[Array, "v"]:
  """Vertices of some regions.

  Args:
    rig: the head.
    names: region names; those the rig does not have are taken as empty.

  Returns:
    True where the vertex belongs to one of them.

  Raises:
    ValueError: a name that neither the rig nor `REGIONS` knows.
  """
  unknown = sorted(set(names) - set(rig.region_names) - set(REGIONS))
  if unknown:
    raise ValueError(f"names: expected regions of the rig {rig.region_names}, got {unknown}")
  return jnp.asarray([name in names for name in rig.region_names])[rig.regions]


def face_mask(rig: FlameRig, names: frozenset[str] | set[str] | tuple[str, ...]) -> Bool[Array, "f"]:
  """Faces with all three vertices in some regions. Arguments and errors as `vertex_mask`."""
  return jnp.all(vertex_mask(rig, names)[rig.faces], axis=-1)


def face_regions(rig: FlameRig) -> Int[Array, "f"]:
  """One region per face: the one of most of its vertices, the lowest id where all three differ.

  Args:
    rig: the head.

  Returns:
    int32 ids into `rig.region_names`.
  """
  first, second, third = (rig.regions[rig.faces[:, k]] for k in range(3))
  lowest = jnp.minimum(first, jnp.minimum(second, third))
  return jnp.where(second == third, second, jnp.where((first == second) | (first == third), first, lowest))


def face_parts(rig: FlameRig) -> Int[Array, "f"]:
  """The parsing label of each face.

  Args:
    rig: the head.

  Returns:
    int32 ids into `PARTS`.
  """
  ids = [PARTS.index(PART_OF_REGION.get(name, "skin")) for name in rig.region_names]
  return jnp.asarray(ids, jnp.int32)[face_regions(rig)]
