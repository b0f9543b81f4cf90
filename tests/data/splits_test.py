"""The demo protocol's partition of a clip."""

import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.splits import NAMES, SplitConfig, make_splits


def test_every_frame_is_in_exactly_one_split():
  changes = np.random.default_rng(0).uniform(0.0, 2.0, 765)
  splits = make_splits(changes)
  assert set(splits) == set(NAMES)
  np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(765))


def test_the_protocol_by_hand():
  splits = make_splits(np.full(765, 1.0))
  np.testing.assert_array_equal(splits["dropped"], np.arange(20))
  assert splits["heldout_tail"][0] == 20 + round(745 * 0.85) and splits["heldout_tail"][-1] == 764
  np.testing.assert_array_equal(splits["heldout_blocks"][:25], np.arange(120, 145))
  np.testing.assert_array_equal(splits["guard"][:6], [117, 118, 119, 145, 146, 147])
  assert not len(splits["repeat"])


def test_training_keeps_its_distance_from_what_is_scored():
  splits = make_splits(np.full(765, 1.0))
  held = np.concatenate([splits["heldout_blocks"], splits["heldout_tail"]])
  assert np.abs(splits["train"][:, None] - held[None]).min() == SplitConfig().guard + 1


def test_repeats_and_lost_faces_are_neither_trained_on_nor_scored():
  changes = np.full(765, 1.0)
  changes[[300, 130, 700]] = 0.1
  changes[310] = np.nan
  splits = make_splits(changes)
  np.testing.assert_array_equal(splits["repeat"], [130, 300, 700])
  assert 310 in splits["dropped"]


def test_a_clip_too_short_is_refused():
  with pytest.raises(UserError, match="longer clip"):
    make_splits(np.full(12, 1.0))
