"""Sites on UV texels."""

import numpy as np
import pytest

from silky_jax.gaussians.seeding import uv_sites

# A unit square of two triangles.
_UV = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_FACES = np.array([[0, 1, 2], [0, 2, 3]])


def test_every_texel_of_a_square_is_a_site_at_its_centre():
  sites = uv_sites(_UV, _FACES, size=4)
  points = np.einsum("nk,nkc->nc", sites.barycentric, _UV[_FACES[sites.faces]])
  expected = [((j + 0.5) / 4, 1 - (i + 0.5) / 4) for i in range(4) for j in range(4)]
  np.testing.assert_allclose(points, expected, atol=1e-6)
  np.testing.assert_allclose(sites.barycentric.sum(1), 1, atol=1e-6)


def test_only_kept_faces_carry_sites():
  sites = uv_sites(_UV, _FACES, size=8, keep=np.array([False, True]))
  assert set(sites.faces) == {1}
  assert len(sites.faces) >= 28


def test_refusals():
  with pytest.raises(ValueError, match="no texel of 4 x 4 is covered by 0 faces"):
    uv_sites(_UV, _FACES, size=4, keep=np.zeros(2, bool))
  with pytest.raises(ValueError, match=r"2 faces, got shape \(3,\)"):
    uv_sites(_UV, _FACES, size=4, keep=np.ones(3, bool))
