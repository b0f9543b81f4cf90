"""How covariances should be next: a linear motion acts on them by congruence, A S A^T, and their own past extrapolates on the SPD manifold.

Under dx/dt = L x a Gaussian obeys dS/dt = L S + S L^T, so S(t + h) = A S A^T with A = exp(L h): together with its mean one element of the
affine group. `mesh` takes A from the surface that carries the Gaussians; the others from the covariances' history, newest first, or, where
the frame after is known too, from both neighbours in time.
Arrays in millimetres^2.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from silky_jax.math import spd, symmetric3
from silky_jax.math.symmetric3 import product

__all__ = [
  "LONGEST",
  "Predictor",
  "between_covariances",
  "deformation",
  "history_of",
  "predict_covariances",
  "regular",
  "transport_covariances",
]

Predictor = Literal["mesh", "airm1", "airm2", "logeuclid2", "bures1"]
_HISTORY: dict[str, int] = {"mesh": 1, "airm1": 2, "airm2": 3, "logeuclid2": 3, "bures1": 2}
_FLATTEST = 1e-3  # sine of a triangle's angle: edges of 1 mm on a head in float32 have directions to 1e-5, so this one to a hundredth
_SHORTEST = 1e-6  # metres, of an edge: likewise
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


def between_covariances(
  older: Float[Array, "*b 3 3"], newer: Float[Array, "*b 3 3"], share: Float[Array, "*#b"], *, predictor: Predictor = "airm2"
) -> Float[Array, "*b 3 3"]:
  """The covariance on the way from the frame before to the frame after.

  Equations (P before, Q after, s the share of the way): P^1/2 (P^-1/2 Q P^-1/2)^s P^1/2, the geodesic of the affine-invariant metric;
  logeuclid2 exp((1 - s) log P + s log Q); bures1 (I + s (T - I)) P (I + s (T - I)) with the optimal map T from P to Q. Nothing is
  extrapolated, so nothing has to be shortened.

  Args:
    older: P.
    newer: Q.
    share: s, 0 to 1: `kinematics.share_of_way`.
    predictor: which metric; "mesh" and airm* are affine-invariant ("mesh" wants both brought to the frame between by `deformation` first).

  Returns:
    Symmetric positive definite. Differentiable once.

  Raises:
    ValueError: an unknown predictor.
  """
  history_of(predictor)
  share = share[..., None, None]
  if predictor == "logeuclid2":
    return symmetric3.exponential((1 - share) * symmetric3.logarithm(older) + share * symmetric3.logarithm(newer))
  eye = jnp.eye(3, dtype=older.dtype)
  if predictor == "bures1":
    return spd.congruence(eye + share * (spd.optimal_map(older, newer) - eye), older)
  # As in `predict_covariances`: through a tangent at P itself (`spd.geodesic`) a needle would lose its digits.
  half, inverse = symmetric3.root(older), symmetric3.inverse_root(older)
  return spd.congruence(half, symmetric3.exponential(share * symmetric3.logarithm(spd.relative(inverse, newer))))


def regular(edges: Float[Array, "*b 3 3"], rest: Float[Array, "*b 3 3"]) -> Bool[Array, "*b"]:
  """Whether two states of a triangle have a deformation between them: neither flat nor tiny, and both the same way round.

  Args:
    edges: columns [e1 e2 n]: two edges, metres, and the unit normal of a triangle.
    rest: the same at another time.

  Returns:
    False where an edge is below a micrometre, the sine of the angle between the edges below 1e-3, the determinants differ in sign
    (mirrored), or an entry is not a number. No gradient.
  """
  fine, sizes = [], []
  for state in (edges, rest):
    lengths = jnp.sqrt(jnp.sum(state**2, axis=-2))
    sizes.append(symmetric3.determinant(state))
    fine.append((jnp.abs(sizes[-1]) > _FLATTEST * jnp.prod(lengths, axis=-1)) & (jnp.min(lengths, axis=-1) > _SHORTEST))
  return fine[0] & fine[1] & ((sizes[0] > 0) == (sizes[1] > 0))


def deformation(edges: Float[Array, "*b 3 3"], rest: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
  """The deformation of a surface from triangle columns [e1 e2 n]: J = [e1 e2 n] [E1 E2 N]^-1.

  Of two moments it is that from the one to the other, J_k J_k-1^-1: the head at rest cancels.

  Args:
    edges: two edges, metres, and the unit normal of a triangle now, in columns.
    rest: the same at rest, or at another time.

  Returns:
    J; the identity, with gradient 0, where `regular` says that there is none.
  """
  eye = jnp.eye(3, dtype=edges.dtype)
  good = regular(edges, rest)[..., None, None]
  # Masked before the division, or its infinities would reach the gradient.
  return jnp.where(good, product(jnp.where(good, edges, eye), symmetric3.inverse(jnp.where(good, rest, eye))), eye)
