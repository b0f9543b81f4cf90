"""Which frames train, which are scored, which are neither: the demo protocol, as one pure function.

The first frames of a webcam clip are badly compressed and are dropped. A near-repeat of its predecessor (webcams
repeat pictures) would be seen in training and scored in evaluation at once, so it is neither. Of the rest, every fifth
block of the first 85 % is held out with guard frames on both sides, and the last 15 % is held out whole.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Shaped

from silky_jax.config import UserError

NAMES = ("train", "heldout_blocks", "heldout_tail", "guard", "repeat", "dropped")


@dataclasses.dataclass(frozen=True)
class SplitConfig:
  drop_first: int = 20  # frames; the encoder's first pictures are coarse
  tail_share: float = 0.15  # of what is left, held out whole
  block: int = 25  # frames in a block
  every: int = 5  # one block of this many is held out
  guard: int = 3  # unused frames on each side of a held-out block
  repeat_threshold: float = 0.3  # of 255, mean absolute change in the head crop


def make_splits(changes: Shaped[np.ndarray, "n"], config: SplitConfig | None = None) -> dict[str, Int[np.ndarray, "_"]]:
  """Partition the frames of one clip.

  Args:
    changes: mean absolute change of each frame against the one before it, in units of 255, inside the head crop;
      the first entry is ignored. Non-finite entries (no face found) are dropped frames.
    config: sizes of the protocol.

  Returns:
    A sorted index array per name of `NAMES`; together they hold every frame exactly once.

  Raises:
    UserError: the clip is too short to train on and to score.
  """
  config = config or SplitConfig()
  n = len(changes)
  first = min(config.drop_first, n // 10)
  tail = first + round((n - first) * (1.0 - config.tail_share))
  index = np.arange(n)
  label = np.full(n, NAMES.index("train"))
  held = _held_blocks(index, first, tail, config)
  near = held.copy()
  for shift in range(1, config.guard + 1):
    near[shift:] |= held[:-shift]
    near[:-shift] |= held[shift:]
  near[max(first, tail - config.guard) : tail] = True
  label[near] = NAMES.index("guard")
  label[held] = NAMES.index("heldout_blocks")
  label[tail:] = NAMES.index("heldout_tail")
  with np.errstate(invalid="ignore"):
    label[(changes < config.repeat_threshold) & (index > 0)] = NAMES.index("repeat")
  label[(index < first) | ~np.isfinite(np.where(index == 0, 0.0, changes))] = NAMES.index("dropped")
  splits = {name: np.flatnonzero(label == code).astype(np.int32) for code, name in enumerate(NAMES)}
  if len(splits["train"]) < 10 or len(splits["heldout_tail"]) < 2:
    raise UserError(
      f"the clip has {n} frames, of which {len(splits['train'])} can be trained on and {len(splits['heldout_tail'])} scored: "
      "wanted at least 10 and 2. Give a longer clip in which the person moves."
    )
  return splits


def _held_blocks(index: Int[np.ndarray, "n"], first: int, tail: int, config: SplitConfig) -> Bool[np.ndarray, "n"]:
  """Every `every`-th block of `block` frames between `first` and `tail`."""
  inside = (index >= first) & (index < tail)
  return inside & (((index - first) // config.block) % config.every == config.every - 1)
