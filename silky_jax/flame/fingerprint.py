"""Which rig is it? Coefficients mean nothing without the basis they belong to."""

import hashlib

import numpy as np

from silky_jax.types import FlameRig

__all__ = ["rig_hash"]


def rig_hash(rig: FlameRig) -> str:
  """Sixteen hex digits over everything that decides what a coefficient, a pose or a face index means.

  Args:
    rig: the head.

  Returns:
    The same text for the same arrays, whatever machine made them float32.
  """
  digest = hashlib.sha256()
  for name in ("template", "shape_basis", "expression_basis", "pose_basis", "joint_regressor", "skinning", "eyelid_basis", "faces"):
    array = np.ascontiguousarray(getattr(rig, name))
    digest.update(f"{name}{array.shape}{array.dtype}".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]
