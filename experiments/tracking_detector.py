"""Tracking studio films through the real landmark detector, against their truth -> experiments/results/tracking_detector.json.

`experiments.tracking_truth` measures the fit on landmarks made from the truth; here everything is in it: the detector's idea of a face,
compression, masks. The quality page of each film shows the errors frame by frame.

python -m experiments.tracking_detector --work_dir=runs/tracking_detector
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags

from experiments.record import write_record
from silky_jax.apps.truth import known_truth
from silky_jax.studio.dataset import StudioConfig, film
from silky_jax.studio.scene import SceneConfig
from silky_jax.tracking.pipeline import preprocess

_WORK = flags.DEFINE_string("work_dir", "runs/tracking_detector", "Films and datasets; what is there is used again.")
_JSON = flags.DEFINE_string("json", "experiments/results/tracking_detector.json", "Where the figures go.")
_FRAMES = flags.DEFINE_integer("frames", 150, "Frames per person.")
_SIZE = flags.DEFINE_integer("size", 256, "Side of the films, px.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Persons.")


def _one(seed: int) -> dict[str, object]:
  filmed, tracked = (Path(_WORK.value) / f"{kind}_{seed}" for kind in ("film", "tracked"))
  if not (filmed / "dataset.json").exists():
    film(filmed, StudioConfig(seed=seed, scene=SceneConfig(frames=_FRAMES.value, resolution=_SIZE.value)))
  preprocess(filmed / "video.mp4", tracked, resolution=_SIZE.value, known=known_truth(filmed))
  quality = json.loads((tracked / "quality.json").read_text())
  kept = ("landmark_residual_face_widths", "frames", "frames_without_face", "identity_rms", "openings")
  return {"seed": seed} | quality["truth"] | {key: quality[key] for key in kept}


def main(argv: list[str]) -> None:
  del argv
  persons = [_one(int(seed)) for seed in _SEEDS.value]
  mean = {key: float(np.mean([p[key] for p in persons])) for key in persons[0] if isinstance(persons[0][key], float)}
  what = f"{_FRAMES.value} studio frames per person at {_SIZE.value} px, through the landmark detector and all of preprocess"
  record = {"what": what, "mean": mean, "persons": persons}
  write_record(_JSON.value, record, command="python -m experiments.tracking_detector", packages=("jax", "mediapipe"))
  print(json.dumps(mean, indent=1))


if __name__ == "__main__":
  app.run(main)
