"""The demo's order, its memory of what is done, and its refusals; the stages themselves are stood in for."""

import json
from pathlib import Path

import numpy as np
import pytest

from silky_jax.apps import demo
from silky_jax.config import UserError
from silky_jax.data.video import probe_video, write_video


@pytest.fixture
def clip(tmp_path):
  return write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8), 25)


@pytest.fixture
def calls(monkeypatch):
  """Stages that only leave their files behind, and the list of those that ran."""
  ran = []

  def preprocess(video, output, *, resolution, config):
    done = (output / "dataset.json").exists()
    output.mkdir(parents=True, exist_ok=True)
    if not done:
      ran.append("preprocess")
      (output / "dataset.json").write_text(json.dumps({"resolution": resolution}))
      (output / "frames.npz").write_bytes(Path(video).read_bytes())
    return {"landmarks": 0.0 if done else 1.0}

  def train(config, sequence, rig, workdir, say):
    ran.append("train")
    (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text("{}")

  def evaluate(player, sequence, root, *, config, say):
    ran.append("eval")
    (root / "evaluation").mkdir(exist_ok=True)
    for name in ("evaluation/heldout.npz", "evaluation/curves.json"):
      (root / name).write_text("{}")
    (root / "metrics.json").write_text(json.dumps({"heldout_tail": {}, "seconds": {"eval": 1.0}, "peak_memory_bytes": 7}))

  def write_pictures(player, sequence, root, say):
    ran.append("render")
    for name in demo.show.OUTPUTS:
      (root / name).write_bytes(b"picture")

  class Sequence:
    rig_name = rig_hash = ""

  monkeypatch.setattr(demo, "preprocess", preprocess)
  monkeypatch.setattr(demo, "train", train)
  monkeypatch.setattr(demo, "find_rig", lambda *_: None)
  monkeypatch.setattr(demo, "open_avatar", lambda _: None)
  monkeypatch.setattr(demo.native, "read", lambda _: Sequence())
  monkeypatch.setattr(demo.score, "evaluate", evaluate)
  monkeypatch.setattr(demo.show, "write_pictures", write_pictures)
  return ran


def test_all_stages_run_in_order_and_only_once(clip, calls, tmp_path):
  said = []
  path = demo.run_demo(clip, tmp_path / "out", say=said.append)
  assert calls == ["preprocess", "train", "eval", "render"] and path.is_file()
  metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
  assert set(metrics["seconds"]) == {"preprocess", "train", "eval", "render", "total"}
  assert metrics["seconds"]["total"] == pytest.approx(sum(v for k, v in metrics["seconds"].items() if k != "total"))
  assert metrics["peak_memory_bytes"] > 2**20
  for name in ("report.html", "heldout.mp4", "avatar.ply", "metrics.json"):
    assert any(line == f"wrote {tmp_path / 'out' / name}" for line in said), name
  assert "--clip VIDEO.mp4" in said[-1]
  before = (tmp_path / "out" / "metrics.json").read_bytes(), path.stat().st_mtime_ns
  demo.run_demo(clip, tmp_path / "out", say=said.append)
  assert len(calls) == 4
  assert before == ((tmp_path / "out" / "metrics.json").read_bytes(), path.stat().st_mtime_ns)


def test_a_lost_result_is_made_again_and_nothing_before_it(clip, calls, tmp_path):
  path = demo.run_demo(clip, tmp_path / "out")
  path.unlink()
  (tmp_path / "out" / "evaluation" / "sweep.mp4").unlink()
  demo.run_demo(clip, tmp_path / "out")
  assert calls[4:] == ["render"] and path.is_file()
  (tmp_path / "out" / "metrics.json").unlink()
  demo.run_demo(clip, tmp_path / "out")
  assert calls[5:] == ["eval", "render"]  # and all that follows from it
  assert set(json.loads((tmp_path / "out" / "metrics.json").read_text())["seconds"]) == {"preprocess", "train", "eval", "render", "total"}


def test_an_interrupted_stage_goes_on_and_keeps_its_time(clip, calls, tmp_path, monkeypatch):
  finished = demo.train

  def broken(*args, **kwargs):
    calls.append("broken")
    raise KeyboardInterrupt

  monkeypatch.setattr(demo, "train", broken)
  with pytest.raises(KeyboardInterrupt):
    demo.run_demo(clip, tmp_path / "out")
  first = json.loads((tmp_path / "out" / "stages" / "seconds.json").read_text())["train"]
  monkeypatch.setattr(demo, "train", finished)
  demo.run_demo(clip, tmp_path / "out")
  assert calls == ["preprocess", "broken", "train", "eval", "render"]
  assert json.loads((tmp_path / "out" / "stages" / "seconds.json").read_text())["train"] > first > 0


def test_another_clip_or_other_settings_are_refused(clip, calls, tmp_path):
  demo.run_demo(clip, tmp_path / "out")
  other = write_video(tmp_path / "other.mp4", np.zeros((3, 32, 32, 3), np.uint8), 25)
  with pytest.raises(UserError, match=r"made from another clip: .*--output_dir"):
    demo.run_demo(other, tmp_path / "out")
  with pytest.raises(UserError, match="from other settings"):
    demo.run_demo(clip, tmp_path / "out", demo.DemoConfig(resolution=128))
  assert len(calls) == 4


def test_changed_data_never_meets_an_old_avatar(clip, calls, tmp_path):
  demo.run_demo(clip, tmp_path / "out")
  (tmp_path / "out" / "data" / "dataset.json").write_text("{}")
  with pytest.raises(UserError, match=r"data changed since .*train was trained"):
    demo.run_demo(clip, tmp_path / "out")


def test_bad_input_leaves_no_trace(calls, tmp_path):
  with pytest.raises(UserError, match="not found"):
    demo.run_demo(tmp_path / "none.mp4", tmp_path / "out")
  assert not (tmp_path / "out").exists() and not calls
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="wanted a folder that can be written"):
    demo.run_demo(demo.BUNDLED, tmp_path / "file")


def test_the_bundled_clip_is_the_one_of_the_notice():
  info = probe_video(demo.bundled_clip())
  assert (info.frames, info.width, info.height, info.fps) == (765, 400, 300, 25.0)
  notice = (Path(__file__).parents[2] / "NOTICE.md").read_text()
  assert "8d82721c7e799cbd0f0ee165c96b5674e15ff7e919ff290fda560cd42aec714e" in notice
  assert "MIT" in demo.bundled_clip().with_name("cap13.LICENSE.txt").read_text()
