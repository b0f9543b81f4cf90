"""The judge of fits, on fits whose errors are known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import open_head
from silky_jax.geometry import camera as cameras
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
  # The same motion in the rig's own terms, seen by a camera in front.
  pose = np.zeros((FRAMES, 5, 3), np.float32)
  pose[:, 0] = x[:, energy.ROTATION]
  pose[:, 2], pose[:, 3:] = x[:, energy.JAW], np.pad(x[:, energy.GAZE], ((0, 0), (0, 1)))[:, None]
  view = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
  view[2, 3] = DISTANCE
  camera = cameras.from_focal(jnp.tile(jnp.asarray(view), (FRAMES, 1, 1)), FOCAL, width=64, height=64)
  told = {"expression": x[:, energy.EXPRESSION], "eyelids": x[:, energy.EYELIDS], "translation": x[:, energy.TRANSLATION], "pose": pose}
  truth = judge.known_face(rig, {**told, "shape": shape, "offset": np.zeros_like(rig.template)}, camera, "made up")
  return Fit(x, shape, FOCAL, DISTANCE, np.arange(3), np.zeros((FRAMES, 478, 2))), model, truth


def test_a_perfect_fit_has_no_errors(perfect):
  fit, model, truth = perfect
  errors = judge.compare(fit, model, truth)
  distances = ("focal_relative", "distance_over_focal_relative", "identity_mm", "expression_motion_error_mm")
  for name in ("rotation_degrees", "rotation_steady_degrees", *distances):
    assert abs(errors[name]) < 2e-3, name
  for name in ("expression_correlation", "expression_pooled_correlation", "expression_motion_correlation"):
    assert errors[name] > 0.99999, name


def test_errors_are_measured_in_their_units(perfect):
  fit, model, truth = perfect
  turn = np.asarray(matrix_from_axis_angle(jnp.asarray([0.0, np.radians(2.0), 0.0])))
  off = judge.compare(fit, model, truth._replace(rotation=truth.rotation @ turn))
  np.testing.assert_allclose(off["rotation_degrees"], 2.0, rtol=1e-3)
  assert off["rotation_steady_degrees"] < 2e-3  # off by the same in all frames: no unsteadiness
  # A camera twice as far with twice the focal length shows nearly the same: the ratio says so, the focal length does not.
  far = dataclasses.replace(fit, focal=2 * FOCAL, distance=2 * DISTANCE)
  errors = judge.compare(far, model, truth)
  np.testing.assert_allclose(errors["focal_relative"], 1.0)
  assert errors["distance_over_focal_relative"] < 0.05
  # Size and place of the head are not part of its identity, its shape is.
  grown = judge.compare(fit, model, truth._replace(neutral=1.1 * truth.neutral + 0.3))
  assert grown["identity_mm"] < 2e-3
  other = judge.compare(dataclasses.replace(fit, shape=np.zeros_like(fit.shape)), model, truth)
  assert other["identity_mm"] > 1.0


def test_a_shuffled_expression_is_no_expression(perfect):
  fit, model, truth = perfect
  x = fit.x.copy()
  x[:, energy.EXPRESSION] = x[np.random.default_rng(1).permutation(FRAMES), energy.EXPRESSION]
  errors = judge.compare(dataclasses.replace(fit, x=x), model, truth)
  assert abs(errors["expression_correlation"]) < 0.2 and abs(errors["expression_pooled_correlation"]) < 0.2


def test_angles_near_zero_are_exact():
  small = np.asarray(matrix_from_axis_angle(jnp.asarray([[1e-4, 0.0, 0.0]])), np.float64)
  np.testing.assert_allclose(judge.rotation_errors(np.eye(3)[None], small), np.degrees(1e-4), rtol=1e-3)
