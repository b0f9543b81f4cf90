"""Nested frozen dataclasses <-> plain dictionaries, and the errors a user can mend.

Every room owns its own config dataclass; this file only carries them to and from JSON or a ConfigDict. Reading is strict: an unknown
key, a missing key or a value of the wrong type fails with the path of the key, so that a misspelt setting can never be ignored.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

__all__ = ["ConfigError", "UserError", "closest", "differences", "from_dict", "output_folder", "to_dict"]

T = TypeVar("T")
_MISSING = "<missing>"


class UserError(Exception):
  """A mistake the caller can mend. The message names the thing, what was wanted, what was found and the next step."""


def output_folder(path: Path | str) -> Path:
  """Make a folder for results and see that it can be written.

  Raises:
    UserError: it cannot; an --output_dir is meant.
  """
  folder = Path(path)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise UserError(
      f"output_dir {folder}: wanted a folder that can be written, found: {error.strerror}. Choose another with --output_dir."
    ) from error
  return folder


class ConfigError(UserError):
  """A config with an unknown key, a missing key or a value of the wrong type."""


def closest(word: str, known: Iterable[str]) -> str:
  """A hint `; did you mean 'x'?` for a misspelt word, or the list of what is known where nothing is near.

  Args:
    word: what was written.
    known: what could have been written.
  """
  known = sorted(known)
  near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
  if near:
    return f"; did you mean {near[0]!r}?"
  return f"; known: {', '.join(known)}" if known else ""


def to_dict(config: Any) -> Any:
  """A dataclass as plain dictionaries, lists kept as tuples; the inverse of `from_dict`.

  Args:
    config: a dataclass instance, or any value inside one.
  """
  if dataclasses.is_dataclass(config) and not isinstance(config, type):
    return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
  if isinstance(config, Mapping):
    return {key: to_dict(value) for key, value in config.items()}
  if isinstance(config, list | tuple):
    return tuple(to_dict(value) for value in config)
  return config


def from_dict(cls: type[T], data: Mapping[str, Any], *, path: str = "", fields: Mapping[str, type] | None = None) -> T:
  """Build the dataclass `cls` from nested mappings.

  Args:
    cls: a dataclass type.
    data: a mapping with exactly the fields of `cls`; dataclass fields hold mappings in turn, tuples may come as lists.
    path: where `data` sits in the whole config, for the messages.
    fields: types that replace the annotated ones, for a field whose type another field decides (`model` by `family`).

  Raises:
    ConfigError: an unknown or missing key or a wrong type; the message holds the key path and the nearest known key.
  """
  if not isinstance(data, Mapping):
    raise ConfigError(f"{path or cls.__name__}: expected a mapping with the keys of {cls.__name__}, got {data!r}")
  hints = {**typing.get_type_hints(cls), **(fields or {})}
  names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
  for key in data:
    if key not in names:
      raise ConfigError(f"unknown config key {_join(path, key)!r}{closest(key, names)}")
  missing = [_join(path, name) for name in names if name not in data]
  if missing:
    raise ConfigError(
      f"missing config key{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}: give every key of {cls.__name__}"
    )
  return cls(**{name: _convert(hints[name], data[name], _join(path, name)) for name in names})


def differences(left: Mapping[str, Any], right: Mapping[str, Any], *, path: str = "") -> list[str]:
  """The key paths at which two configs differ, each as `path: left -> right`.

  Args:
    left, right: nested mappings, as `to_dict` gives; a list equals a tuple with the same items.
    path: where they sit in the whole config.
  """
  lines = []
  for key in sorted({*left, *right}):
    a, b = left.get(key, _MISSING), right.get(key, _MISSING)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      lines += differences(a, b, path=_join(path, key))
    elif to_dict(a) != to_dict(b):
      lines.append(f"{_join(path, key)}: {a!r} -> {b!r}")
  return lines


def _join(path: str, key: str) -> str:
  return f"{path}.{key}" if path else key


def _convert(hint: Any, value: Any, path: str) -> Any:
  """Check `value` against a type hint; the few hints that configs use."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return value
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in arguments:
      return None
    (inner,) = [argument for argument in arguments if argument is not type(None)]
    return _convert(inner, value, path)
  if dataclasses.is_dataclass(hint):
    return from_dict(typing.cast(type, hint), value, path=path)
  if origin is Literal:
    if value not in arguments:
      raise ConfigError(f"{path}: expected one of {', '.join(map(repr, arguments))}, got {value!r}")
    return value
  if origin is tuple:
    return _convert_tuple(arguments, value, path)
  if origin is dict:
    if not isinstance(value, Mapping):
      raise ConfigError(f"{path}: expected a mapping, got {value!r}")
    return {key: _convert(arguments[1], item, _join(path, key)) for key, item in value.items()}
  return _convert_plain(hint, value, path)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
  if not isinstance(value, list | tuple):
    raise ConfigError(f"{path}: expected a tuple, got {value!r}")
  if len(arguments) == 2 and arguments[1] is Ellipsis:
    return tuple(_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
  if len(arguments) != len(value):
    raise ConfigError(f"{path}: expected {len(arguments)} values, got {len(value)}")
  return tuple(_convert(hint, item, f"{path}[{i}]") for i, (hint, item) in enumerate(zip(arguments, value, strict=True)))


def _convert_plain(hint: Any, value: Any, path: str) -> Any:
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  # bool is an int to Python; a config that says 1 for True is more likely a slip.
  if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
    raise ConfigError(f"{path}: expected {hint.__name__}, got {value!r}")
  return value
