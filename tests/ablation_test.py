"""The ablation's arithmetic: jitter, tearing, the summary; every case's config can be built."""

from pathlib import Path

import numpy as np
import pytest

from experiments import ablation_measures as measures
from experiments.ablation_cases import CASES, experiment_of
from experiments.ablation_drivers import LOW_PASSES, WAYS, drive
from experiments.ablation_summary import Look, figure, summary
from silky_jax.data.formats import native
from silky_jax.training.experiment import build


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_built(name):
  case = CASES[name]
  experiment = build(experiment_of(case, steps=200, uv_size=48, width=16))
  active = set(experiment.stages[-1].regularizers)
  assert {"physics", "transport"} & active == set(case.terms)
  assert len(experiment.stages) <= 3


@pytest.mark.parametrize("index", [[0, 1, 2, 3, 4, 10, 11, 12], [0, 2, 3, 6, 7, 9, 10, 20, 21, 22]])
def test_jitter_is_the_third_derivative_of_frames_that_are_near(index):
  index = np.asarray(index)
  time = index[:, None, None].astype(float)
  smooth = np.concatenate([time, time**2, 0 * time], axis=-1)
  np.testing.assert_allclose(measures.jitter(smooth, index), 0.0, atol=1e-9)
  cubic = np.concatenate([time**3, 0 * time, 0 * time], axis=-1)
  np.testing.assert_allclose(measures.jitter(cubic, index), 6.0)
  torn = np.where(index[:, None, None] > 9, cubic + 1e3, cubic)
  if 6 in index:
    torn[index == 10] -= 1e3  # what is behind the gap is no part of a motion
  np.testing.assert_allclose(measures.jitter(torn, index), 6.0)


def _row(case, **figures):
  usual = {"psnr": 30.0, "heldout.true_jitter_mm": 1.0, "heldout.error_mm": 2.0, "tearing": 0.1}
  run = usual | {key.replace("__", "."): value for key, value in figures.items()}
  return {"case": case, "runs": [run, run]}


def test_summary():
  calm = {"calm: psnr": 29.95, "calm: heldout.jitter_mm": 1.5, "calm: heldout.error_mm": 1.5}
  low = {"one pole 0.5: psnr": 29.9, "one pole 0.5: heldout.jitter_mm": 2.0}
  low |= {"one pole 0.3: psnr": 28.0, "one pole 0.3: heldout.jitter_mm": 1.1}  # nearer, at the price of the picture: no rival
  rows = [
    _row("none, noise 1", **{"heldout.jitter_mm": 3.0, **low}),
    _row("both, noise 1", **{"heldout.jitter_mm": 2.8, **calm}),
    _row("transport, noise 1", **{"heldout.jitter_mm": 3.0, "tearing": 0.04}),
    _row("control: no network", **{"heldout.jitter_mm": 1.0, "psnr": 25.0}),
  ]
  found = summary(rows)
  np.testing.assert_allclose(found["studio_jitter_reduction"], 0.75)
  np.testing.assert_allclose(found["studio"]["terms"]["jitter_reduction"], 0.1)
  np.testing.assert_allclose([found["studio_psnr_change_db"], found["studio_error_change_mm"]], [-0.05, -0.5])
  np.testing.assert_allclose(found["tearing_ratio"], 0.4)
  assert found["beats_controls"] is True and found["demo_jitter_reduction"] is None and found["noise_ladder"]["2"] is None
  assert found["beats_calm_controls"] is None and found["free_network"]["tearing_ratio"] is None  # not run
  frozen = {"calm: psnr": 30.0, "calm: heldout.jitter_mm": 1.4}
  rows[3] = _row("control: no network", **{"heldout.jitter_mm": 1.0, "psnr": 25.0, **frozen})  # as calm, and a better picture
  rows += [_row("free network, none", tearing=0.2, tearing_doubled=0.4), _row("free network, transport", tearing=0.05, tearing_doubled=0.1)]
  found = summary(rows)
  assert found["beats_controls"] is True and found["beats_calm_controls"] is False
  np.testing.assert_allclose([found["free_network"][f"{name}_ratio"] for name in ("tearing", "tearing_doubled")], 0.25)
  rows[0] = _row("none, noise 1", **{"heldout.jitter_mm": 3.0, **low, "one pole 0.5: heldout.jitter_mm": 1.2})
  assert summary(rows)["beats_controls"] is False


def test_a_figure_is_of_its_way_and_of_all_seeds():
  """Training frames are driven in one way, whatever held-out frames are driven by."""
  runs = [{"psnr": 1.0 + seed, "calm: psnr": 3.0 + seed, "train.error_mm": 5.0 + seed, "seam": (2.0, None)[seed]} for seed in range(2)]
  rows = {"both": {"runs": runs}}
  np.testing.assert_array_equal(figure(rows, Look("both"), "psnr"), [1.0, 2.0])
  np.testing.assert_array_equal(figure(rows, Look("both", "calm"), "psnr"), [3.0, 4.0])
  np.testing.assert_array_equal(figure(rows, Look("both", "calm"), "train.error_mm"), [5.0, 6.0])
  assert figure(rows, Look("both"), "seam") is None  # not at every seed
  assert figure(rows, Look("both", "smooth"), "psnr") is None and figure(rows, Look("none"), "psnr") is None


def test_ways_to_drive_a_film():
  count, random = 120, np.random.default_rng(0)
  line = np.linspace(0, 1, count)
  tables = {
    "expression": line[:, None] + np.zeros(4), "pose": np.zeros((count, 5, 3)), "eyelids": np.full((count, 2), 0.2),
    "translation": line[:, None] + np.zeros(3),
  }  # fmt: skip
  noisy = {name: (table + 0.02 * random.normal(size=table.shape)).astype(np.float32) for name, table in tables.items()}
  film = _film(noisy)
  error = {way: np.sqrt(np.mean((drive(film, way).arrays["translation"] - tables["translation"])[20:] ** 2)) for way in WAYS}
  assert error["calm"] < 0.6 * error["tracked"]
  assert all(error["calm"] < error[way] for way in LOW_PASSES)  # what keeps its velocity does not lag
  np.testing.assert_array_equal(drive(film, "tracked").arrays["pose"], noisy["pose"])


def _film(tables):
  count = len(tables["pose"])
  usual = {"index": np.arange(count), "time": np.arange(count) / 25.0, "shot": np.zeros(count, int), "valid": np.ones(count, bool)}
  usual |= {"landmarks": np.zeros((count, 1, 2)), "exposure": np.ones((count, 3)), "intrinsics": np.eye(3), "world_to_camera": np.eye(4)}
  usual |= {"shape": np.zeros(2, np.float32), "offset": np.zeros((1, 3), np.float32)}
  pictures = np.zeros((count, 1, 1, 3), np.uint8)
  splits = {"train": np.arange(80), "heldout_tail": np.arange(80, count)}
  return native.NativeSequence(
    Path("film"), {"fps": 25.0, "rig": "film", "rig_hash": "0"}, usual | tables, pictures, pictures[..., 0], pictures[..., 0], splits
  )
