"""What holds the Gaussians where pictures say nothing: terms on offsets and colours, on motion in time, on the mass of the anatomy."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from silky_jax.config import ConfigError
from silky_jax.math import harmonics, safe
from silky_jax.math.rotation import matrix_from_quaternion, quaternion_conjugate, quaternion_from_matrix, quaternion_multiply
from silky_jax.models.protocol import MEMORY, Measured, Term
from silky_jax.models.silky.anatomy import anatomy_of, grouping_of
from silky_jax.models.silky.model import SilkyConfig, bounded, deform, posed
from silky_jax.ot.term import Places, transport_term
from silky_jax.physics.term import Motion, physics_term
from silky_jax.types import FlameRig, Frame, Prediction, Variables

__all__ = ["regularize"]


def regularize(config: SilkyConfig, variables: Variables, rig: FlameRig, clip: Frame, prediction: Prediction) -> dict[str, Term]:
  """Terms on what rides on the mesh, each a mean, unweighted.

  `motion`: |d|^2, mm^2. `offset`: |o|^2 in units of the limit squared. `smoothness`: |o_i - o_j|^2 over neighbours on the surface, in
  units of their distance squared. `size`: log-deviations beyond twice the site's spacing, squared. `color_change`: dc^2.

  Three say what a Gaussian is where no training frame tells. The optimizer's steps do not shrink with a gradient, so tiny weights do it:
  `color_smoothness`: (c_i - c_j)^2 over neighbours, colours 0..1. `view_dependence`: square of the harmonics beyond the constant one.
  `transparency`: 1 - sigmoid(a), without the network's part.

  Two are the flagship's own. `physics`, of a clip of at least four frames: `physics.term.physics_term`, over a sample of the Gaussians.
  `transport`: `ot.term.transport_term`, of rendered frames: each group of Gaussians against where it rests, x + F o, or (`reference`
  "mesh") against where the mesh has it, but for those that are meant to leave the mesh (`region_offset_limits`: hair).
  """
  params, buffers, aux = variables.params["gaussians"], variables.buffers, prediction.aux
  neighbours = buffers["neighbours"]
  offset = bounded(params["offset"], buffers["offset_limit"][:, None])
  difference = offset[:, None, :] - offset[neighbours]
  color_difference = harmonics.CONSTANT * (params["color"][:, None, :] - params["color"][neighbours])
  excess = jax.nn.relu(jnp.max(aux["log_deviations"], axis=-1) - jnp.log(2.0 * buffers["spacing"]))
  return {
    "motion": 1e6 * jnp.mean(jnp.sum(aux["motion"] ** 2, axis=-1)),
    "offset": jnp.mean(jnp.sum((offset / buffers["offset_limit"][:, None]) ** 2, axis=-1)),
    "smoothness": jnp.mean(jnp.sum(difference**2, axis=-1) / buffers["spacing"][:, None] ** 2),
    "size": jnp.mean(excess**2),
    "color_change": jnp.mean(aux["color_change"] ** 2),
    "color_smoothness": jnp.mean(jnp.sum(color_difference**2, axis=-1)),
    "view_dependence": jnp.mean(params["harmonics"] ** 2) if "harmonics" in params else jnp.zeros(()),
    "transparency": jnp.mean(jax.nn.sigmoid(-params["opacity"])),
    "physics": lambda: _physics(config, variables, rig, clip),
    "transport": lambda: _transport(config, variables, prediction),
  }


# What there is one of per Gaussian, beside all of `params["gaussians"]`.
_PER_GAUSSIAN = ("faces", "barycentric", "offset_limit", "regions", "alive", "axes", "neighbours", "spacing", "encoding", "texels")


def _physics(config: SilkyConfig, variables: Variables, rig: FlameRig, clip: Frame) -> Measured:
  """The physics term of a sample of the Gaussians, which are deformed in every frame of the clip."""
  settings, frames = config.physics, clip.index.shape[1]
  if frames < settings.frames:
    raise ConfigError(f"clips.length: the term physics wants at least {settings.frames} frames, got {frames}")
  count = variables.buffers["alive"].shape[0]
  wanted = min(settings.sample or count, count)
  stride = count // wanted
  at = jnp.sum(clip.index) % stride + stride * jnp.arange(wanted)  # other Gaussians in other steps
  few = variables.replace(
    params={**variables.params, "gaussians": jax.tree.map(lambda leaf: leaf[at], variables.params["gaussians"])},
    buffers=variables.buffers | {name: variables.buffers[name][at] for name in _PER_GAUSSIAN if name in variables.buffers},
  )

  def one(frame: Frame) -> dict[str, Array]:
    gaussians, aux = deform(config, few, rig, frame)
    origin, head = aux["translation"], aux["head"]
    if settings.mode == "world":
      origin, head = jnp.zeros_like(origin), jnp.eye(3, dtype=head.dtype)
    into_head = lambda x: jnp.sum(x[..., None] * head, axis=-2)  # head^T x
    back = jnp.broadcast_to(quaternion_conjugate(quaternion_from_matrix(head)), aux["carried"].shape)
    seen = {
      "residuals": aux["local"],
      "anchors": into_head(aux["anchors"] - origin),
      "carried": quaternion_multiply(back, aux["carried"]),
      "quaternions": aux["quaternions"],
      "log_deviations": aux["log_deviations"],
      "opacities": gaussians.opacities,
    }
    if settings.predictor == "mesh":
      corners = posed(few.buffers, rig, frame)[0][rig.faces[few.buffers["faces"]]]
      first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
      sides = jnp.stack([first, second, safe.normalise(jnp.cross(first, second))], axis=1)
      seen["edges"] = jnp.swapaxes(into_head(sides), -1, -2)
    return seen

  motion = Motion(times=clip.time, valid=clip.valid, shots=clip.shot, groups=few.buffers["regions"], **jax.vmap(jax.vmap(one))(clip))
  found = physics_term(motion, settings, len(rig.region_names), variables.buffers[MEMORY]["physics"]["rms"])
  return Measured(found.value, {"physics": {"rms": found.rms}}, {"residual": jnp.mean(found.rms)})


def _transport(config: SilkyConfig, variables: Variables, prediction: Prediction) -> Measured:
  """The transport term of the first rendered frames of each clip."""
  buffers, settings = variables.buffers, config.transport
  if "transport" not in buffers:
    raise ConfigError(
      "model.transport.landmark_groups: 'flame' wants a rig with the 68 iBUG landmarks, and this one has none; put landmark_embedding.npy "
      "beside the FLAME model, or take --landmark_groups=face-parsing"
    )
  bodies, cells, elastic = anatomy_of(buffers)
  first = lambda x: (lambda y: y.reshape(-1, *y.shape[2:]))(x[:, : settings.frames])
  aux = prediction.aux
  means, local, offset = first(prediction.gaussians.means), first(aux["local"]), first(aux["offset"])
  free = ~buffers["transport"]["held"][:, None] | (settings.reference == "rest")
  turned = jnp.sum(matrix_from_quaternion(first(aux["carried"])) * offset[:, :, None, :], axis=-1)
  places = Places(
    anchors=first(aux["anchors"]) + jnp.where(free, turned, 0),
    means=means,
    offsets=local - jnp.where(free, offset, 0),
    masses=lax.stop_gradient(first(prediction.gaussians.opacities)) * buffers["spacing"] ** 2,
    neighbours=buffers["neighbours"],
    spacing=buffers["spacing"],
  )
  found = transport_term(places, bodies, buffers["transport"]["whole"], elastic, grouping_of(settings), settings, cells)
  return Measured(found.value, {"transport": found.elastic._asdict()}, found.report)
