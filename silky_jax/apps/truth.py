"""The truth of a studio film, as the judge of tracking wants it."""

from pathlib import Path

import jax.numpy as jnp

from silky_jax.apps.player import find_rig
from silky_jax.data.formats import native
from silky_jax.studio.dataset import read_truth
from silky_jax.tracking.judge import Known, known_face
from silky_jax.tracking.stages import file_fingerprint
from silky_jax.types import Camera

__all__ = ["known_truth"]


def known_truth(studio_dir: Path | str) -> Known:
  """What really was in front of the first camera of a studio film, whose `video.mp4` is its pictures.

  Raises:
    UserError: the folder holds no studio film, or one of another rig.
  """
  folder = Path(studio_dir)
  truth, header = read_truth(folder), native.read_header(folder)
  camera = Camera(jnp.asarray(truth.world_to_camera[0]), jnp.asarray(truth.intrinsics[0]), width=header["width"], height=header["height"])
  name = f"{header['video']['name']} ({file_fingerprint(folder / 'truth.npz')})"
  return known_face(find_rig(header["rig"], header["rig_hash"]), truth.parameters, camera, name)
