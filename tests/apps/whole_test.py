"""From a trained run on disk to scores, pictures, driven video and report: everything after training, on the made-up person."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax import cli
from silky_jax.apps import export, player, report, score, show
from silky_jax.config import UserError
from silky_jax.data.video import probe_video
from silky_jax.evaluation import follow, reenact
from silky_jax.evaluation.protocol import EvalConfig
from silky_jax.gaussians import ply


def test_scores_pictures_and_report(trained, monkeypatch):
  root, sequence, avatar = trained
  distance = lambda a, b: jnp.mean(jnp.abs(a - b), axis=(1, 2, 3))
  monkeypatch.setattr(score, "lpips_networks", lambda: {"alex": distance, "vgg": distance})
  monkeypatch.setattr(score, "VIEW_SIZE", 96)
  monkeypatch.setattr(show, "_SWEEP_SIZE", 48)
  monkeypatch.setattr(score, "detect", lambda images: (np.full((478, 2), np.nan) for _ in images))
  said = []
  metrics = score.evaluate(avatar, sequence, root, config=EvalConfig(resolution=64), say=said.append)
  assert metrics == json.loads((root / "metrics.json").read_text())
  tail = metrics["heldout_tail"]["avatar"]
  assert tail["frames"] == 6 and tail["psnr"] > 5 and tail["lpips_vgg"] is not None
  assert metrics["heldout_blocks"]["avatar"]["psnr"] is None  # this person has no such split
  assert metrics["expression_follow"]["lips"] is None and metrics["expression_follow"]["of"] == 6
  assert metrics["views"]["coverage"] > 0.8 and len(metrics["views"]["views"]) == 6
  facts = metrics["facts"]
  assert facts["gaussians"] > 500 and facts["steps"] == 0 and facts["frames"]["scored"] == 6
  assert facts["train_yaw_degrees"][0] < 0 < facts["train_yaw_degrees"][1]
  assert any("heldout_tail avatar" in line for line in said)

  written = show.write_pictures(avatar, sequence, root, say=said.append)
  assert all(path.is_file() for path in written)
  info = probe_video(root / "heldout.mp4")
  assert (info.frames, info.height, info.codec) == (6, 64, "h264")
  assert probe_video(root / "evaluation" / "sweep.mp4").frames > 100
  assert len(ply.read(root / "avatar.ply").means) == facts["gaussians"]
  assert report.write_report(root).stat().st_size < 15e6


def test_a_driver_moves_the_avatar(trained, tmp_path):
  _, sequence, avatar = trained
  frames = sequence.frames(np.arange(4))
  path = reenact.write_driver(tmp_path / "a.npz", frames, rig_name=sequence.rig_name, rig_hash=sequence.rig_hash, fps=25)
  info = probe_video(show.render_driven(avatar, path, tmp_path / "a.mp4", resolution=48))
  assert (info.frames, info.width, info.height) == (4, 48, 48)
  bare = reenact.write_driver(
    tmp_path / "b.npz", frames.replace(camera=None), rig_name=sequence.rig_name, rig_hash=sequence.rig_hash, fps=25
  )
  assert probe_video(show.render_driven(avatar, bare, tmp_path / "b.mp4")).width == 64  # the training camera
  export.export_driven(avatar, bare, 2, tmp_path / "c.ply")
  with pytest.raises(UserError, match="--frame: wanted 0 to 3"):
    export.export_driven(avatar, bare, 4, tmp_path / "c.ply")
  foreign = reenact.write_driver(tmp_path / "f.npz", frames, rig_name="flame2023", rig_hash="1", fps=25)
  with pytest.raises(UserError, match=r"'flame2023' \(1\).*'open_head'"):
    show.render_driven(avatar, foreign, tmp_path / "f.mp4")
  with pytest.raises(UserError, match=r"ends in \.mp4"):
    show.render_driven(avatar, path, tmp_path / "a.avi")
  assert not (tmp_path / "f.mp4").exists()


def test_no_evaluation_no_pictures(trained, tmp_path):
  _, sequence, avatar = trained
  with pytest.raises(UserError, match=r"run `eval`"):
    show.write_pictures(avatar, sequence, tmp_path)


def test_no_run_no_avatar(tmp_path):
  with pytest.raises(UserError):
    player.open_avatar(tmp_path)


def test_follow_takes_the_numbering_of_the_tracker():
  from silky_jax.tracking import landmarks

  assert follow._LIPS == landmarks.LIPS and follow._FACE_SIDES == landmarks.FACE_SIDES
  assert set(follow._LIDS) == {landmarks.LEFT_LIDS, landmarks.RIGHT_LIDS}


def test_motion_as_a_folder_of_splats(trained, tmp_path, monkeypatch):
  _, sequence, avatar = trained
  frames = sequence.frames(np.arange(3))
  driver = reenact.write_driver(tmp_path / "a.npz", frames, rig_name=sequence.rig_name, rig_hash=sequence.rig_hash, fps=25)
  paths = export.export_sequence(avatar, driver, tmp_path / "out")
  assert [path.name for path in paths] == ["00000.ply", "00001.ply", "00002.ply"]
  first, last = (ply.read(path).means for path in (paths[0], paths[2]))
  assert np.abs(first - last).max() > 1e-4
  with pytest.raises(UserError, match="found something in it"):
    export.export_sequence(avatar, driver, tmp_path / "out")
  # Interrupted, it leaves nothing under the name, and nothing beside it.
  real, calls = export.export_ply, []

  def dies(*args, **options):
    calls.append(1)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return real(*args, **options)

  monkeypatch.setattr(export, "export_ply", dies)
  with pytest.raises(KeyboardInterrupt):
    export.export_sequence(avatar, driver, tmp_path / "again")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "out"]


def test_export_without_a_motion_shows_the_usual_face(trained, tmp_path, capsys):
  root, _, avatar = trained
  run = f"--checkpoint={root / 'train'}"
  assert cli.main(["run.py", "export", run, f"--output_path={tmp_path / 'a.ply'}"]) == 0
  assert len(ply.read(tmp_path / "a.ply").means) == avatar.facts()["gaussians"]
  assert cli.main(["run.py", "export", run, "--format=ply_sequence", f"--output_path={tmp_path / 'b'}"]) != 0
  assert "--flame_params" in capsys.readouterr().err
