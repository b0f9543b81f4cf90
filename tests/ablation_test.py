"""The ablation's arithmetic: jitter, tearing, the summary; every case's config can be built."""

import numpy as np
import pytest

from experiments import ablation_measures as measures
from experiments.ablation_cases import CASES, experiment_of
from experiments.ablation_summary import summary
from silky_jax.training.experiment import build


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_built(name):
  case = CASES[name]
  experiment = build(experiment_of(case, steps=200, uv_size=48, width=16))
  active = set(experiment.stages[-1].regularizers)
  assert {"physics", "transport"} & active == set(case.terms)
  assert len(experiment.stages) <= 3


def test_jitter_is_the_third_difference_of_frames_in_a_row():
  index = np.asarray([0, 1, 2, 3, 4, 10, 11, 12])
  time = index[:, None, None].astype(float)
  smooth = np.concatenate([time, time**2, 0 * time], axis=-1)
  np.testing.assert_allclose(measures._jitter(smooth, index), 0.0, atol=1e-9)
  cubic = np.concatenate([time**3, 0 * time, 0 * time], axis=-1)
  np.testing.assert_allclose(measures._jitter(cubic, index), 6.0)  # the gap from 4 to 10 is not counted


def _row(case, **figures):
  usual = {"psnr": 30.0, "heldout.true_jitter_mm": 1.0, "heldout.error_mm": 2.0, "tearing": 0.1}
  run = usual | figures
  run |= {f"heldout.skull_{kind}": run[f"heldout.{kind}"] for kind in ("jitter_mm", "true_jitter_mm")}
  return {"case": case, "runs": [run, run]}


def test_summary():
  rows = [
    _row("none, noise 1", **{"heldout.jitter_mm": 3.0}),
    _row("both, noise 1", **{"heldout.jitter_mm": 1.5, "psnr": 29.95, "heldout.error_mm": 1.5}),
    _row("transport, noise 1", **{"heldout.jitter_mm": 3.0, "tearing": 0.04}),
    _row("control: filtered drivers", **{"heldout.jitter_mm": 2.0}),
    _row("control: no network", **{"heldout.jitter_mm": 1.0, "psnr": 25.0}),  # nearer, at the price of the picture: no rival
  ]
  found = summary(rows)
  np.testing.assert_allclose(found["studio_jitter_reduction"], 0.75)
  np.testing.assert_allclose([found["studio_psnr_change_db"], found["studio_error_change_mm"]], [-0.05, -0.5])
  np.testing.assert_allclose(found["tearing_ratio"], 0.4)
  assert found["beats_controls"] is True and found["demo_jitter_reduction"] is None
  rows[3] = _row("control: filtered drivers", **{"heldout.jitter_mm": 1.2})
  assert summary(rows)["beats_controls"] is False
