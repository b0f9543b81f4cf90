"""The silky family with the UV splatter image for a residual: which texel is whose, where it starts, what a sample of it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.config import ConfigError
from silky_jax.gaussians.seeding import uv_sites
from silky_jax.models.silky import SilkyConfig, make
from silky_jax.models.silky.model import _condition, network_of
from silky_jax.physics.term import PhysicsConfig
from silky_jax.types import Prediction

CONFIG = SilkyConfig(uv_size=32, residual="uv", uv_width=8, frequencies=2, physics=PhysicsConfig(sample=0))


@pytest.fixture(scope="module")
def avatar():
  whole = make(CONFIG)
  return whole._replace(deform=jax.jit(whole.deform))


@pytest.fixture(scope="module")
def start(avatar, rig, subject):
  return avatar.init(jax.random.key(0), rig, subject)


@pytest.fixture(scope="module")
def trained(start):
  rng = np.random.default_rng(3)
  return start.replace(params=jax.tree.map(lambda x: x + jnp.asarray(0.05 * rng.normal(size=x.shape), jnp.float32), start.params))


def test_a_texel_is_where_its_gaussian_is_in_the_atlas(rig):
  uv, corners = np.asarray(rig.uv), np.asarray(rig.uv_faces)
  sites = uv_sites(uv, corners, size=32)
  places = np.sum(sites.barycentric[..., None] * uv[corners[sites.faces]], axis=1)
  wanted = np.stack([1 - (sites.texels // 32 + 0.5) / 32, (sites.texels % 32 + 0.5) / 32], axis=1)
  np.testing.assert_allclose(places[:, ::-1], wanted, atol=1e-5)


def test_the_atlas_holds_each_gaussians_encoding_and_nothing_else(start):
  atlas, texels = np.asarray(start.buffers["atlas"]), np.asarray(start.buffers["texels"])
  flat = atlas.reshape(-1, atlas.shape[-1])
  np.testing.assert_array_equal(flat[texels, :-1], start.buffers["encoding"])
  assert (flat[texels, -1] == 1).all() and len(set(texels.tolist())) == len(texels)
  assert not np.delete(flat, texels, axis=0).any()


def test_starts_as_exactly_the_coarse_avatar(start, rig, make_frame):
  fine, coarse = make(CONFIG), make(dataclasses.replace(CONFIG, residual="none"))
  without = start.replace(params={"gaussians": start.params["gaussians"]})
  both = fine.deform(start, rig, make_frame(1))[0], coarse.deform(without, rig, make_frame(1))[0]
  jax.tree.map(np.testing.assert_array_equal, *both)


def test_a_gaussian_takes_what_the_map_says_at_its_texel(avatar, trained, rig, make_frame):
  frame = make_frame(2)
  condition = _condition(CONFIG, trained.buffers, frame)
  image = network_of(CONFIG, condition.shape[0]).apply(trained.params["residual"], trained.buffers["atlas"], condition)
  row, column = np.divmod(np.asarray(trained.buffers["texels"]), 32)
  out = np.asarray(image)[row, column]
  moved = CONFIG.motion_limit * out[:, :3]
  wanted = moved / np.sqrt(1 + np.sum(moved**2, axis=1, keepdims=True) / CONFIG.motion_limit**2)
  motion = np.asarray(avatar.deform(trained, rig, frame)[1]["motion"])
  assert np.abs(motion).max() > 1e-4
  np.testing.assert_allclose(motion, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_physics_of_a_sample_is_physics_of_those_gaussians(trained, rig, make_frame):
  """All of them; then half, which see the same map."""
  frames = [make_frame(k).replace(timestep=jnp.asarray(k, jnp.int32), time=jnp.asarray(k / 25.0)) for k in range(4)]
  clip = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *frames)

  def term(sample):
    family = make(dataclasses.replace(CONFIG, physics=PhysicsConfig(sample=sample)))

    def value(params):
      variables = trained.replace(params=params)
      gaussians, aux = jax.vmap(jax.vmap(lambda frame: family.deform(variables, rig, frame)))(clip)
      return family.regularize(variables, rig, clip, Prediction(gaussians, None, None, aux))["physics"]().value

    return value

  whole, slope = jax.jit(jax.value_and_grad(term(0)))(trained.params)
  half = jax.jit(term(trained.buffers["alive"].shape[0] // 2))(trained.params)
  assert 0 < 0.5 * whole < half < 2 * whole
  assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(slope["residual"]))


def test_an_atlas_that_cannot_be_halved_is_refused():
  with pytest.raises(ConfigError, match="expected multiples of 16 and 8, got 24 and 8"):
    make(dataclasses.replace(CONFIG, uv_size=24))
