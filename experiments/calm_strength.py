"""How strongly should a track be filtered? Strengths of `physics.inertia.calmed` on two films -> results/calm_strength.json.

python -m experiments.calm_strength --run_dir=runs/demo/train --demo_data=runs/demo/data

The studio's motion with a tracker's errors in three sizes: jitter and error of the mesh on held-out frames against the truth. The demo
clip: jitter of a trained avatar and PSNR of its held-out pictures. Noise and inertia are fitted on training frames.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jaxtyping import Array

from experiments.ablation_drivers import calmly, driven_by
from experiments.ablation_measures import HELD_OUT, jitter, measure_motion, measure_pictures
from experiments.record import write_record
from silky_jax.apps.player import open_avatar
from silky_jax.data.clips import load_drivers
from silky_jax.data.formats import native
from silky_jax.evaluation.calm import PARAMETERS, calm, fit_calm
from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.studio.motion import make_motion
from silky_jax.studio.noise import disturb
from silky_jax.training.experiment import build
from silky_jax.types import Frame

_RUN = flags.DEFINE_string("run_dir", "runs/demo/train", "An avatar of the demo clip.")
_DEMO = flags.DEFINE_string("demo_data", "runs/demo/data", "Its dataset.")
_JSON = flags.DEFINE_string("json", "experiments/results/calm_strength.json", "Where the figures go.")
_STRENGTHS = (1.0, 1.4, 2.0, 2.8)
_WAYS = {"calm": False, "smooth": True}  # whether it looks ahead
_FRAMES, _FPS, _EVERY = 300, 25.0, 7  # of the studio's motion; vertices looked at
_BLOCK, _FIRST, _TAIL = 25, 20, 255  # frames: every fifth block and the tail are held out, as in the protocol


def studio() -> list[dict[str, Any]]:
  """Of the mesh, mm and mm per frame^3."""
  rig = open_head.load()[0]
  motion = make_motion(_FRAMES, _FPS, seed=0)
  true = {name: np.asarray(getattr(motion, name)) for name in PARAMETERS}
  index = np.arange(_FIRST, _FRAMES)
  held = ((index < _TAIL) & ((index - _FIRST) // _BLOCK % 5 == 4)) | (index >= _TAIL)
  train, heldout, order = index[~held], index[held], np.arange(_FRAMES, dtype=np.int32)

  @jax.jit
  def posed(frames: Frame) -> Array:
    one = lambda frame: flame_vertices(rig, jnp.zeros(80), frame.expression, frame.pose, eyelids=frame.eyelids)[0] + frame.translation
    return jax.lax.map(lambda frame: one(frame)[::_EVERY], frames)

  def filmed(parameters: dict[str, np.ndarray]) -> Frame:
    times, still = (order / _FPS).astype(np.float32), np.zeros(_FRAMES, np.int32)
    nothing = dict.fromkeys(("camera", "image", "mask", "parts", "landmarks"))
    valid = np.ones(_FRAMES, bool)
    return Frame(index=order, time=times, shot=still, timestep=order, view=still, valid=valid, **parameters, **nothing)

  points = lambda frames: 1e3 * np.asarray(posed(frames), np.float64)[heldout]
  real = points(filmed(true))

  def row(noise: float, way: str, strength: float | None, frames: Frame) -> dict[str, Any]:
    found = points(frames)
    error = float(np.sqrt(np.mean(np.sum((found - real) ** 2, axis=-1))))
    return {"noise": noise, "way": way, "strength": strength, "jitter_mm": jitter(found, heldout), "error_mm": error}

  rows = [row(0.0, "truth", None, filmed(true))]
  for noise in (0.5, 1.0, 2.0):
    frames = filmed(disturb(true, rig.expression_names, level=noise, fps=_FPS, seed=0))
    inertia = fit_calm(jax.tree.map(lambda leaf: leaf[train], frames))
    rows.append(row(noise, "tracked", None, frames))
    for way, ahead in _WAYS.items():
      rows += [row(noise, way, strength, calm(frames, inertia, ahead=ahead, strength=strength)) for strength in _STRENGTHS]
  return rows


def demo() -> list[dict[str, Any]]:
  """Of a trained avatar."""
  sequence, player = native.read(_DEMO.value), open_avatar(_RUN.value)
  restored, drivers = player.restored, load_drivers(sequence)
  experiment = build(restored.config)
  settings = experiment.step_config(experiment.stages[-1], restored.meta.capacity).render
  given = experiment.avatar, restored.state.variables, jax.device_put(player.rig)

  def row(way: str, strength: float | None, driven: native.NativeSequence) -> dict[str, Any]:
    seen = measure_pictures(*given, driven, settings, restored.config.background)
    moved = measure_motion(*given, driven, None, training=False)
    return {"way": way, "strength": strength, "psnr": seen["psnr"], "tlp": seen["tlp"], "jitter_mm": moved["heldout.jitter_mm"]}

  rows = [row("tracked", None, sequence)]
  for way, ahead in _WAYS.items():
    made = {strength: calmly(sequence, drivers, ahead=ahead, strength=strength) for strength in _STRENGTHS}
    rows += [row(way, strength, driven_by(sequence, frames)) for strength, frames in made.items()]
  return rows


def main(_: list[str]) -> None:
  """Both films."""
  logging.set_verbosity(logging.WARNING)
  content = {"held_out": list(HELD_OUT), "studio": studio(), "demo": demo()}
  write_record(_JSON.value, content, command="python -m experiments.calm_strength", packages=("jax",))


if __name__ == "__main__":
  app.run(main)
