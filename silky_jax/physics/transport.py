"""How covariances should be next: a linear motion acts on them by congruence, A S A^T, and their own past extrapolates on the SPD manifold.

Under dx/dt = L x a Gaussian obeys dS/dt = L S + S L^T, so S(t + h) = A S A^T with A = exp(L h): together with its mean one element of the
affine group. `mesh` takes A from the surface that carries the Gaussians; the others from the covariances' history, newest first.
Arrays in millimetres^2.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.math import spd, symmetric3
from silky_jax.math.symmetric3 import product

__all__ = ["LONGEST", "Predictor", "deformation", "history_of", "predict_covariances", "transport_covariances"]

Predictor = Literal["mesh", "airm1", "airm2", "logeuclid2", "bures1"]
_HISTORY: dict[str, int] = {"mesh": 1, "airm1": 2, "airm2": 3, "logeuclid2": 3, "bures1": 2}
LONGEST = 3**0.5 * 0.6931472  # sqrt(3) log 2: at most a doubling of every axis in one frame


def history_of(predictor: Predictor) -> int:
  """How many frames a predictor looks back.

  Args:
    predictor: its name.

  Raises:
    ValueError: an unknown name.
  """
  if predictor not in get_args(Predictor):
    raise ValueError(f"predictor: expected one of {get_args(Predictor)}, got {predictor!r}")
  return _HISTORY[predictor]


def transport_covariances(covariances: Float[Array, "*b n 3 3"], motion: Float[Array, "*b n 3 3"]) -> Float[Array, "*b n 3 3"]:
  """Covariances carried by a linear motion: A S A^T.

  Args:
    covariances: S.
    motion: A, the deformation from the one frame to the other.

  Returns:
    Symmetric positive definite where A is regular.
  """
  return spd.congruence(motion, covariances)


def predict_covariances(
  history: list[Float[Array, "*b 3 3"]],
  times: list[Float[Array, "*#b"]],
  *,
  predictor: Predictor = "airm2",
  damping: float = 1.0,
  longest: float = LONGEST,
) -> Float[Array, "*b 3 3"]:
  """The next covariance by its own past.

  Equations (1, 2, 3: newest to oldest; even times): airm1 the geodesic through 2 and 1, S1 S2^-1 S1; airm2 Exp_1(v1 + (v1 - P_{2->1} v2)),
  v1 = -Log_1(2), v2 = -Log_2(3), with the affine-invariant metric, exact on its geodesics and equivariant under S -> B S B^T; logeuclid2
  exp(3 L1 - 3 L2 + L3), L = log S; bures1 (2 T - I) S2 (2 T - I) with the optimal map T from 2 to 1. Uneven times scale the steps as in
  `kinematics.history_weights`. The tangent at 1 is shortened to `longest` in the affine-invariant norm, so no past, however wild, predicts
  more than a doubling; the flat predictor's likewise in its own, that of bures1 as a map (which keeps it on the manifold).

  Args:
    history: covariances, newest first, `history_of(predictor)` of them.
    times: seconds: of the frame to predict, then of the history.
    predictor: not "mesh", which is `transport_covariances`.
    damping: scales the tangent.
    longest: see above.

  Returns:
    Symmetric positive definite. Differentiable once.

  Raises:
    ValueError: an unknown predictor, or a history of another length.
  """
  wanted = history_of(predictor)
  if predictor == "mesh":
    raise ValueError("predictor: 'mesh' has no history; use transport_covariances")
  if len(history) != wanted or len(times) != wanted + 1:
    raise ValueError(f"history: {predictor} wants {wanted} covariances and {wanted + 1} times, got {len(history)} and {len(times)}")
  forward = times[0] - times[1]
  back = times[1] - times[2]
  share = (forward / back)[..., None, None]
  if predictor == "logeuclid2":
    return _flat(history, times, damping, longest)
  if predictor == "bures1":
    eye = jnp.eye(3, dtype=history[0].dtype)
    move = -damping * share * (spd.optimal_map(history[0], history[1]) - eye)
    return spd.congruence(eye + _shorten(move, 0.5 * longest), history[0])
  half, inverse = symmetric3.root(history[0]), symmetric3.inverse_root(history[0])
  # In the coordinates where the newest covariance is the identity: tangents there are logarithms, and the norm is Frobenius'.
  older = spd.relative(inverse, history[1])
  tangent = -share * symmetric3.logarithm(older)
  if predictor == "airm2":
    before = -_carried(history, inverse)
    tangent = tangent + _second_step(tangent, share, before, times)
  return spd.congruence(half, symmetric3.exponential(_shorten(damping * tangent, longest)))


def _carried(history, inverse):
  """Log_2(3), carried from 2 to 1, in the coordinates where 1 is the identity (`inverse` = S1^-1/2).

  With M = S2^-1/2 S1 S2^-1/2 it is B log(S2^-1/2 S3 S2^-1/2) B^T, B = S1^-1/2 S2^1/2 M^1/2 a rotation. Seen from 1 itself, 2 can have a
  condition that float32 does not hold; none of the matrices here has more than the square of a covariance's.
  """
  half, back = symmetric3.root(history[1]), symmetric3.inverse_root(history[1])
  turn = product(product(inverse, half), symmetric3.root(spd.relative(back, history[0])))
  return spd.congruence(turn, symmetric3.logarithm(spd.relative(back, history[2])))


def _second_step(first, share, before, times):
  """What acceleration adds to the tangent `first` = share v1: with velocities w per second, (w1 - w2) h (h + t_1 - t_2) / (t_1 - t_3)."""
  forward, back, far = times[0] - times[1], times[1] - times[2], times[2] - times[3]
  change = first / share / back[..., None, None] - before / far[..., None, None]
  return change * (forward * (forward + back) / (back + far))[..., None, None]


def _shorten(tangent, longest):
  length = jnp.sqrt(jnp.sum(tangent**2, axis=(-2, -1)) + 1e-12)
  return tangent * jnp.minimum(1, longest / length)[..., None, None]


def _flat(history, times, damping, longest):
  logs = [symmetric3.logarithm(covariance) for covariance in history]
  forward, back, far = times[0] - times[1], times[1] - times[2], times[2] - times[3]
  newer, older = ((logs[k] - logs[k + 1]) / gap[..., None, None] for k, gap in ((0, back), (1, far)))
  curve = (newer - older) / (back + far)[..., None, None]
  step = (newer + curve * back[..., None, None]) * forward[..., None, None] + curve * (forward * forward)[..., None, None]
  return symmetric3.exponential(logs[0] + _shorten(damping * step, longest))


def deformation(edges: Float[Array, "*b 3 3"], rest: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """The deformation of a surface from triangle columns [e1 e2 n]: J = [e1 e2 n] [E1 E2 N]^-1.

  Args:
    edges: two edges and the unit normal of a triangle now, in columns.
    rest: the same at rest.

  Returns:
    J; the identity where a triangle is degenerate or turned inside out, of which the second result would be a mirrored Gaussian.
  """
  eye = jnp.eye(3, dtype=edges.dtype)
  sizes = symmetric3.determinant(edges), symmetric3.determinant(rest)
  # Both the same way round, and neither flat: checked before the division, or its infinities would reach the gradient.
  good = (sizes[0] * sizes[1] > 0) & (jnp.abs(sizes[1]) > 1e-12) & (jnp.abs(sizes[0]) > 1e-12)
  good = good[..., None, None]
  return jnp.where(good, product(edges, symmetric3.inverse(jnp.where(good, rest, eye))), eye)
