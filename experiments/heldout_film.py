"""Held-out frames of a trained avatar beside the truth: a small video and a sheet of stills, for the docs.

    python -m experiments.heldout_film --run_dir=runs/gpu/full_studio/train --data_dir=runs/gpu/full_studio/data --name=full_studio

Writes docs/images/NAME.mp4 and NAME.jpg: truth | avatar | error, on the run's background. Looks at no score and chooses no frame: the
stills are spread evenly.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags

from silky_jax.apps import figures
from silky_jax.apps.player import open_avatar
from silky_jax.data.formats import native

_RUN = flags.DEFINE_string("run_dir", None, "Of `train`.", required=True)
_DATA = flags.DEFINE_string("data_dir", None, "The dataset.", required=True)
_NAME = flags.DEFINE_string("name", None, "Of the files.", required=True)
_STILLS = flags.DEFINE_integer("stills", 6, "How many.", lower_bound=1)
_OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
_SPLITS = ("heldout_blocks", "heldout_tail")
_CHUNK, _HEIGHT = 8, 256  # frames at a time; px of the stills


def main(_: list[str]) -> None:
  """Render, write."""
  player, sequence = open_avatar(_RUN.value), native.read(_DATA.value)
  index = np.concatenate([np.asarray(sequence.splits[split]) for split in _SPLITS])
  rows = list(_beside(player, sequence, index))
  figures.write_comparison(_OUT / f"{_NAME.value}.mp4", rows, sequence.fps, crf=28)
  chosen = np.linspace(0, len(rows) - 1, _STILLS.value).round().astype(int)
  stills = [figures.comparison(truth, avatar) for _, truth, avatar in (rows[i] for i in chosen)]
  every = max(1, sequence.size[1] // _HEIGHT)
  figures.write_sheet(_OUT / f"{_NAME.value}.jpg", [still[::every, ::every] for still in stills], 2)
  print(f"wrote {_OUT / _NAME.value}.mp4 and .jpg: {len(rows)} frames, stills of frames {', '.join(str(rows[i][0]) for i in chosen)}")


def _beside(player, sequence: native.NativeSequence, index: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  """Frame number, photograph, avatar, as bytes."""
  as_bytes = lambda x: np.round(255 * np.clip(np.asarray(x), 0, 1)).astype(np.uint8)
  for first in range(0, len(index), _CHUNK):
    some = index[first : first + _CHUNK]
    frames = sequence.frames(some)
    made = player.render(player.own(frames))[0]
    for number, image, mask, drawn in zip(some, as_bytes(frames.image), as_bytes(frames.mask), as_bytes(made), strict=True):
      yield int(number), figures.on_background(image, mask, player.background), drawn


if __name__ == "__main__":
  app.run(main)
