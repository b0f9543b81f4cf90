"""Nearest neighbours against a full sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.geometry.neighbours import mean_squared_distance, nearest


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_matches_a_full_sort(chunk):
  rng = np.random.default_rng(0)
  queries, points = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(31, 3)).astype(np.float32)
  table = ((queries[:, None] - points) ** 2).sum(axis=-1)
  squared, indices = nearest(jnp.asarray(queries), jnp.asarray(points), 4, chunk=chunk)
  np.testing.assert_array_equal(indices, np.argsort(table, axis=1, kind="stable")[:, :4])
  np.testing.assert_allclose(squared, np.sort(table, axis=1)[:, :4], rtol=1e-5)


def test_close_points_keep_their_digits():
  points = jnp.asarray([[100.0, 0, 0], [100.001, 0, 0], [100.003, 0, 0]])
  squared, indices = nearest(points, points, 1, exclude_self=True)
  assert indices[:, 0].tolist() == [1, 0, 1]
  np.testing.assert_allclose(jnp.sqrt(squared[:, 0]), [0.001, 0.001, 0.002], rtol=0.02)


def test_excluding_self_keeps_duplicates():
  points = jnp.asarray([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]])
  squared, indices = nearest(points, points, 2, exclude_self=True)
  assert indices.tolist() == [[1, 2], [0, 2], [0, 1]]
  assert squared[0, 0] == 0
  np.testing.assert_allclose(mean_squared_distance(points, 2), [0.5, 0.5, 1.0])


def test_gradient_flows_through_the_distances():
  points = jnp.asarray([[0.0, 0, 0], [1, 0, 0], [4, 0, 0]])
  gradient = jax.grad(lambda p: jnp.sum(mean_squared_distance(p, 1)))(points)
  np.testing.assert_allclose(gradient[:, 0], [-4, -2, 6])


def test_too_few_points_are_named():
  with pytest.raises(ValueError, match="k: expected"):
    nearest(jnp.zeros((3, 3)), jnp.zeros((3, 3)), 3, exclude_self=True)
  with pytest.raises(ValueError, match="queries"):
    nearest(jnp.zeros((2, 3)), jnp.zeros((3, 3)), 1, exclude_self=True)
