"""Tracking against the studio's truth, through landmarks made from the truth -> experiments/results/tracking_truth.json.

Landmarks are the true ones in pixels plus white noise and noise that is correlated in time. What the tracker makes of them is compared
with what was filmed: nothing is rendered, so what is measured is the fit, not the detector.

python -m experiments.tracking_truth
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.record import write_record
from silky_jax.data.splits import SplitConfig, make_splits
from silky_jax.flame import open_head
from silky_jax.flame.model import landmarks as rig_landmarks
from silky_jax.geometry.camera import project
from silky_jax.studio.person import make_person
from silky_jax.studio.scene import SceneConfig, make_scene, posed
from silky_jax.tracking import energy, fit, judge, landmarks

_FRAMES = flags.DEFINE_integer("frames", 300, "Frames per person.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Persons.")
_SIZE = flags.DEFINE_integer("size", 512, "Side of the video, px.")
_WHITE = flags.DEFINE_float("white", 0.5, "White noise, px.")
_SLOW = flags.DEFINE_float("slow", 0.5, "Correlated noise, px; it forgets within 0.4 s.")
_JSON = flags.DEFINE_string("json", "experiments/results/tracking_truth.json", "Where the figures go.")


def observed(pixels: np.ndarray, *, white: float, slow: float, fps: float, seed: int) -> np.ndarray:
  """Landmarks as a detector would report them."""
  rng = np.random.default_rng([seed, 9])
  keep, state, drift = np.exp(-1 / (0.4 * fps)), rng.normal(size=pixels.shape[1:]), np.empty_like(pixels)
  for k in range(len(pixels)):
    state = keep * state + np.sqrt(1 - keep**2) * rng.normal(size=state.shape)
    drift[k] = state
  return pixels + white * rng.normal(size=pixels.shape) + slow * drift


def _one(seed: int) -> dict[str, object]:
  config = SceneConfig(frames=_FRAMES.value, resolution=_SIZE.value)
  person = make_person(seed, texture_size=64)
  scene = make_scene(person, config, seed=seed)
  vertices = np.concatenate([posed(person, scene, k, k + 32)[0] for k in range(0, config.frames, 32)])
  rig, embedding, _ = open_head.load()
  points = rig_landmarks(jnp.asarray(vertices), rig.faces, embedding)
  camera = jax.tree.map(lambda a: a[0], scene.cameras)  # the first, one per frame
  pixels = np.asarray(project(points, camera)[0])
  seen = observed(pixels, white=_WHITE.value, slow=_SLOW.value, fps=config.fps, seed=seed)
  splits = make_splits(np.full(config.frames, 9.0), SplitConfig(drop_first=0))
  training = np.isin(np.arange(config.frames), splits["train"])
  model = energy.landmark_rig(rig, embedding, landmarks.weights())
  result = fit.fit_clip(
    model,
    seen.astype(np.float32),
    (config.resolution, config.resolution),
    np.arange(config.frames) / config.fps,
    np.zeros(config.frames, np.int32),
    training,
  )
  told = {key: getattr(scene.motion, key) for key in ("expression", "pose", "eyelids", "translation")}
  known = judge.known_face(rig, {**told, "shape": person.shape, "offset": person.offset}, camera)
  return {"seed": seed} | judge.compare(result, model, known)


def main(argv: list[str]) -> None:
  del argv
  persons = [_one(int(seed)) for seed in _SEEDS.value]
  mean = {key: float(np.mean([p[key] for p in persons])) for key in persons[0] if isinstance(persons[0][key], float)}
  record = {
    "what": f"{_FRAMES.value} studio frames per person at {_SIZE.value} px",
    "landmark_noise_px": {"white": _WHITE.value, "correlated": _SLOW.value},
    "mean": mean,
    "persons": persons,
  }
  write_record(_JSON.value, record, command="python -m experiments.tracking_truth", packages=("jax",))
  print(json.dumps(record["mean"], indent=1))


if __name__ == "__main__":
  app.run(main)
