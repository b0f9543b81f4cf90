"""Direct alignment: the same point of the skin should have the same colour in every frame.

Landmarks place a head to about 1 % of its width and wander by a pixel with pose and expression. A few hundred points of
the skin, each with the colour that the training frames agree on, pin every frame to that one texture to a fraction of
a pixel (Lucas-Kanade 1981, forwards additive, on a posed surface). Landmarks stay in the energy, so that a frame can
not run away. The texture is the mean of the training frames; held-out frames are only ever compared with it.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from silky_jax.math.precision import exact
from silky_jax.tracking import energy
from silky_jax.tracking.energy import LandmarkRig


@dataclasses.dataclass(frozen=True)
class PhotometricConfig:
  rounds: int = 3  # of (texture, all frames)
  blur: tuple[float, ...] = (2.0, 1.2, 1.2)  # px of the crop, per round: wide basin first
  sigma: float = 0.03  # of 1: colour noise and what a fixed texture cannot explain
  independent: float = 300.0  # points that count as independent: neighbours share their errors
  robust: float = 2.5  # Cauchy scale, in sigma
  facing: float = 0.35  # cosine to the camera below which a point is not compared
  points: int = 1500


class Skin(flax.struct.PyTreeNode):
  """Points of the skin and what they look like."""

  rig: LandmarkRig
  normals: Float[jax.Array, "m 3"]  # at rest, unit
  colours: Float[jax.Array, "m 3"]  # 0..1
  trust: Float[jax.Array, "m"]  # 0 where no training frame saw the point


def sample(image: Float[jax.Array, "h w c"], pixels: Float[jax.Array, "m 2"]) -> Float[jax.Array, "m c"]:
  """Bilinear lookup at px coordinates (centres at half integers), border repeated; differentiable in the coordinates."""
  h, w = image.shape[:2]
  x = jnp.clip(pixels[:, 0] - 0.5, 0.0, w - 1.001)
  y = jnp.clip(pixels[:, 1] - 0.5, 0.0, h - 1.001)
  i, j = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
  fy, fx = (y - i)[:, None], (x - j)[:, None]
  top = image[i, j] * (1 - fx) + image[i, j + 1] * fx
  bottom = image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx
  return top * (1 - fy) + bottom * fy


class View(flax.struct.PyTreeNode):
  """The picture of one frame and how the tracker's pixels map into it."""

  image: Float[jax.Array, "h w 3"]
  scale: Float[jax.Array, ""]  # picture px per video px
  origin: Float[jax.Array, "2"]  # of the crop, video px


def look(skin: Skin, x, z, distance, centre, view: View) -> tuple[Float[jax.Array, "m 3"], Float[jax.Array, "m"]]:
  """Colours found at the skin's points, and how squarely each faces the camera (0 = not seen)."""
  points = energy.landmark_points(skin.rig, x, z[:-1])
  pixels = energy.project(points, jnp.exp(z[-1]), distance, centre)
  colours = sample(view.image, (pixels - view.origin) * view.scale)
  turned = skin.normals @ _rotation(x[energy.ROTATION]).T
  towards = jnp.asarray([0.0, 0.0, 1.0]) * distance - points
  towards = towards / jnp.linalg.norm(towards, axis=-1, keepdims=True)
  return colours, jnp.sum(turned * towards, axis=-1)


def _rotation(vector):
  from silky_jax.math.rotation import matrix_from_axis_angle

  return matrix_from_axis_angle(vector)


def residuals(skin: Skin, x, z, distance, centre, view: View, weights, gain, config: PhotometricConfig) -> Float[jax.Array, "r"]:
  """Colour differences over their standard deviation; weights and gain are held while a step is taken."""
  found, _ = look(skin, x, z, distance, centre, view)
  expected = skin.colours * gain[0] + gain[1]
  trust = jnp.sqrt(weights * config.independent / skin.colours.shape[0] / 3.0)
  return (trust[:, None] * (found - expected) / config.sigma).ravel()


@functools.partial(jax.jit, static_argnames=("config",))
@exact
def weigh(skin: Skin, x, z, distance, centre, view: View, *, config: PhotometricConfig):
  """Robust weights of one frame's points, and the frame's gain and offset per channel against the texture."""
  found, facing = look(skin, x, z, distance, centre, view)
  seen = skin.trust * (facing > config.facing)
  gain = _gain(found, skin.colours, seen)
  for _ in range(2):
    r = jnp.linalg.norm(found - (skin.colours * gain[0] + gain[1]), axis=-1) / config.sigma
    weights = seen / (1.0 + (r / config.robust) ** 2)
    gain = _gain(found, skin.colours, weights)
  return weights, gain


def _gain(found, colours, weights) -> Float[jax.Array, "2 3"]:
  """Per channel, found ~ gain * colour + offset by weighted least squares, pulled to gain 1."""
  total = weights.sum() + 1e-6
  mean = lambda a: (weights[:, None] * a).sum(axis=0) / total
  mf, mc = mean(found), mean(colours)
  covariance, variance = mean((found - mf) * (colours - mc)), mean((colours - mc) ** 2)
  gain = jnp.clip((covariance + 1e-3) / (variance + 1e-3), 0.5, 2.0)
  return jnp.stack([gain, mf - gain * mc])


@functools.partial(jax.jit, static_argnames=("config",))
@exact
def texture(skin: Skin, x, z, distance, centre, views: View, training: Bool[jax.Array, "t"], *, config: PhotometricConfig) -> Skin:
  """The colours that training frames agree on: mean over the frames that see a point, once more without outliers."""
  found, facing = jax.lax.map(lambda a: look(skin, a[0], z, distance, a[1], a[2]), (x, centre, views))
  seen = training[:, None] * jnp.where(facing > config.facing, facing, 0.0)
  mean = (seen[..., None] * found).sum(axis=0) / (seen.sum(axis=0)[:, None] + 1e-6)
  off = jnp.linalg.norm(found - mean, axis=-1) / (2 * config.sigma)
  seen = seen / (1.0 + off**2)
  mean = (seen[..., None] * found).sum(axis=0) / (seen.sum(axis=0)[:, None] + 1e-6)
  return skin.replace(colours=mean, trust=(seen.sum(axis=0) > 1.0).astype(jnp.float32))
