"""The photometric rounds of the tracker: texture from the training frames, then every frame against it, then smoothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from silky_jax.data.images import blur
from silky_jax.flame.regions import vertex_mask
from silky_jax.geometry.mesh import vertex_normals
from silky_jax.math.precision import exact
from silky_jax.tracking import energy, fit, photometric
from silky_jax.tracking.energy import LandmarkRig, Observation
from silky_jax.tracking.fit import Fit, FitConfig
from silky_jax.tracking.photometric import PhotometricConfig, Skin, View
from silky_jax.types import FlameRig, LandmarkEmbedding

# Skin that keeps its look: no hair (it has no fixed surface), no mouth interior, no torso.
SKIN_REGIONS = ("face", "forehead", "nose", "left_brow", "right_brow", "left_eye_region", "right_eye_region", "upper_lip", "lower_lip")


def skin_points(rig: FlameRig, config: PhotometricConfig) -> Skin:
  """Evenly thinned vertices of the face, without colours yet."""
  vertices = np.flatnonzero(np.asarray(vertex_mask(rig, SKIN_REGIONS)))
  vertices = vertices[np.linspace(0, len(vertices) - 1, min(config.points, len(vertices))).astype(int)]
  faces = np.asarray(rig.faces)
  corner = {int(v): (f, c) for f, row in enumerate(faces) for c, v in enumerate(row)}
  where = np.array([corner[int(v)] for v in vertices])
  embedding = LandmarkEmbedding(jnp.asarray(where[:, 0], jnp.int32), jnp.eye(3)[where[:, 1]])
  small = energy.landmark_rig(rig, embedding, np.ones(len(vertices), np.float32))
  normals = vertex_normals(rig.template, rig.faces)[vertices]
  return Skin(small, normals, jnp.zeros((len(vertices), 3)), jnp.ones(len(vertices)))


def refine(
  first: Fit,
  model: LandmarkRig,
  rig: FlameRig,
  landmarks: Float[np.ndarray, "t l 2"],
  images: UInt8[np.ndarray, "t h w 3"],
  box: tuple[float, float, float],
  size: tuple[int, int],
  times: Float[np.ndarray, "t"],
  shots: Int[np.ndarray, "t"],
  training: Bool[np.ndarray, "t"],
  fit_config: FitConfig,
  config: PhotometricConfig,
  progress: fit.Progress | None = None,
) -> Fit:
  """Refine a landmark fit by direct alignment; identity and focal length stay.

  Args:
    first: the landmark fit.
    model, landmarks, size, times, shots, training, fit_config: as given to `fit.fit_clip`.
    rig: the whole rig.
    images: the crop of every frame.
    box: where the crop lies in the video (x0, y0, side), px.
    config: settings.
    progress: called with (what, done, total).
  """
  progress = progress or (lambda *_: None)
  skin = skin_points(rig, config)
  found = np.isfinite(landmarks).all(axis=(1, 2))
  seen = fit.observations(landmarks, found, size)
  z = jnp.concatenate([jnp.asarray(first.shape), jnp.log(jnp.asarray([first.focal]))]).astype(jnp.float32)
  x, distance = first.x, jnp.float32(first.distance)
  seen = fit.robust_weights(model, jnp.asarray(x), z, seen, distance, fit_config)
  scale = images.shape[1] / box[2]
  for round_ in range(config.rounds):
    soft = blur(images, config.blur[min(round_, len(config.blur) - 1)])
    count = len(soft)
    views = View(soft, np.full(count, scale, np.float32), np.broadcast_to(np.asarray(box[:2], np.float32), (count, 2)))
    skin = _texture(skin, x, z, distance, seen, views, training & found, config)
    quadratics = functools.partial(_all_quadratics, model, skin, z, seen, views, distance, fit_config, config)
    for _ in range(2):
      x = fit.smooth_step(x, quadratics, times, shots, fit_config)
      progress("alignment", round_ + 1, config.rounds)
  predicted = fit.predict(model, jnp.asarray(x), z, seen.centre, distance)
  return Fit(x, first.shape, first.focal, first.distance, first.key_frames, np.asarray(predicted))


def _texture(skin: Skin, x, z, distance, seen: Observation, views: View, training, config: PhotometricConfig) -> Skin:
  index = np.flatnonzero(training)
  index = index[np.linspace(0, len(index) - 1, min(len(index), 240)).astype(int)]
  chosen = jax.tree.map(lambda a: a[index], views)
  return photometric.texture(
    skin, jnp.asarray(x[index]), z, distance, seen.centre[index], chosen, jnp.ones(len(index), bool), config=config
  )


@functools.partial(jax.jit, static_argnames=("prior", "config"))
@exact
def _quadratic(model, skin, x, z, seen: Observation, view: View, distance, *, prior, config: PhotometricConfig):
  weights, gain = photometric.weigh(skin, x, z, distance, seen.centre, view, config=config)
  present = jnp.where(seen.weights.sum() > 0, 1.0, 0.0)  # a frame without a face has nothing to align

  def residual(y):
    colour = photometric.residuals(skin, y, z, distance, seen.centre, view, weights * present, gain, config)
    return jnp.concatenate([fit.frame_residual(model, y, z, seen, distance, prior), colour])

  j = jax.jacfwd(residual)(x)
  return j.T @ j, j.T @ residual(x)


def _all_quadratics(model, skin, z, seen, views, distance, fit_config: FitConfig, config: PhotometricConfig, x):
  """Frame by frame: memory of one Jacobian, whatever the length of the clip."""
  one = functools.partial(_quadratic, model, skin, prior=fit_config.prior, config=config)
  normals, gradients = [], []
  for t in range(len(x)):
    n, g = one(jnp.asarray(x[t], jnp.float32), z, fit.pick(seen, t), jax.tree.map(lambda a: a[t], views), distance)  # noqa: B023
    normals.append(np.asarray(n))
    gradients.append(np.asarray(g))
  return np.stack(normals), np.stack(gradients)
