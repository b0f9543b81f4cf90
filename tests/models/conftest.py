"""A small subject that every model test shares."""

import jax
import jax.numpy as jnp
import pytest

from silky_jax.flame import open_head
from silky_jax.geometry import camera as cameras
from silky_jax.types import Frame, Subject


@pytest.fixture(scope="session")
def rig():
  return open_head.load()[0]


@pytest.fixture(scope="session")
def subject(rig):
  return Subject(
    shape=0.5 * jax.random.normal(jax.random.key(1), (rig.shape_basis.shape[-1],)),
    offset=jnp.zeros_like(rig.template),
    mean_expression=jnp.full(rig.expression_basis.shape[-1], 0.1),
    expression_variance=jnp.full(rig.expression_basis.shape[-1], 0.02),
  )


@pytest.fixture(scope="session")
def make_frame(rig):
  """A frame in some pose and expression, seen from the front at 48 x 48 px."""

  def make(seed=0, *, strength=1.0, size=48):
    keys = jax.random.split(jax.random.key(seed), 4)
    center = jnp.mean(rig.template, axis=0)
    camera = cameras.from_focal(cameras.look_at(center + jnp.asarray([0.0, 0.0, 1.2]), center), 4.0 * size, width=size, height=size)
    zero = jnp.zeros((), jnp.int32)
    return Frame(
      index=zero,
      time=jnp.zeros(()),
      shot=zero,
      timestep=zero,
      view=zero,
      camera=camera,
      expression=strength * jax.random.uniform(keys[0], (rig.expression_basis.shape[-1],)) * 0.5,
      pose=strength * 0.2 * jax.random.normal(keys[1], (5, 3)),
      eyelids=strength * jax.random.uniform(keys[2], (2,)),
      translation=strength * 0.01 * jax.random.normal(keys[3], (3,)),
      image=jnp.full((size, size, 3), 0.3),
      mask=jnp.ones((size, size)),
      parts=jnp.zeros((size, size), jnp.uint8),
      landmarks=jnp.zeros((0, 2)),
      valid=jnp.ones((), bool),
    )

  return make
