"""The torso under a fitted head."""

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import open_head
from silky_jax.flame.model import HEAD_JOINT
from silky_jax.geometry.camera import from_focal, look_at
from silky_jax.render.mesh import rasterize_mesh
from silky_jax.tracking import energy, torso
from silky_jax.tracking.labels import posed_vertices

FRAMES = 3


@pytest.fixture(scope="module")
def rig():
  return open_head.load()[0]


@pytest.fixture(scope="module")
def fitted(rig):
  """Parameters of a head that nods and turns a little about a tilted mean."""
  x = np.zeros((FRAMES, energy.EYELIDS.stop), np.float32)
  x[:, energy.ROTATION] = np.array([-0.1, 0.05, 0.02]) + 0.05 * np.random.default_rng(0).normal(size=(FRAMES, 3))
  x[:, energy.TRANSLATION] = 0.01 * np.random.default_rng(1).normal(size=(FRAMES, 3))
  return x


@pytest.fixture(scope="module")
def camera(rig):
  centre = jnp.asarray([0.0, -0.05, 0.0])
  return from_focal(look_at(centre + jnp.asarray([0.0, 0.0, 1.0]), centre), 280.0, width=96, height=96)


def _vertices(rig, x, body, share=0.4):
  shape = np.zeros(rig.shape_basis.shape[-1], np.float32)
  root, neck, moved = torso.split_neck(rig, shape, x[:, energy.ROTATION], x[:, energy.TRANSLATION], body, share)
  still = np.zeros((len(x), 3), np.float32)
  pose = np.stack([root, neck, still, still, still], axis=1)
  lids = np.zeros((len(x), 2), np.float32)
  return np.asarray(posed_vertices(rig, shape, x[:, energy.EXPRESSION], pose, lids, moved, body.offset))


def _as_the_head(rig, x):
  mean = x[:, energy.ROTATION].mean(axis=0)
  return torso.Torso(mean, mean, np.zeros(rig.template.shape, np.float32))


@pytest.mark.parametrize("shift", [0.0, 0.02])
def test_the_head_stays_where_it_was_fitted(rig, fitted, shift):
  plain = _as_the_head(rig, fitted)
  offset = (np.asarray(rig.skinning)[:, :1] * np.array([shift, 0.0, 0.0])).astype(np.float32)
  leaning = torso.Torso(plain.head, np.array([0.1, -0.2, 0.15], np.float32), offset)
  skull = np.asarray(rig.skinning)[:, HEAD_JOINT] > 0.999
  assert skull.sum() > 500
  before, after = (_vertices(rig, fitted, body) for body in (plain, leaning))
  # Pose correctives of the neck reach the skull: under a millimetre.
  assert np.abs(before - after)[:, skull].max() < 1.5e-3
  low = np.asarray(rig.skinning)[:, 0] > 0.9
  assert np.abs(before - after)[:, low].max() > 1e-2


def test_finds_a_leaning_neck(rig, fitted, camera):
  plain = _as_the_head(rig, fitted)
  shift = 0.018
  offset = (np.asarray(rig.skinning)[:, :1] * np.array([shift, 0.0, 0.0])).astype(np.float32)
  true = torso.Torso(plain.head, plain.rest, offset)
  persons = np.stack([np.asarray(rasterize_mesh(jnp.asarray(v), rig.faces, camera)[0]) >= 0 for v in _vertices(rig, fitted, true)])
  shape = np.zeros(rig.shape_basis.shape[-1], np.float32)
  found = torso.fit_torso(rig, shape, plain.head, fitted, (255 * persons).astype(np.uint8), camera, 0.4)
  neck = np.asarray(rig.regions) == rig.region_names.index("neck")
  truth = _vertices(rig, fitted, true)[:, neck, 0]
  error = [np.abs(_vertices(rig, fitted, body)[:, neck, 0] - truth).mean() for body in (plain, found)]
  assert error[1] < 0.35 * error[0], error


def test_without_a_person_the_torso_follows_the_head(rig, fitted, camera):
  shape = np.zeros(rig.shape_basis.shape[-1], np.float32)
  plain = _as_the_head(rig, fitted)
  found = torso.fit_torso(rig, shape, plain.head, fitted, np.zeros((FRAMES, 96, 96), np.uint8), camera, 0.4)
  np.testing.assert_allclose(found.rest, plain.rest, atol=1e-6)
  np.testing.assert_array_equal(found.offset, 0)
