"""Configs: a round trip, and every way of getting a key wrong."""

import dataclasses
import json
from typing import Literal

import pytest

from silky_jax.config import ConfigError, UserError, closest, differences, from_dict, to_dict


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float = 0.5
  sizes: tuple[int, ...] = (1, 2)
  pair: tuple[float, float] = (0.0, 1.0)
  weights: dict[str, float] = dataclasses.field(default_factory=lambda: {"a": 1.0})


@dataclasses.dataclass(frozen=True)
class Outer:
  inner: Inner = Inner()
  mode: Literal["fast", "slow"] = "fast"
  count: int = 3
  flag: bool = False
  name: str | None = None


def _changed(**changes):
  data = to_dict(Outer())
  for path, value in changes.items():
    *parents, last = path.split("__")
    target = data
    for key in parents:
      target = target[key]
    target[last] = value
  return data


def test_round_trip_through_json():
  config = Outer(inner=Inner(rate=2.0, weights={"b": 3.0}), name="x", mode="slow")
  assert from_dict(Outer, json.loads(json.dumps(to_dict(config)))) == config


def test_int_becomes_float():
  assert from_dict(Outer, _changed(inner__rate=2)).inner.rate == 2.0


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"inner__raet": 1.0}, ["inner.raet", "did you mean 'rate'"]),
    ({"zzz": 1.0}, ["zzz", "known:"]),
    ({"inner__rate": "fast"}, ["inner.rate", "float", "'fast'"]),
    ({"count": 1.5}, ["count", "int", "1.5"]),
    ({"count": True}, ["count", "int", "True"]),
    ({"flag": 1}, ["flag", "bool", "1"]),
    ({"mode": "faste"}, ["mode", "'fast'", "'slow'"]),
    ({"inner__sizes": (1, 2.5)}, ["inner.sizes[1]", "2.5"]),
    ({"inner__sizes": 3}, ["inner.sizes", "tuple"]),
    ({"inner__pair": (1.0,)}, ["inner.pair", "2 values", "got 1"]),
    ({"inner__weights": {"a": "x"}}, ["inner.weights.a", "float"]),
    ({"inner": 3}, ["inner", "mapping", "Inner"]),
  ],
)
def test_refuses(changes, words):
  with pytest.raises(ConfigError) as error:
    from_dict(Outer, _changed(**changes))
  for word in words:
    assert word in str(error.value)


def test_refuses_missing():
  data = to_dict(Outer())
  del data["inner"]["rate"], data["count"]
  with pytest.raises(UserError, match=r"missing config key 'count'"):
    from_dict(Outer, data)
  data["count"] = 1
  with pytest.raises(UserError, match=r"missing config key 'inner\.rate'"):
    from_dict(Outer, data)


def test_field_type_chosen_by_the_caller():
  @dataclasses.dataclass(frozen=True)
  class Open:
    model: object = None

  assert from_dict(Open, {"model": to_dict(Inner())}, fields={"model": Inner}) == Open(model=Inner())


def test_differences_name_the_keys():
  left, right = to_dict(Outer()), _changed(inner__rate=1.0, count=4, inner__sizes=[1, 2])
  assert differences(left, right) == ["count: 3 -> 4", "inner.rate: 0.5 -> 1.0"]


def test_closest():
  assert closest("trian", ["train", "eval"]) == "; did you mean 'train'?"
  assert closest("q", []) == ""
