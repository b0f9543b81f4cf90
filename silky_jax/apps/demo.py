"""The whole way with one command: video, tracking, training, scores, pictures, report. Run again, it goes on where it stopped.

OUT/report.html  heldout.mp4  avatar.ply  metrics.json
OUT/data/        the tracked dataset       OUT/train/      checkpoints, metrics.jsonl, samples
OUT/evaluation/  pictures and curves       OUT/stages/     which stage was done from what, and how long it took
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from silky_jax.apps import report, score, show
from silky_jax.apps.player import find_rig, open_avatar
from silky_jax.config import UserError
from silky_jax.data.formats import native
from silky_jax.data.video import probe_video
from silky_jax.evaluation.protocol import EvalConfig
from silky_jax.tracking.pipeline import PreprocessConfig, preprocess
from silky_jax.tracking.stages import Stages, file_fingerprint, fingerprint
from silky_jax.training.experiment import ExperimentConfig
from silky_jax.training.loop import train

__all__ = ["BUNDLED", "DemoConfig", "bundled_clip", "run_demo"]

BUNDLED = "bundled"


@dataclasses.dataclass(frozen=True)
class DemoConfig:
  """What the demo does; the clip and the folder are said beside it."""

  experiment: ExperimentConfig = dataclasses.field(default_factory=ExperimentConfig)
  preprocess: PreprocessConfig = dataclasses.field(default_factory=PreprocessConfig)
  evaluation: EvalConfig = dataclasses.field(default_factory=lambda: EvalConfig(vgg_every=3))
  resolution: int = 256  # px, of the head crop that is trained on and scored


def bundled_clip() -> Path:
  """The clip that comes with the package (NOTICE.md says from where).

  Raises:
    UserError: the package was installed without it.
  """
  path = Path(str(resources.files("silky_jax.apps").joinpath("data/cap13.mp4")))
  if not path.is_file():
    raise UserError(f"{path}: the bundled clip is missing from this installation; install again, or give your own video with --clip PATH")
  return path


def run_demo(clip: Path | str, output_dir: Path | str, config: DemoConfig | None = None, *, say: Callable[[str], None] = print) -> Path:
  """Make an avatar of a clip and report how good it is. Stages that were done from the same inputs are not done again.

  Args:
    clip: a video file, or "bundled".
    output_dir: made where missing.
    config: settings.
    say: prints a line.

  Returns:
    The path of `report.html`.

  Raises:
    UserError: no usable video, a folder that cannot be written or holds a demo of another clip or of other settings.
  """
  config = config or DemoConfig()
  video = bundled_clip() if str(clip) == BUNDLED else Path(clip)
  probe_video(video)  # fails with the file's name before anything is written
  run = _Demo(video, Path(output_dir), config, say)
  run.check()
  run.preprocess()
  run.train()
  run.score()
  run.show()
  run.report()
  run.farewell()
  return run.root / "report.html"


class _Demo:
  """One call: its folder, its stages, its clock."""

  def __init__(self, video: Path, root: Path, config: DemoConfig, say: Callable[[str], None]):
    self.video, self.root, self.config, self.say = video, root, config, say
    self.stages = Stages(root)  # fails where the folder cannot be written
    self.data, self.work = root / "data", root / "train"
    self.mark = ""  # of the stage before
    self.fresh = False  # whether a stage ran in this call: then all after it run too

  def check(self) -> None:
    """Refuse a folder that holds another demo: its results would be mixed with these."""
    path = self.stages.folder / "demo.json"
    mine = {"another clip": file_fingerprint(self.video), "other settings": fingerprint({"config": repr(self.config)})}
    theirs = _read(path)
    differing = [key for key in mine if theirs and theirs.get(key) != mine[key]]
    if differing:
      raise UserError(
        f"{self.root} holds a demo made from {' and '.join(differing)}: wanted an empty folder or the same run. "
        f"Choose another --output_dir, or delete {self.root}."
      )
    native.write_json(path, mine)

  def preprocess(self) -> None:
    spent: dict[str, float] = {}
    with self._stage("preprocess", lambda: bool(sum(spent.values()))):
      self.say(f"1/5 tracking {self.video.name}")
      spent |= preprocess(self.video, self.data, resolution=self.config.resolution, config=self.config.preprocess)
    self.fresh = bool(sum(spent.values()))
    self.mark = fingerprint({name: file_fingerprint(self.data / name) for name in ("dataset.json", "frames.npz")})

  def train(self) -> None:
    made_from = self.work / "made_from.json"
    known = _read(made_from).get("data")
    if known not in (None, self.mark):
      raise UserError(
        f"{self.data} changed since {self.work} was trained from it: delete {self.work} to train again, or choose another --output_dir"
      )

    def work() -> None:
      sequence = native.read(self.data)
      self.work.mkdir(parents=True, exist_ok=True)
      native.write_json(made_from, {"data": self.mark})
      train(self.config.experiment, sequence, find_rig(sequence.rig_name, sequence.rig_hash), self.work, say=self.say)

    self._once("train", "2/5 training", {"config": repr(self.config.experiment)}, ("train/config.json", "train/checkpoints"), work)

  def score(self) -> None:
    def work() -> None:
      score.evaluate(open_avatar(self.work), native.read(self.data), self.root, config=self.config.evaluation, say=self.say)

    outputs = ("metrics.json", "evaluation/heldout.npz", "evaluation/curves.json")
    self._once("eval", "3/5 scoring held-out frames", {"config": repr(self.config.evaluation)}, outputs, work)

  def show(self) -> None:
    def work() -> None:
      show.write_pictures(open_avatar(self.work), native.read(self.data), self.root, say=self.say)

    self._once("render", "4/5 rendering", {}, show.OUTPUTS, work)

  def report(self) -> None:
    def work() -> None:
      metrics = json.loads((self.root / "metrics.json").read_text())
      seconds = {name: spent for name, spent in _read(self.stages.folder / "seconds.json").items() if name != "report"}
      peak = max(score.peak_memory_bytes(), metrics.get("peak_memory_bytes") or 0)
      score.write_metrics(self.root, metrics | {"seconds": seconds | {"total": sum(seconds.values())}, "peak_memory_bytes": peak})
      report.write_report(self.root)

    self._once("report", "5/5 writing the report", {}, ("report.html",), work)

  def farewell(self) -> None:
    """What was written, and what to do next."""
    for name in ("report.html", "heldout.mp4", "avatar.ply", "metrics.json", "train/checkpoints"):
      self.say(f"wrote {self.root / name}")
    self.say(f"open {self.root / 'report.html'} in a browser. Your own video: python run.py demo --clip VIDEO.mp4 --output_dir runs/mine")

  def _once(self, name: str, words: str, inputs: dict[str, Any], outputs: tuple[str, ...], work: Callable[[], None]) -> None:
    """Run a stage unless it was done from the same inputs, what it wrote is still there, and nothing before it ran now."""
    ran = False

    def timed(_: Path) -> None:
      nonlocal ran
      ran = True
      self.say(words)
      work()

    if self.fresh or not all((self.root / output).exists() for output in outputs):
      (self.stages.folder / f"{name}.json").unlink(missing_ok=True)
    with self._stage(name, lambda: ran):
      self.mark = self.stages.run(name, {"before": self.mark, **inputs}, timed)
    self.fresh |= ran
    if not ran:
      self.say(f"{words}: done already")

  @contextmanager
  def _stage(self, name: str, ran: Callable[[], bool]) -> Iterator[None]:
    """Add the time of a stage to `stages/seconds.json`, also of one that is interrupted; of one with nothing to do, not."""
    begun, finished = time.perf_counter(), False
    try:
      yield
      finished = True
    finally:
      if ran() or not finished:
        path = self.stages.folder / "seconds.json"
        seconds = _read(path)
        native.write_json(path, seconds | {name: seconds.get(name, 0.0) + time.perf_counter() - begun})


def _read(path: Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
