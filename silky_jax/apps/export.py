"""Take an avatar elsewhere: one driven moment as a splat file."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from silky_jax.apps.player import Player
from silky_jax.config import UserError
from silky_jax.evaluation.playback import driving
from silky_jax.gaussians import ply
from silky_jax.types import Frame

__all__ = ["export_ply"]


def export_ply(player: Player, frame: Frame, output_path: Path | str, *, say: Callable[[str], None] | None = None) -> Path:
  """Write the Gaussians of one moment as a PLY in the full layout of 3D Gaussian splatting.

  Colours are those seen from the frame's camera: the file is a frozen pose, and view dependence is baked in.

  Args:
    player: the avatar.
    frame: what drives it, batch [1], with a camera.
    output_path: ends in `.ply`; its folder is made where missing.
    say: prints a line.

  Returns:
    The path written.

  Raises:
    UserError: the path does not end in `.ply`, or cannot be written.
  """
  path = Path(output_path)
  if path.suffix.lower() != ".ply":
    raise UserError(f"--output_path {path}: wanted a name that ends in .ply, found {path.suffix or 'no ending'!r}")
  one = jax.tree.map(lambda a: jnp.asarray(a)[0], driving(frame))
  raw = ply.from_gaussians(player.gaussians(one))
  try:
    os.makedirs(path.parent, exist_ok=True)
    ply.write(path, raw)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}; choose another --output_path") from error
  if say is not None:
    say(f"{path}: {len(raw.means):,} Gaussians, {path.stat().st_size / 2**20:.1f} MiB")
  return path
