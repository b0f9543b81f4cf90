"""Runs side by side: each is what it would be alone."""

import dataclasses

import jax
import numpy as np
import pytest

from silky_jax.config import ConfigError
from silky_jax.data.clips import ClipConfig
from silky_jax.flame import open_head
from silky_jax.models.silky import SilkyConfig
from silky_jax.training.experiment import ExperimentConfig, LoopConfig
from silky_jax.training.loop import train
from silky_jax.training.step import LossConfig, Term
from silky_jax.training.synthetic import synthetic_sequence
from silky_jax.training.together import train_together

CONFIG = ExperimentConfig(
  steps=8,
  paint_frames=3,
  model=SilkyConfig(uv_size=32, width=16, depth=2, frequencies=3),
  clips=ClipConfig(length=2),
  losses=LossConfig(ssim=Term(0.2), alpha=Term(0.05, 0.5), regularizers={"motion": Term(1e-3)}),
  loop=LoopConfig(log_every=4, sample_every=0, checkpoint_every=8, shares_every=0),
)
SEEDS = (0, 3)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setting():
  rig = open_head.load()[0]
  return synthetic_sequence(rig, frames=24, size=48), rig


@pytest.fixture(scope="module")
def together(setting):
  return train_together(CONFIG, *setting, SEEDS, say=lambda _: None)


def test_a_run_is_what_it_is_alone(setting, together, tmp_path):
  place = 1  # not the one whose config the others share
  alone = train(dataclasses.replace(CONFIG, seed=SEEDS[place]), *setting, tmp_path, say=lambda _: None).state
  own = jax.tree.map(lambda leaf: leaf[place], together.states)
  assert int(own.step) == CONFIG.steps
  np.testing.assert_array_equal(own.key, alone.key)
  # Adam makes a whole step of a gradient's last bit where a gradient is nearly zero: so sizes of steps, not single numbers.
  for (path, a), b in zip(jax.tree.leaves_with_path(own.variables.params), jax.tree.leaves(alone.variables.params), strict=True):
    moved = np.abs(b - np.mean(b)).mean() + 1e-6
    assert np.abs(a - b).mean() < 0.02 * moved, jax.tree_util.keystr(path)


def test_seeds_differ_and_stages_are_compiled_once(together):
  assert len(together.compiled) == 2
  losses = together.metrics[-1]["loss"]
  assert losses.shape == (2,) and losses[0] != losses[1]
  assert together.metrics[0]["psnr"].mean() < together.metrics[-1]["psnr"].mean()


def test_no_seeds_are_refused(setting):
  with pytest.raises(ConfigError, match="seeds"):
    train_together(CONFIG, *setting, ())
