"""Side by side and slowly: truth | neither term, driven as tracked | both terms, driven calmly -> docs/images/ablation_*.mp4.

python -m experiments.ablation_film --work_dir=runs/ablate_physics --demo_data=runs/demo/data

The pictures are those that `ablate_physics` left: the frames of the last held-out split, of the first seed.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from experiments.pages import DOCS
from silky_jax.apps import figures
from silky_jax.data.formats import native
from silky_jax.data.video import VideoWriter
from silky_jax.evaluation.playback import bytes_of

_WORK = flags.DEFINE_string("work_dir", "runs/ablate_physics", "Of `ablate_physics`.")
_DEMO = flags.DEFINE_string("demo_data", "runs/demo/data", "The demo clip's dataset.")
_SLOWER = 3.0  # times
_GREY = np.full(3, 0.5, np.float32)  # the recipe's background
_FILMS = {"studio": ("none_noise_1", "both_noise_1"), "demo": ("none_demo", "both_demo")}


def main(_: list[str]) -> None:
  """Write one video per film whose pictures are there."""
  for name, cases in _FILMS.items():
    data = Path(_WORK.value) / "film" if name == "studio" else Path(_DEMO.value)
    files = [Path(_WORK.value) / "pictures" / f"{case}.npz" for case in cases]
    if missing := [str(path) for path in (*files, data / "dataset.json") if not path.exists()]:
      print(f"{name}: left out, {', '.join(missing)} is not there")
      continue
    sequence = native.read(data)
    shown = [np.load(path, allow_pickle=False)["pictures"] for path in files]
    path = DOCS / "images" / f"ablation_{name}.mp4"
    with VideoWriter(path, sequence.fps / _SLOWER, crf=24) as writer:
      for place, index in enumerate(np.asarray(sequence.splits["heldout_tail"])):
        frame = sequence.frames(np.asarray([index]))
        truth = figures.on_background(bytes_of(frame.image)[0], bytes_of(frame.mask)[0], _GREY)
        writer.add(np.concatenate([truth, *(part[place] for part in shown)], axis=1))
    print(f"wrote {path}")


if __name__ == "__main__":
  app.run(main)
