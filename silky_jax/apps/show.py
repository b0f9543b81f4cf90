"""Pictures and videos of a scored avatar: beside the truth, from around, with a swept expression."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from silky_jax.apps import figures
from silky_jax.apps.export import export_ply
from silky_jax.apps.motions import expression_sweep
from silky_jax.apps.player import Player, open_driver, resting, stance
from silky_jax.apps.report import VIEW_COLUMNS
from silky_jax.apps.score import load_heldout
from silky_jax.config import UserError
from silky_jax.data.clips import Sequence
from silky_jax.data.video import VideoWriter
from silky_jax.evaluation import reenact
from silky_jax.evaluation.calm import calm_driver
from silky_jax.evaluation.playback import play
from silky_jax.evaluation.protocol import read_truth
from silky_jax.evaluation.views import orbit, repeat
from silky_jax.progress import Progress

__all__ = ["OUTPUTS", "render_driven", "write_pictures"]

OUTPUTS = ("heldout.mp4", "avatar.ply", "evaluation/worst.png", "evaluation/views.png", "evaluation/sweep.mp4")
_SWEEP_SIZE = 320  # px
_SLOW_FPS = 12.0  # held-out frames are shown at half speed or less: a person wants to compare


def write_pictures(player: Player, sequence: Sequence, output_dir: Path | str, *, say: Callable[[str], None] = print) -> list[Path]:
  """Write `OUTPUTS` into a folder that `score.evaluate` has been at.

  Args:
    player: the avatar.
    sequence: the dataset.
    output_dir: the evaluated folder.
    say: prints a line.

  Returns:
    The paths written.

  Raises:
    UserError: the folder holds no evaluation, or cannot be written.
  """
  root = Path(output_dir)
  heldout = load_heldout(root)
  splits = [key.removeprefix("indices.") for key in heldout if key.startswith("indices.") and len(heldout[key])]
  figures.write_comparison(root / "heldout.mp4", lambda: _beside(player, sequence, heldout, splits), _SLOW_FPS)
  _write_worst(root / "evaluation" / "worst.png", player, sequence, heldout, splits)
  figures.write_sheet(root / "evaluation" / "views.png", list(heldout["views"]), VIEW_COLUMNS)
  _write_sweep(root / "evaluation" / "sweep.mp4", player, sequence)
  moment = resting(sequence)
  where = stance(player, sequence, moment)
  ahead = orbit(where.centre, np.zeros(1), np.zeros(1), distance=where.distance, focal=where.focal * _SWEEP_SIZE, size=_SWEEP_SIZE)
  export_ply(player, repeat(moment, ahead), root / "avatar.ply", say=say)
  return [root / name for name in OUTPUTS]


def render_driven(
  player: Player,
  flame_params: Path | str,
  output_path: Path | str,
  *,
  resolution: int | None = None,
  calm: Literal["live", "whole"] | None = None,
) -> Path:
  """Render an avatar driven by a file of motion or by a dataset.

  Args:
    player: the avatar.
    flame_params: what `reenact.read_driver` reads.
    output_path: ends in `.mp4`.
    resolution: height in px; the driver's own when None.
    calm: filter what drives it by the inertia that the track itself shows (`evaluation.calm`): as a live driver could, or the track known
      whole.

  Returns:
    The path written.

  Raises:
    UserError: a driver that is missing, broken or of another rig; a path that cannot be written.
  """
  if Path(output_path).suffix.lower() != ".mp4":
    raise UserError(f"--output_path {output_path}: wanted a name that ends in .mp4, found {Path(output_path).suffix or 'no ending'!r}")
  driver = open_driver(player, flame_params)
  driver = calm_driver(driver, ahead=calm == "whole") if calm else driver
  with Progress("render", len(driver.frames.index), "frames") as bar:
    return reenact.render_sequence(player.render, driver, output_path, resolution=resolution, on_frame=bar.update)


def _photos(player: Player, sequence: Sequence, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
  """Photographs on the avatar's background."""
  target = read_truth(sequence, indices, size)
  for image, mask in zip(target.image, target.mask, strict=True):
    yield figures.on_background(image, mask, player.background)


def _beside(
  player: Player, sequence: Sequence, heldout: dict[str, np.ndarray], splits: list[str]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  for split in splits:
    renders, indices = heldout[f"renders.{split}"], heldout[f"indices.{split}"]
    for index, photo, render in zip(indices, _photos(player, sequence, indices, renders.shape[1]), renders, strict=True):
      yield int(index), photo, render


def _write_worst(path: Path, player: Player, sequence: Sequence, heldout: dict[str, np.ndarray], splits: list[str]) -> None:
  split = min(splits, key=lambda name: heldout[f"psnr.{name}"].min())
  place = int(heldout[f"psnr.{split}"].argmin())
  render, index = heldout[f"renders.{split}"][place], heldout[f"indices.{split}"][[place]]
  (photo,) = _photos(player, sequence, index, render.shape[0])
  figures.write_sheet(path, [figures.comparison(photo, render)], 1)


def _write_sweep(path: Path, player: Player, sequence: Sequence) -> None:
  moment = resting(sequence)
  frames = expression_sweep(sequence, moment, player.rig.expression_names, stance(player, sequence, moment), size=_SWEEP_SIZE)
  with VideoWriter(path, 25.0, crf=20) as writer, Progress("sweep", len(frames.index), "frames") as bar:
    for picture in play(player.render, frames):
      writer.add(picture)
      bar.update()
