"""The table of avatar families. A family is one file here, one line in FAMILIES, one config in `configs/`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from silky_jax.config import ConfigError, closest
from silky_jax.math.precision import exact
from silky_jax.models import silky
from silky_jax.models.protocol import Aux, Avatar, RegularizeFn, Term

__all__ = ["FAMILIES", "Aux", "Avatar", "Family", "family", "make"]


class Family(NamedTuple):
  """A family's settings and how to build it."""

  config: type
  make: Callable[[Any], Avatar]


FAMILIES: dict[str, Family] = {
  "silky": Family(silky.SilkyConfig, silky.make),
}


def family(name: str) -> Family:
  """Look a family up.

  Raises:
    ConfigError: an unknown name; the message lists the known ones.
  """
  if name not in FAMILIES:
    raise ConfigError(f"family: no avatar family {name!r}{closest(name, FAMILIES)}")
  return FAMILIES[name]


def make(name: str, config: Any) -> Avatar:
  """Build an avatar family, whose matrix products are exact on every device (`math.precision.exact`) where it does not say otherwise.

  Args:
    name: a key of FAMILIES.
    config: the family's own config dataclass.

  Raises:
    ConfigError: an unknown name, or a config of another family.
  """
  wanted = family(name).config
  if not isinstance(config, wanted):
    raise ConfigError(f"model: the family {name!r} wants a {wanted.__name__}, got {type(config).__name__}")
  made = family(name).make(config)
  return made._replace(
    init=exact(made.init),
    deform=exact(made.deform),
    regularize=exact(_with_exact_terms(made.regularize)),
    decode=exact(made.decode),
    paint=None if made.paint is None else exact(made.paint),
  )


def _with_exact_terms(regularize: RegularizeFn) -> RegularizeFn:
  """Terms that are functions are called later, outside of `regularize`."""

  def terms(*args: Any) -> dict[str, Term]:
    return {name: exact(term) if callable(term) else term for name, term in regularize(*args).items()}

  return terms
