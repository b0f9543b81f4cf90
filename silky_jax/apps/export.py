"""Take an avatar elsewhere: one driven moment as a splat file, or a motion as a folder of them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.apps.player import Player, open_driver
from silky_jax.config import UserError
from silky_jax.evaluation.playback import driving, take
from silky_jax.gaussians import ply
from silky_jax.progress import Progress
from silky_jax.types import Frame

__all__ = ["export_driven", "export_ply", "export_sequence"]


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


def export_driven(
  player: Player, flame_params: Path | str, number: int, output_path: Path | str, *, say: Callable[[str], None] | None = None
) -> Path:
  """Write one frame of a driver as a PLY; see `export_ply`.

  Args:
    player: the avatar.
    flame_params: what `reenact.read_driver` reads.
    number: which frame of it, from 0.
    output_path: ends in `.ply`.
    say: prints a line.

  Raises:
    UserError: a driver that is missing, broken or of another rig; no such frame; a path that cannot be written.
  """
  driver = open_driver(player, flame_params)
  count = len(driver.frames.index)
  if not 0 <= number < count:
    raise UserError(f"--frame: wanted 0 to {count - 1}, the frames of {driver.path}, found {number}")
  return export_ply(player, take(driver.frames, np.array([number])), output_path, say=say)


def export_sequence(
  player: Player, flame_params: Path | str, output_dir: Path | str, *, say: Callable[[str], None] | None = None
) -> list[Path]:
  """Write every frame of a driver as `%05d.ply` in a folder, which appears only when it is whole; see `export_ply`.

  Args:
    player: the avatar.
    flame_params: what `reenact.read_driver` reads.
    output_dir: the folder to make; must not exist, or be empty.
    say: prints a line.

  Returns:
    The paths written.

  Raises:
    UserError: a driver that is missing, broken or of another rig; a folder that holds something or cannot be written.
  """
  driver, folder = open_driver(player, flame_params), Path(output_dir)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(f"--output_path {folder}: wanted a new or empty folder for the sequence, found something in it; choose another")
  part = folder.with_name(f".{folder.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  count = len(driver.frames.index)
  try:
    with Progress("export", count, "frames") as bar:
      for number in range(count):
        export_ply(player, take(driver.frames, np.array([number])), part / f"{number:05d}.ply")
        bar.update()
    if folder.exists():
      folder.rmdir()
    os.replace(part, folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  paths = sorted(folder.glob("*.ply"))
  if say is not None:
    say(f"{folder}: {count} files, {sum(path.stat().st_size for path in paths) / 2**20:.1f} MiB")
  return paths
