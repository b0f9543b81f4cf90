"""How long the studio takes, and what its people look like -> experiments/results/studio.json, docs/images/studio.jpg.

python -m experiments.studio_bench
"""

import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from experiments.record import write_record
from silky_jax.apps.figures import write_sheet
from silky_jax.data.formats import native
from silky_jax.studio.dataset import StudioConfig, film
from silky_jax.studio.scene import SceneConfig

_JSON = flags.DEFINE_string("json", "experiments/results/studio.json", "Where the figures go.")
_PICTURE = flags.DEFINE_string("picture", "docs/images/studio.jpg", "Where the picture goes.")
_SCENES = {
  "300 frames, 256 px, one camera": SceneConfig(frames=300, resolution=256),
  "24 frames, 512 px, 8 cameras": SceneConfig(frames=24, resolution=512, cameras=8),
}


def _people(root: Path) -> None:
  """Four persons: three moments of one camera each, labels and mask of the first."""
  pictures = []
  for seed in range(4):
    data = native.read(film(root / f"person{seed}", StudioConfig(seed=seed, scene=SceneConfig(frames=90, resolution=256))))
    pictures += [data.images[k] for k in (8, 30, 55, 68)]
    pictures.append((data.images[8] * (data.masks[8][..., None] / 255.0)).astype(np.uint8))
  write_sheet(Path(_PICTURE.value), pictures, 5)


def main(argv: list[str]) -> None:
  del argv
  rows = {}
  with tempfile.TemporaryDirectory() as folder:
    for name, scene in _SCENES.items():
      begun = time.perf_counter()
      root = film(Path(folder) / "film", StudioConfig(scene=scene))
      seconds = time.perf_counter() - begun
      rows[name] = {"seconds": round(seconds, 1), "pictures": len(native.read(root)), "truth_bytes": (root / "truth.npz").stat().st_size}
      shutil.rmtree(root)
    _people(Path(folder))
  record = {
    "scenes": rows,
  }
  write_record(_JSON.value, record, command="python -m experiments.studio_bench", packages=("jax",))
  print(json.dumps(rows, indent=1))


if __name__ == "__main__":
  app.run(main)
