"""How much landmarks move when the picture does not, with and without in-plane views -> experiments/results/landmark_noise.json.

Consecutive frames of the bundled clip that are the same picture but for compression (mean change below 0.3 of 255): what the landmarks
move between them is noise.

python -m experiments.landmark_noise
"""

import itertools
import json

import numpy as np
from absl import app, flags

from experiments.record import write_record
from silky_jax.apps.demo import bundled_clip
from silky_jax.data.video import iter_frames
from silky_jax.tracking.landmarks import FACE_SIDES, DetectorConfig, detect

_FRAMES = flags.DEFINE_integer("frames", 200, "Frames looked at, from the 21st on.")
_JSON = flags.DEFINE_string("json", "experiments/results/landmark_noise.json", "Where the figures go.")
_SAME = 0.3  # of 255


def main(argv: list[str]) -> None:
  del argv
  images = [image for k, (_, image) in enumerate(iter_frames(bundled_clip())) if 20 <= k < 20 + _FRAMES.value]
  same = np.array([np.abs(a.astype(int) - b).mean() < _SAME for a, b in itertools.pairwise(images)])
  figures = {}
  for rotations in ((0.0,), DetectorConfig().rotations):
    points = np.stack(list(detect(images, DetectorConfig(rotations=rotations))))
    width = np.nanmean(np.linalg.norm(points[:, FACE_SIDES[0]] - points[:, FACE_SIDES[1]], axis=-1))
    moved = np.linalg.norm(np.diff(points, axis=0), axis=-1)[same] / width
    figures[f"{len(rotations)} views"] = {
      "rotations_degrees": list(rotations),
      "mean_face_widths": float(np.nanmean(moved)),
      "p95_face_widths": float(np.nanpercentile(moved, 95)),
    }
  record = {
    "what": "distance of each of 478 landmarks between consecutive frames that show the same picture",
    "pairs": int(same.sum()),
    "landmarks": figures,
  }
  write_record(_JSON.value, record, command="python -m experiments.landmark_noise", packages=("mediapipe",))
  print(json.dumps(record, indent=1))


if __name__ == "__main__":
  app.run(main)
