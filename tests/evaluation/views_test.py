"""Coverage and holes on drawn alphas; cameras around a head."""

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.evaluation import views
from silky_jax.geometry.camera import centre as camera_centre
from silky_jax.geometry.camera import project


def _disc(size=64, radius=24.0):
  y, x = np.mgrid[0:size, 0:size] + 0.5
  return np.hypot(x - size / 2, y - size / 2) < radius


def test_a_full_silhouette_has_no_hole():
  disc = _disc()
  assert views.fill(disc * 1.0, disc) == {"coverage": 1.0, "largest_hole": 0.0}


def test_holes_and_coverage_are_counted_in_pixels():
  disc = _disc()
  alpha = disc * 0.9
  alpha[30:34, 30:35] = 0.4  # 20 px
  alpha[20:22, 30:33] = 0.0  # 6 px
  got = views.fill(alpha, disc)
  assert got["coverage"] == pytest.approx(1 - 26 / disc.sum())
  assert got["largest_hole"] == pytest.approx(20 / disc.sum())


def test_a_seam_along_the_rim_is_coverage_a_bite_is_a_hole():
  disc = _disc()
  thin = views.fill(_disc(radius=22.6) * 1.0, disc)
  assert thin["coverage"] < 0.95 and thin["largest_hole"] == 0.0
  bitten = disc.copy()
  bitten[:20] = False
  assert views.fill(bitten * 1.0, disc)["largest_hole"] > 0.05


def test_an_empty_silhouette_is_an_error():
  with pytest.raises(ValueError, match="silhouette"):
    views.fill(np.zeros((8, 8)), np.zeros((8, 8), bool))


def test_largest_patch():
  mask = np.zeros((20, 20), bool)
  mask[2, 2:15] = mask[2:15, 2] = True  # one L of 25 px
  mask[16:18, 16:18] = True
  mask[15, 15] = True  # touches by a corner only
  assert views.largest_patch(mask) == 25
  assert views.largest_patch(np.zeros((4, 4), bool)) == 0
  assert views.largest_patch(np.ones((30, 30), bool)) == 900


def test_orbit_looks_at_the_head_from_where_it_says():
  centre = np.array([0.01, 0.05, -0.02])
  yaw, pitch = np.transpose(views.SIX_VIEWS)
  assert len(yaw) == 6 and {*yaw} == {-40.0, 0.0, 40.0} and {*pitch} == {-20.0, 20.0}
  camera = views.orbit(centre, yaw, pitch, distance=1.2, focal=500.0, size=200)
  pixels, depths = project(jnp.broadcast_to(jnp.asarray(centre, jnp.float32), (6, 1, 3)), camera)
  np.testing.assert_allclose(pixels[:, 0], 100.0, atol=1e-3)
  np.testing.assert_allclose(depths[:, 0], 1.2, rtol=1e-5)
  eyes = np.asarray(camera_centre(camera)) - centre
  np.testing.assert_allclose(np.degrees(np.arctan2(eyes[:, 0], eyes[:, 2])), yaw, atol=1e-3)  # yaw > 0 sees the subject's left
  np.testing.assert_allclose(np.degrees(np.arcsin(eyes[:, 1] / 1.2)), pitch, atol=1e-3)


def test_six_views_of_a_ball(make_frames):
  frame = make_frames(1, seed=0)
  disc = _disc(96, 40.0)
  seen = []

  def render(frames):
    seen.append(frames)
    alpha = jnp.asarray(np.repeat(disc[None] * 1.0, 6, 0), jnp.float32)
    return jnp.ones((6, 96, 96, 3)) * alpha[..., None], alpha

  got = views.evaluate_views(render, frame, lambda frames: np.repeat(disc[None], 6, 0), np.zeros(3), distance=1.0, focal=300.0, size=96)
  assert got.images.shape == (6, 96, 96, 3)
  assert got.metrics["coverage"] == 1.0 and got.metrics["largest_hole"] == 0.0
  assert [row["yaw"] for row in got.metrics["views"]] == [-40, 0, 40, -40, 0, 40]
  np.testing.assert_array_equal(seen[0].expression, np.repeat(frame.expression, 6, 0))
  assert seen[0].camera.width == 96 and seen[0].image is None
