"""The command line: help, mistakes, and where configs are found."""

import subprocess
import sys
from pathlib import Path

import pytest

from silky_jax import cli, commands
from silky_jax.config import UserError

ROOT = Path(cli.__file__).resolve().parents[1]


def _main(capsys, *words):
  code = cli.main(["run.py", *words])
  captured = capsys.readouterr()
  return code, captured.out, captured.err


def test_overview_lists_every_command(capsys):
  code, out, _ = _main(capsys, "--help")
  assert code == 0
  for name, command in commands.COMMANDS.items():
    assert name in out and command.summary in out
  assert _main(capsys)[0] == 2


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_help_of_every_command(capsys, name):
  code, out, _ = _main(capsys, *name.split(), "--help")
  assert code == 0
  assert "--" in out and commands.COMMANDS[name].summary in out


@pytest.mark.parametrize(
  ("words", "expected"),
  [
    (["trian"], ["no command 'trian'", "did you mean 'train'"]),
    (["train", "--data_dri=x", "--output_dir=y"], ["data_dri", "Did you mean", "data_dir"]),
    (["train", "--output_dir=y"], ["data_dir", "must have a value"]),
    (["train", "extra", "--data_dir=x", "--output_dir=y"], ["unexpected word 'extra'"]),
    (["train", "--config=configs/silkie.py", "--data_dir=x", "--output_dir=y"], ["configs/silkie.py", "silky.py", "smoke.py"]),
    (["train", "--config=configs/silky.py:mpl", "--data_dir=x", "--output_dir=y"], ["no variant 'mpl'", "did you mean 'mlp'"]),
    (["train", "--config.model.widht=3", "--data_dir=x", "--output_dir=y"], ["widht", "Did you mean", "width"]),
    (
      ["train", "--ot_weight=2", "--config.losses.regularizers.transport.weight=0.5", "--data_dir=x", "--output_dir=y"],
      ["--ot_weight=2.0", "transport.weight=0.5", "give one of them"],
    ),
    (["train", "--physics_weight=1", "--config=configs/smoke.py", "--data_dir=x", "--output_dir=y"], ["--physics_weight", "has no losses"]),
    (["train", "--landmark_groups=lips", "--data_dir=x", "--output_dir=y"], ["landmark_groups", "flame|face-parsing"]),
    (["train", "--physics_weight=-1", "--data_dir=x", "--output_dir=y"], ["physics_weight", "0"]),
    (["train", "--config.steps=many", "--data_dir=x", "--output_dir=y"], ["steps", "many"]),
    (["train", "--data_dir=/nowhere", "--output_dir=y"], ["/nowhere", "dataset.json"]),
  ],
)
def test_mistakes_end_with_one_message_and_code_2(capsys, words, expected):
  code, out, err = _main(capsys, *words, *(["--compile_cache="] if words[0] == "train" else []))
  assert code == 2
  assert err.startswith("error: ") and "Traceback" not in err + out
  for word in expected:
    assert word in err


def test_short_flags_set_their_keys():
  def parsed(*words):
    values = cli._parse("train", ["--data_dir=x", "--output_dir=y", *words])
    return commands._with_short_flags(values)

  usual = parsed()
  assert (usual.losses.regularizers.physics.weight, usual.losses.regularizers.transport.weight) == (0.1, 1.0)
  given = parsed("--physics_weight=0", "--ot_weight=0.25", "--landmark_groups=face-parsing")
  assert (given.losses.regularizers.physics.weight, given.losses.regularizers.transport.weight) == (0.0, 0.25)
  assert given.model.transport.landmark_groups == "face-parsing"
  same = parsed("--ot_weight=0.5", "--config.losses.regularizers.transport.weight=0.5")
  assert same.losses.regularizers.transport.weight == 0.5


def test_configs_are_found_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cli.load_config("configs/silky.py:coarse").model.residual == "none"
  (tmp_path / "mine.py").write_text("from configs import default\n\n\ndef get_config():\n  return default.get_config()\n")
  assert cli.load_config("mine.py").family == "silky"
  with pytest.raises(UserError, match=r"no file 'other\.py'"):
    cli.load_config("other.py")


def test_runs_as_a_script_without_importing_jax(tmp_path):
  done = subprocess.run([sys.executable, str(ROOT / "run.py"), "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
  assert done.returncode == 0 and "train" in done.stdout
  code = "import sys; from silky_jax import cli; cli.main(['run.py', '--help']); print('jax' in sys.modules)"
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
  assert out.strip().endswith("False")


def test_user_errors_have_no_traceback(capsys, monkeypatch):
  def fail(values):
    raise UserError("the file x is missing")

  monkeypatch.setitem(commands.COMMANDS, "train", commands.COMMANDS["train"]._replace(run=fail))
  code, _, err = _main(capsys, "train", "--data_dir=a", "--output_dir=b", "--compile_cache=")
  assert code == 2 and err == "error: the file x is missing\n"


@pytest.mark.parametrize(("words", "calm"), [([], None), (["--calm=live"], "live"), (["--calm=whole"], "whole")])
def test_render_is_told_what_was_asked_for(monkeypatch, words, calm):
  from silky_jax.apps import player, show

  told = {}
  monkeypatch.setattr(player, "open_avatar", lambda checkpoint: checkpoint)
  monkeypatch.setattr(show, "render_driven", lambda *places, **settings: told.update(places=places, **settings))
  assert cli.main(["run.py", "render", "--checkpoint=c", "--flame_params=f", "--output_path=o.mp4", "--resolution=64", *words]) == 0
  assert told == {"places": ("c", "f", "o.mp4"), "resolution": 64, "calm": calm}
