"""Stages are done once, go on where they stopped, and are redone when their inputs change."""

import pytest

from silky_jax.config import UserError
from silky_jax.tracking.stages import Stages


def test_a_finished_stage_is_not_done_again(tmp_path):
  calls = []
  for _ in range(2):
    Stages(tmp_path).run("a", {"x": 1}, lambda scratch: calls.append(scratch))
  assert len(calls) == 1


def test_other_inputs_start_from_an_empty_scratch_folder(tmp_path):
  stages = Stages(tmp_path)
  stages.run("a", {"x": 1}, lambda scratch: (scratch / "old").touch())
  stages.run("a", {"x": 2}, lambda scratch: (scratch / "new").touch())
  assert sorted(f.name for f in (stages.folder / "a").iterdir()) == ["new"]


def test_an_interrupted_stage_finds_what_it_left(tmp_path):
  stages = Stages(tmp_path)

  def broken(scratch):
    (scratch / "half").touch()
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    stages.run("a", {"x": 1}, broken)
  assert not stages.done("a")
  seen = []
  Stages(tmp_path).run("a", {"x": 1}, lambda scratch: seen.extend(f.name for f in scratch.iterdir()))
  assert seen == ["half"]
  assert stages.done("a")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(UserError, match="file.*--output_dir"):
    Stages(tmp_path / "file" / "below")
