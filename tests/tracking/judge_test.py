"""The judge of fits, on fits whose errors are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.model import landmarks as rig_landmarks
from silky_jax.math.rotation import matrix_from_axis_angle
from silky_jax.tracking import energy, judge, landmarks
from silky_jax.tracking.fit import Fit

FRAMES, FOCAL, DISTANCE = 30, 600.0, 0.7


@pytest.fixture(scope="module")
def perfect():
  """A fit without error, and the truth it is compared with."""
  rig, embedding, _ = open_head.load()
  model = energy.landmark_rig(rig, embedding, landmarks.weights())
  rng = np.random.default_rng(0)
  x = np.zeros((FRAMES, energy.FIXED + len(rig.expression_names)), np.float32)
  x[:, energy.ROTATION] = 0.3 * rng.normal(size=(FRAMES, 3))
  x[:, energy.TRANSLATION] = 0.02 * rng.normal(size=(FRAMES, 3))
  x[:, energy.EXPRESSION] = rng.uniform(0, 0.6, (FRAMES, len(rig.expression_names)))
  shape = rng.normal(size=rig.shape_basis.shape[-1]).astype(np.float32)
  points = jax.vmap(energy.landmark_points, in_axes=(None, 0, None))(model, jnp.asarray(x), jnp.asarray(shape))
  still = x.copy()
  still[:, :6] = 0
  face = jax.vmap(energy.landmark_points, in_axes=(None, 0, None))(model, jnp.asarray(still), jnp.asarray(shape))
  neutral, _ = flame_vertices(rig, jnp.asarray(shape), jnp.zeros(len(rig.expression_names)), jnp.zeros((5, 3)))
  truth = {
    "rotation": np.asarray(matrix_from_axis_angle(jnp.asarray(x[:, energy.ROTATION]))),
    "depth": DISTANCE - np.asarray(points)[..., 2].mean(axis=1),
    "focal": FOCAL,
    "expression": x[:, energy.EXPRESSION].copy(),
    "face": np.asarray(face),
    "neutral": np.asarray(rig_landmarks(neutral, rig.faces, embedding)),
  }
  return Fit(x, shape, FOCAL, DISTANCE, np.arange(3), np.zeros((FRAMES, 478, 2))), model, truth


def test_a_perfect_fit_has_no_errors(perfect):
  fit, model, truth = perfect
  errors = judge.compare(fit, model, **truth)
  for name in ("rotation_degrees", "focal_relative", "distance_over_focal_relative", "scale_relative", "identity_mm"):
    assert abs(errors[name]) < 2e-3, name
  for name in ("expression_correlation", "expression_pooled_correlation", "expression_motion_correlation"):
    assert errors[name] > 0.99999, name


def test_errors_are_measured_in_their_units(perfect):
  fit, model, truth = perfect
  turn = np.asarray(matrix_from_axis_angle(jnp.asarray([0.0, np.radians(2.0), 0.0])))
  off = judge.compare(fit, model, **{**truth, "rotation": truth["rotation"] @ turn})
  np.testing.assert_allclose(off["rotation_degrees"], 2.0, rtol=1e-3)
  # A camera twice as far with twice the focal length shows nearly the same: the ratio says so, the focal length does not.
  far = dataclasses.replace(fit, focal=2 * FOCAL, distance=2 * DISTANCE)
  errors = judge.compare(far, model, **truth)
  np.testing.assert_allclose(errors["focal_relative"], 1.0)
  assert errors["distance_over_focal_relative"] < 0.05
  # Size and place of the head are not part of its identity, its shape is.
  grown = judge.compare(fit, model, **{**truth, "neutral": 1.1 * truth["neutral"] + 0.3})
  assert grown["identity_mm"] < 2e-3
  other = judge.compare(dataclasses.replace(fit, shape=np.zeros_like(fit.shape)), model, **truth)
  assert other["identity_mm"] > 1.0


def test_a_shuffled_expression_is_no_expression(perfect):
  fit, model, truth = perfect
  x = fit.x.copy()
  x[:, energy.EXPRESSION] = x[np.random.default_rng(1).permutation(FRAMES), energy.EXPRESSION]
  errors = judge.compare(dataclasses.replace(fit, x=x), model, **truth)
  assert abs(errors["expression_correlation"]) < 0.2 and abs(errors["expression_pooled_correlation"]) < 0.2


def test_angles_near_zero_are_exact():
  small = np.asarray(matrix_from_axis_angle(jnp.asarray([[1e-4, 0.0, 0.0]])), np.float64)
  np.testing.assert_allclose(judge.rotation_errors(np.eye(3)[None], small), np.degrees(1e-4), rtol=1e-3)
