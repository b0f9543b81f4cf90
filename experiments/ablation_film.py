"""Side by side: truth | neither term, driven as tracked | both terms, driven calmly. Slowly -> docs/images/ablation_*.mp4, and one column
of every picture, from left to right in time -> docs/images/ablation_*_column.png: what shakes has teeth there.

python -m experiments.ablation_film --work_dir=runs/ablate_physics --demo_data=runs/demo/data

The pictures are those that `ablate_physics` left: the frames of the last held-out split, of the first seed.
"""

from pathlib import Path

import cv2
import numpy as np
from absl import app, flags
from jaxtyping import Float, UInt8

from experiments.pages import DOCS
from silky_jax.apps import figures
from silky_jax.data.formats import native
from silky_jax.data.video import VideoWriter
from silky_jax.evaluation.playback import bytes_of

_WORK = flags.DEFINE_string("work_dir", "runs/ablate_physics", "Of `ablate_physics`.")
_DEMO = flags.DEFINE_string("demo_data", "runs/demo/data", "The demo clip's dataset.")
_SLOWER = 3.0  # times
_WIDE, _GAP = 5, 8  # px
_GREY = np.full(3, 0.5, np.float32)  # the recipe's background
_FILMS = {"studio": ("none_noise_1", "both_noise_1"), "demo": ("none_demo", "both_demo")}


def main(_: list[str]) -> None:
  """Write one video and one picture per film whose pictures are there."""
  for name, cases in _FILMS.items():
    data = Path(_WORK.value) / "film" if name == "studio" else Path(_DEMO.value)
    files = [Path(_WORK.value) / "pictures" / f"{case}.npz" for case in cases]
    if missing := [str(path) for path in (*files, data / "dataset.json") if not path.exists()]:
      print(f"{name}: left out, {', '.join(missing)} is not there")
      continue
    sequence = native.read(data)
    index = np.asarray(sequence.splits["heldout_tail"])
    film = [sequence.frames(np.asarray([place])) for place in index]
    truth = np.stack([figures.on_background(bytes_of(frame.image)[0], bytes_of(frame.mask)[0], _GREY) for frame in film])
    shown = np.stack([truth, *(np.load(path, allow_pickle=False)["pictures"] for path in files)])
    path = DOCS / "images" / f"ablation_{name}.mp4"
    with VideoWriter(path, sequence.fps / _SLOWER, crf=24) as writer:
      for place in range(len(index)):
        writer.add(np.concatenate(shown[:, place], axis=1))
    column = _columns(shown, np.stack([frame.mask[0] for frame in film]))
    cv2.imwrite(str(DOCS / "images" / f"ablation_{name}_column.png"), column[..., ::-1])
    print(f"wrote {path} and its column")


def _columns(shown: UInt8[np.ndarray, "k t h w 3"], mask: Float[np.ndarray, "t h w"]) -> UInt8[np.ndarray, "y x 3"]:
  """The column through the middle of the head, each film's beside the other's, a frame _WIDE px wide."""
  rows, columns = np.nonzero(mask.mean(axis=0) > 0.5)
  middle, top, bottom = int(columns.mean()), rows.min(), rows.max() + 1
  strips = np.repeat(np.moveaxis(shown[:, :, top:bottom, middle], 1, 2), _WIDE, axis=2)  # k, y, t, 3
  apart = np.pad(strips, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
  return np.repeat(np.concatenate(apart, axis=1)[:, :-_GAP], 2, axis=0)


if __name__ == "__main__":
  app.run(main)
