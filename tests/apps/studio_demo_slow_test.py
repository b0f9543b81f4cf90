"""The demo guarded by the studio: a reduced one held to a floor of scores, and killed in every stage without a trace in the result."""

import json
import time

import numpy as np
import pytest

from experiments import resume_drill as drill

pytestmark = pytest.mark.slow
_STEPS = 400


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return drill.make_clip(tmp_path_factory.mktemp("film") / "studio")


@pytest.fixture(scope="module")
def straight(clip, tmp_path_factory):
  """60 frames, 96 px."""
  output = tmp_path_factory.mktemp("straight") / "out"
  begun = time.perf_counter()
  drill.run(drill.demo_command(clip, output, steps=_STEPS))
  return output, time.perf_counter() - begun


def test_a_made_up_person_becomes_an_avatar(straight):
  output, _ = straight
  metrics = json.loads((output / "metrics.json").read_text())
  tail = metrics["heldout_tail"]
  # Measured on persons 0, 1 and 2: 28.6, 32.9 and 25.6 dB, the nearest photograph 24.0, 32.7 and 24.6. This is person 0.
  assert tail["avatar"]["psnr"] >= 27.5
  assert tail["avatar"]["psnr"] >= tail["nearest_frame"]["psnr"] + 3.0
  assert metrics["facts"]["frames"]["heldout_tail"] == 8 and metrics["facts"]["gaussians"] > 1500
  quality = json.loads((output / "data" / "quality.json").read_text())
  assert quality["landmark_residual_face_widths"] <= 0.02 and quality["frames_without_face"] == 0
  for name in ("report.html", "heldout.mp4", "avatar.ply", "data/overlay.mp4", "data/quality.html"):
    assert (output / name).stat().st_size > 1000, name


def test_killed_three_times_it_ends_with_the_same_result(clip, straight, tmp_path):
  """In tracking, in a checkpoint's write, in the evaluation: each time another rerun goes on. Twenty kills: experiments/resume_drill.py."""
  output, seconds = straight
  broken, rng = tmp_path / "broken", np.random.default_rng(1)
  command = drill.demo_command(clip, broken, steps=_STEPS)
  moments = (("any time", 0.3 * seconds), ("checkpoint", seconds), ("evaluation", seconds))
  kills = [drill.run_and_kill(command, broken, kind, most, rng) for kind, most in moments]
  assert all(kill["was_running"] for kill in kills), kills
  assert kills[1]["during"] == "a checkpoint's write" and kills[2]["during"] == "eval", kills
  drill.run(command)
  assert drill.digest(broken) == drill.digest(output), kills
