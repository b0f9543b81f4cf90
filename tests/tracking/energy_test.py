"""The tracker's small rig poses its landmarks as the whole rig does; priors stand where they say."""

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.model import landmarks as rig_landmarks
from silky_jax.tracking import energy, landmarks


def _unknowns(rig, rng):
  x = np.zeros(energy.FIXED + rig.expression_basis.shape[-1], np.float32)
  x[:13] = rng.normal(size=13) * 0.2
  x[13:] = rng.uniform(0, 0.6, len(x) - 13)
  return jnp.asarray(x), jnp.asarray(rng.normal(size=rig.shape_basis.shape[-1]), jnp.float32)


def test_the_cut_rig_moves_landmarks_as_the_whole_rig_does():
  rig, embedding, _ = open_head.load()
  model = energy.landmark_rig(rig, embedding, landmarks.weights())
  x, shape = _unknowns(rig, np.random.default_rng(0))
  vertices, _ = flame_vertices(rig, shape, x[energy.EXPRESSION], energy.unpack_pose(x), eyelids=x[energy.EYELIDS])
  expected = rig_landmarks(vertices, rig.faces, embedding) + x[energy.TRANSLATION]
  np.testing.assert_allclose(energy.landmark_points(model, x, shape), expected, atol=2e-6)
  assert model.rig.template.shape[0] < rig.template.shape[0] / 3


def test_projection_agrees_with_the_camera_of_the_project():
  from silky_jax.geometry.camera import project
  from silky_jax.types import Camera

  points = jnp.asarray(np.random.default_rng(1).normal(size=(20, 3)) * 0.1, jnp.float32)
  view = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
  view[2, 3] = 0.8
  k = np.array([[500, 0, 130], [0, 500, 90], [0, 0, 1]], np.float32)
  expected, _ = project(points, Camera(jnp.asarray(view), jnp.asarray(k), width=256, height=256))
  np.testing.assert_allclose(energy.project(points, jnp.float32(500), 0.8, jnp.asarray([130.0, 90.0])), expected, rtol=1e-5)


def test_priors_are_walls_on_one_side_and_their_gradient_is_finite():
  prior = energy.PriorConfig()
  look = jnp.zeros((4, 2))
  size = lambda x: float(jnp.sum(energy.frame_priors(x, look, prior) ** 2))
  rest = jnp.zeros(energy.FIXED + 4)
  assert size(rest) == 0.0
  assert size(rest.at[14].set(-0.1)) > 5 * size(rest.at[14].set(0.1))
  assert size(rest.at[6].set(-0.1)) > 5 * size(rest.at[6].set(0.1))
  assert np.isfinite(jax.jacfwd(lambda x: energy.frame_priors(x, look, prior))(rest)).all()


def test_lids_are_expected_to_follow_the_gaze():
  rig, embedding, _ = open_head.load()
  model = energy.landmark_rig(rig, embedding, landmarks.weights())
  prior = energy.PriorConfig(gaze=1e9)
  # Looking up by as much as one unit turns the eyes: cheapest where both coefficients of looking up are one.
  units = open_head.arkit_to_rig({"eyeLookUpLeft": 1.0, "eyeLookUpRight": 1.0})
  x = jnp.zeros(energy.FIXED + len(rig.expression_names)).at[energy.GAZE].set(units.left_eye_pose[:2])
  following = x.at[energy.EXPRESSION].set(units.expression)
  size = lambda x: float(jnp.sum(energy.frame_priors(x, model.look, prior) ** 2))
  assert size(following) < 1e-3 < 100 < size(x)
