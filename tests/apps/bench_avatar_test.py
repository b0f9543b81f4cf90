"""The bench of a whole avatar: rows with what they promise, a file, refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from silky_jax.apps import bench_avatar
from silky_jax.config import UserError
from silky_jax.models.silky import SilkyConfig
from silky_jax.render.pipeline import RenderConfig
from silky_jax.training.experiment import ExperimentConfig
from silky_jax.training.step import LossConfig, Term

CONFIG = ExperimentConfig(
  model=SilkyConfig(uv_size=24, width=8, depth=2, frequencies=2),
  render=RenderConfig(capacity=1024),
  losses=LossConfig(huber=Term(), l1=Term(1.0), regularizers={"offset": Term(0.1)}),
)
FEW = bench_avatar.Counts(2, 3)


@pytest.mark.slow
def test_rows_say_what_was_measured(tmp_path):
  said = []
  rows = bench_avatar.bench_avatar(
    CONFIG, size=32, batches=(1, 3), precisions=("bfloat16",), counts=FEW, json_path=tmp_path / "b.json", say=said.append
  )
  assert json.loads((tmp_path / "b.json").read_text())["rows"] == rows == [json.loads(line) for line in said]
  frames, steps = [row for row in rows if row["what"] == "frame"], [row for row in rows if row["what"] == "training step"]
  kinds = [(row["batch"], row["network"], row["precision"]) for row in frames]
  assert kinds == [(1, "none", ""), (1, "8x2", "bfloat16"), (3, "8x2", "bfloat16")]
  for row in rows:
    assert row["ms_latency"] > 0 and row["gaussians"] > 100 and row["pairs"] >= 0 and row["overflow"] == 0, row
    assert row["device"] == jax.devices()[0].device_kind
  assert "psnr_against_float32" not in frames[0]
  assert all(40 < row["psnr_against_float32"] < 120 for row in frames[1:])  # it rounds, a little
  assert [row["perceptual"] for row in steps] == ["", "alexnet"]
  assert steps[0]["terms"] == ["l1", "offset"] and steps[1]["terms"] == ["l1", "perceptual", "offset"]
  assert all(row["steps_per_second"] > 0 and np.isfinite(row["psnr"]) for row in steps)


def test_moments_differ_and_the_network_moves_something():
  who = bench_avatar.sitter(CONFIG, size=32)
  drawn = bench_avatar.pictures(who, who.config.model)
  still = bench_avatar.pictures(who, dataclasses.replace(who.config.model, residual="none"))
  assert drawn.shape == (bench_avatar.FRAMES, 32, 32, 3)
  assert np.abs(drawn[1:] - drawn[:-1]).max(axis=(1, 2, 3)).min() > 0.02 and np.abs(drawn - still).max() > 0.02


@pytest.mark.slow
def test_a_run_is_measured_as_it_was_trained(trained):
  who = bench_avatar.sitter(CONFIG, checkpoint=trained[0] / "train", size=32)
  assert who.config.model.residual == "none" and who.config.model.uv_size == 40


def test_slips_are_refused(trained):
  with pytest.raises(UserError, match="WIDTHxDEPTH, like 256x6, found '256'"):
    bench_avatar.bench_avatar(CONFIG, network="256")
  uv = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, residual="uv"))
  with pytest.raises(UserError, match="size of an MLP, and the config's residual is 'uv'; leave it out"):
    bench_avatar.bench_avatar(uv, network="8x2")
  with pytest.raises(UserError, match=r"precisions of float32, tf32, bfloat16, found half"):
    bench_avatar.bench_avatar(CONFIG, precisions=("half",))
  with pytest.raises(UserError, match="a run has its own"):
    bench_avatar.bench_avatar(CONFIG, network="8x2", checkpoint=trained[0] / "train")
