"""Silky: Gaussians that ride on the texels of a head mesh, and a network that adds what the mesh does not know.

    x_i(t)   anchor: a point of a triangle of the posed rig, at fixed barycentric weights
    F_i(t)   carried frame: the rotation that took the triangle from the neutral head to its pose now
    mu_i     = x_i + F_i (o_i + d_i(t))                           o: static offset, d: the network's motion, both in head axes
    q_i      = F_i * dq_i(t) * s_i * b_i                           orientation; s: the triangle's axes on the neutral head, b: trained
    Sigma_i  = R(q_i) diag(exp 2(l_i + dl_i(t))) R(q_i)^T
    colour_i = g(t) max(0, 1/2 + Y(view direction in the head's frame) . h_i + dc_i(t)),  opacity_i = sigmoid(a_i + da_i(t))
               g: the camera's exposure, tracked

Coarse is everything but the d's; fine adds them: one residual network, gamma(position on the neutral head) and the frame's expression,
joints and eyelids in, all of (d, dq, dl, dc, da) out: an MLP of each Gaussian, or a U-Net over the atlas, the "UV splatter image". It
starts at zero, so training begins from the coarse avatar. After FlashAvatar (Xiang et al. 2024) and the Silky release, with the faults of
the latter put right: orthonormal frames that are composed, not averaged; offsets bounded and zero at the start; additive log-deviations
(the spec, 2 and 8.1).
"""

import functools

from silky_jax.config import ConfigError
from silky_jax.models.protocol import Avatar
from silky_jax.models.silky.model import SilkyConfig, deform
from silky_jax.models.silky.start import init, paint
from silky_jax.models.silky.terms import regularize

__all__ = ["SilkyConfig", "make"]


def make(config: SilkyConfig) -> Avatar:
  """The family as pure functions.

  Args:
    config: settings.

  Raises:
    ConfigError: a harmonics degree outside 0..3, an atlas or a width that a U-Net cannot halve, or levels of transport that the groups do
      not have.
  """
  if not 0 <= config.harmonics_degree <= 3:
    raise ConfigError(f"model.harmonics_degree: expected 0 to 3, got {config.harmonics_degree}")
  if config.residual == "uv" and (config.uv_size % 16 or config.uv_width % 8 or config.uv_width < 8):
    raise ConfigError(
      "model.uv_size, model.uv_width: residual 'uv' halves the atlas four times and the width three times: expected multiples of 16 and 8, "
      f"got {config.uv_size} and {config.uv_width}"
    )
  levels, groups = config.transport.levels, config.transport.landmark_groups
  if not set(levels) <= {0, 1, 2} or (2 in levels and groups != "flame"):
    raise ConfigError(
      f"model.transport.levels: expected some of 0, 1 and, with landmark_groups 'flame', 2; got {levels} with {groups!r}; "
      "take --config.model.transport.levels='(0, 1)'"
    )
  bound = functools.partial
  return Avatar(
    init=bound(init, config),
    deform=bound(deform, config),
    regularize=bound(regularize, config),
    paint=bound(paint, config),
    clip_terms=("physics",),
    deforms_clip=False,
  )
