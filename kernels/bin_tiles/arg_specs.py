"""Named argument shapes of bin_tiles, shared by tests and benches."""

from typing import NamedTuple

__all__ = ["ARG_SPECS", "ArgSpec"]


class ArgSpec(NamedTuple):
  """One realistic call."""

  n: int
  width: int
  height: int
  tile: int
  ci: bool  # small enough for the fast test tier


ARG_SPECS: dict[str, ArgSpec] = {
  "smoke": ArgSpec(n=40, width=32, height=32, tile=8, ci=True),
  "uneven": ArgSpec(n=300, width=61, height=43, tile=8, ci=True),
  "large_tile": ArgSpec(n=300, width=61, height=43, tile=16, ci=True),
  "demo": ArgSpec(n=12_000, width=192, height=192, tile=8, ci=False),
  "paper": ArgSpec(n=14_000, width=256, height=256, tile=8, ci=False),
  "dense": ArgSpec(n=50_000, width=512, height=512, tile=8, ci=False),
}
