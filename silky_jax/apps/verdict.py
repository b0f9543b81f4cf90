"""What a run's figures mean in plain words: goals reached or missed, and what is weak."""

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["NO_CURVE", "Goal", "curve_rank", "goals", "weaknesses"]

NO_CURVE = ("step", "capacity", "pairs", "overflow", "skipped", "seconds")  # logged, but no curve of training
_TIE = 0.05  # dB; less than that is the same
_FIRST_CURVES = ("loss", "psnr", "perceptual", "huber", "ssim", "alpha")


@dataclasses.dataclass(frozen=True)
class Goal:
  """One figure of the demo with what was wanted of it."""

  name: str
  shown: str
  wanted: str
  reached: bool | None  # None: could not be measured


def curve_rank(name: str) -> tuple[int, str]:
  """Sorts the curves of training: what matters most comes first."""
  return (_FIRST_CURVES.index(name) if name in _FIRST_CURVES else len(_FIRST_CURVES), name)


def _get(tree: Mapping[str, Any], *path: str) -> float | None:
  found: Any = tree
  for key in path:
    found = found.get(key) if isinstance(found, Mapping) else None
  return found


def _goal(name: str, value: float | None, form: str, wanted: str, reached: bool | None) -> Goal:
  return Goal(name, "-" if value is None else form.format(value), wanted, None if value is None else reached)


def goals(metrics: Mapping[str, Any]) -> list[Goal]:
  """The figures that the demo sets out to reach, in the order in which they matter.

  Args:
    metrics: what `metrics.json` holds.
  """
  tail, blocks = (_get(metrics, split, "avatar", "psnr") for split in ("heldout_tail", "heldout_blocks"))
  nearest = _get(metrics, "heldout_tail", "nearest_frame", "psnr")
  gain = None if tail is None or nearest is None else tail - nearest
  alex, near_alex = (_get(metrics, "heldout_tail", name, "lpips_alex") for name in ("avatar", "nearest_frame"))
  ratio = None if alex is None or not near_alex else alex / near_alex
  lips, lids = (_get(metrics, "expression_follow", part) for part in ("lips", "lids"))
  cover, hole = (_get(metrics, "views", part) for part in ("coverage", "largest_hole"))
  return [
    _goal("PSNR, poses never seen", tail, "{:.2f} dB", "25 dB", tail is not None and tail >= 25),
    _goal("PSNR, held-out blocks", blocks, "{:.2f} dB", "27 dB", blocks is not None and blocks >= 27),
    _goal("above the nearest frame", gain, "{:+.2f} dB", "4 dB on the tail", gain is not None and gain >= 4),
    _goal("LPIPS against nearest frame", ratio, "{:.2f} x", "at most 0.5 x on the tail", ratio is not None and ratio <= 0.5),
    _goal("lips follow", lips, "{:.3f}", "correlation 0.85", lips is not None and lips >= 0.85),
    _goal("lids follow", lids, "{:.3f}", "correlation 0.6", lids is not None and lids >= 0.6),
    _goal("head covered, worst view", None if cover is None else 100 * cover, "{:.1f} %", "95 %", cover is not None and cover >= 0.95),
    _goal(
      "largest hole, worst view", None if hole is None else 100 * hole, "{:.2f} %", "at most 0.5 %", hole is not None and hole <= 0.005
    ),
  ]


def weaknesses(metrics: Mapping[str, Any]) -> list[str]:
  """What a reader should hold against this avatar, from its own figures and from how it was made.

  Args:
    metrics: what `metrics.json` holds.
  """
  lines = [f"Missed: {goal.name} is {goal.shown}, wanted {goal.wanted}." for goal in goals(metrics) if goal.reached is False]
  lines += [f"Not measured: {goal.name}." for goal in goals(metrics) if goal.reached is None]
  return lines + _against_photographs(metrics) + _by_region(metrics) + _how_made(metrics.get("facts", {}))


def _against_photographs(metrics: Mapping[str, Any]) -> list[str]:
  lines, beaten = [], []
  for split, where in (("heldout_tail", "on poses never seen"), ("heldout_blocks", "on the held-out blocks")):
    avatar = _get(metrics, split, "avatar", "psnr")
    for name, words in (("nearest_frame", "the nearest training photograph"), ("aligned_frame", "one moved onto the landmarks")):
      other = _get(metrics, split, name, "psnr")
      if avatar is not None and other is not None and other - avatar >= _TIE:
        beaten.append(f"{words} by {other - avatar:.1f} dB {where}")
    shifted = _get(metrics, split, "truth_shifted_1px", "psnr")
    if avatar is not None and shifted is not None and avatar < shifted:
      lines.append(f"Its error {where} is larger than that of the truth moved by one pixel ({avatar:.1f} against {shifted:.1f} dB).")
  if beaten:
    lines.insert(0, f"Photographs still score higher than the avatar: {'; '.join(beaten)}. Yet a photograph cannot turn its head or speak.")
  return lines


def _by_region(metrics: Mapping[str, Any]) -> list[str]:
  lines = []
  for part in ("mouth", "eyes"):
    inside, part_value = _get(metrics, "heldout_tail", "avatar", "psnr"), _get(metrics, "heldout_tail", "avatar", part, "psnr")
    if inside is not None and part_value is not None and part_value < inside - 2:
      lines.append(
        f"The {part} {'is' if part == 'mouth' else 'are'} {inside - part_value:.1f} dB worse than the head as a whole (poses never seen)."
      )
  lost = _get(metrics, "expression_follow", "avatar_without_face")
  if lost:
    lines.append(f"In {lost} renders the landmark model saw no face at all.")
  return lines


def _how_made(facts: Mapping[str, Any]) -> list[str]:
  lines = []
  yaw, pitch = facts.get("train_yaw_degrees"), facts.get("train_pitch_degrees")
  if yaw and pitch:
    lines.append(
      f"In training the camera saw the head from yaw {yaw[0]:.0f} to {yaw[1]:.0f} and pitch {pitch[0]:.0f} to {pitch[1]:.0f} degrees "
      "(of the head model's own axes): whatever shows from further round is a guess."
    )
  if facts.get("trained_lpips"):
    lines.append(
      f"It was trained with LPIPS ({facts['trained_lpips']}) and is scored with it too, which flatters; the other LPIPS net is the "
      "independent one."
    )
  if facts.get("clip_size"):
    lines.append(f"The video is {facts['clip_size']} px: no detail that the video does not hold.")
  lines.append(
    "Held-out frames drive it by parameters tracked in those very frames, so tracking errors count only as far as they misplace the head."
  )
  lines.append("It is a head and a neck: no shoulders, no clothes, no moving light.")
  return lines
