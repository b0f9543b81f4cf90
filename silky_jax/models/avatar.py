"""The table of avatar families. A family is one file here, one line in FAMILIES, one config in `configs/`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from silky_jax.config import ConfigError, closest
from silky_jax.models import silky
from silky_jax.models.protocol import Aux, Avatar

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
  """Build an avatar family.

  Args:
    name: a key of FAMILIES.
    config: the family's own config dataclass.

  Raises:
    ConfigError: an unknown name, or a config of another family.
  """
  wanted = family(name).config
  if not isinstance(config, wanted):
    raise ConfigError(f"model: the family {name!r} wants a {wanted.__name__}, got {type(config).__name__}")
  return family(name).make(config)
