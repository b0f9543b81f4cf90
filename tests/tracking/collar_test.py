"""Cloth above the neck's border, in pictures painted by hand."""

import numpy as np
import pytest

from silky_jax.flame.regions import PARTS
from silky_jax.tracking.collar import Collar

SKIN, NECK, CLOTH = (PARTS.index(name) for name in ("skin", "neck", "cloth"))
TONE, SHIRT = (196, 140, 110), (120, 140, 170)


def _portrait(shirt=SHIRT, collar=True, seed=0):
  """A face, a neck below it, a shirt below that; the shirt's collar stands on the left of the neck, where the labels still say neck."""
  rng = np.random.default_rng(seed)
  labels = np.zeros((128, 128), np.uint8)
  labels[10:60, 34:94] = SKIN
  labels[60:100, 44:84] = NECK
  labels[100:, 10:118] = CLOTH
  image = np.full((128, 128, 3), 230, np.uint8)
  image[(labels == SKIN) | (labels == NECK)] = TONE
  image[labels == CLOTH] = shirt
  where = np.zeros(labels.shape, bool)
  if collar:
    where[80:100, 44:54] = True
    image[where] = shirt
  return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8), labels, where


def test_finds_the_collar():
  collar = Collar(_portrait(seed=k)[:2] for k in range(3))
  image, labels, where = _portrait(seed=9)
  found = collar.covers(image, labels)
  assert (found & where).sum() > 0.95 * where.sum()
  assert (found & ~where).sum() < 0.05 * where.sum()


def test_no_collar_no_cloth():
  collar = Collar(_portrait(collar=False, seed=k)[:2] for k in range(3))
  image, labels, _ = _portrait(collar=False, seed=9)
  assert not collar.covers(image, labels).any()


def test_a_shirt_of_the_skins_colour_is_left_alone():
  collar = Collar(_portrait(shirt=TONE, seed=k)[:2] for k in range(3))
  image, labels, _ = _portrait(shirt=TONE, seed=9)
  assert not collar.covers(image, labels).any()


def test_a_shadow_that_does_not_reach_the_shirt_is_skin():
  collar = Collar(_portrait(collar=False, seed=k)[:2] for k in range(3))
  image, labels, _ = _portrait(collar=False, seed=9)
  image[70:80, 60:70] = SHIRT
  assert not collar.covers(image, labels).any()


def test_scraps_beyond_the_collar_go_with_it():
  collar = Collar(_portrait(seed=k)[:2] for k in range(3))
  image, labels, _ = _portrait(seed=9)
  image[84:90, 44:46] = TONE  # a bit of wall, seen between collar and outline
  assert collar.covers(image, labels)[84:90, 44:46].all()


@pytest.mark.parametrize("missing", [SKIN, CLOTH])
def test_unknown_colours_change_nothing(missing):
  pictures = [_portrait(seed=k) for k in range(3)]
  collar = Collar((image, np.where((labels == missing) | (labels == NECK), 0, labels)) for image, labels, _ in pictures)
  assert not collar.covers(*_portrait(seed=9)[:2]).any()
