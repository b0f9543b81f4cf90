"""What every avatar family is to the rest of the project: a handful of pure functions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax

from silky_jax.types import Array, Frame, Gaussians, Prediction, PyTree, Subject, Variables

__all__ = ["MEMORY", "Aux", "Avatar", "Measured", "Term", "identity_decode"]

MEMORY = "memory"  # of `Variables.buffers`: what terms keep from step to step

Aux: TypeAlias = dict[str, Array]
InitFn: TypeAlias = Callable[[jax.Array, PyTree, Subject], Variables]
DeformFn: TypeAlias = Callable[[Variables, PyTree, Frame], tuple[Gaussians, Aux]]


class Measured(NamedTuple):
  """A term of the loss with what it leaves behind."""

  value: Array  # scalar
  memory: Mapping[str, PyTree] = {}  # new entries of `buffers["memory"]`, which hold the same names and shapes from `init` on; no gradient
  report: Mapping[str, Array] = {}  # scalars to log, as TERM_KEY


Term: TypeAlias = Array | Measured | Callable[[], "Array | Measured"]
RegularizeFn: TypeAlias = Callable[[Variables, PyTree, Frame, Prediction], dict[str, Term]]
DecodeFn: TypeAlias = Callable[[Variables, Array], Array]
PaintFn: TypeAlias = Callable[[Variables, PyTree, Frame], Variables]


def identity_decode(variables: Variables, image: Array) -> Array:
  """For families whose rendered channels are the colours."""
  return image


class Avatar(NamedTuple):
  """A head-avatar family as pure functions. Settings are closed over; arrays never are.

  `rig` is opaque to training: only the family reads it.
  """

  # (key, rig, subject) -> variables. Host code: the rig must hold values, not tracers; key and subject may be traced.
  init: InitFn
  # (variables, rig, frame) -> (Gaussians, aux). One frame; pictures in it are not looked at.
  deform: DeformFn
  # (variables, rig, clip, prediction) -> scalar terms, unweighted. Clip and prediction are [b, t]. A term that costs much may be a function
  # without arguments: it is called only where the term has a weight.
  regularize: RegularizeFn
  # (variables, image [h, w, features]) -> [h, w, 3].
  decode: DecodeFn = identity_decode
  # (variables, rig, frames [t] with pictures) -> variables: what a few training frames tell directly, once, before step 0.
  paint: PaintFn | None = None
  # Terms of `regularize` that look across time. While none of them has a weight, the clip is its rendered frames alone.
  clip_terms: tuple[str, ...] = ()
  # Whether those terms want every frame of the clip deformed in `prediction`. Else that has the rendered frames, and they deform what they
  # need.
  deforms_clip: bool = True
  features: int = 3  # channels the renderer must carry
