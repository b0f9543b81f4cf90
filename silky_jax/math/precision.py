"""Float32 products that are float32 on every device."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

__all__ = ["exact"]

P = ParamSpec("P")
T = TypeVar("T")


def exact(function: Callable[P, T]) -> Callable[P, T]:
  """The same function, traced so that its matrix products are not rounded.

  On NVIDIA GPUs JAX multiplies float32 matrices in tf32 unless told otherwise: three digits, tenths of a millimetre on a head. A product
  that names its own precision keeps it. Gradients follow, except those written by hand (`custom_vjp`), which are traced on the way back.

  Args:
    function: to be called while a program is traced; below `jax.jit`, not above.
  """

  @functools.wraps(function)
  def traced(*args: P.args, **kwargs: P.kwargs) -> T:
    with jax.default_matmul_precision("highest"):
      return function(*args, **kwargs)

  return traced
