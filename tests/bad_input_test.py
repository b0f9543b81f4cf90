"""What people feed it by mistake, through the command line: an exit code, the phrase that helps, and every earlier file byte for byte.

A case per line of the tables; each starts from its own copy of a small dataset and a small run.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from silky_jax import cli
from silky_jax.apps.demo import bundled_clip
from silky_jax.cli import load_config
from silky_jax.data.formats import native
from silky_jax.data.images import write_image
from silky_jax.data.video import VideoWriter, iter_frames
from silky_jax.flame import open_head
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.models.silky import SilkyConfig
from silky_jax.studio import dataset, scene
from silky_jax.training.checkpoint import Store, write_config
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.step import create_state

SMALL = ["--config=configs/smoke.py", "--config.steps=1"]


def _bytes_of(root: Path) -> dict[str, bytes]:
  return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A dataset of 24 studio frames, and a run of no steps."""
  root = tmp_path_factory.mktemp("made")
  config = dataset.StudioConfig(seed=1, scene=scene.SceneConfig(frames=24, resolution=48), texture_size=64, supersampling=1)
  dataset.film(root / "data", config)
  rig = open_head.load()[0]
  experiment = ExperimentConfig(model=SilkyConfig(uv_size=24, residual="none"))
  (root / "run").mkdir()
  write_config(root / "run", experiment)
  built = build(experiment)
  sequence = native.read(root / "data")
  state = create_state(built.avatar.init(jax.random.key(0), rig, sequence.subject), built.optimizer, seed=0)
  store = Store(root / "run")
  camera = jax.tree.map(lambda a: a[0], sequence.frames(np.arange(1)).camera)
  store.save(state, family="silky", rig_name=rig.name, rig_hash=rig_hash(rig), capacity=24576, camera=camera, fps=25.0)
  store.close()
  return root


@pytest.fixture
def own(made, tmp_path):
  """A copy to spoil."""
  for name in ("data", "run"):
    shutil.copytree(made / name, tmp_path / name)
  return tmp_path


def _refused(capsys, words: list[str], phrase: str, root: Path) -> None:
  before = _bytes_of(root)
  code = cli.main(["run.py", *words])
  said = capsys.readouterr()
  assert code == 2, said.err
  assert phrase in said.err and "Traceback" not in said.err, said.err
  assert _bytes_of(root) == before


def _edit_header(root: Path, **changes) -> None:
  path = root / "data" / "dataset.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _edit_array(root: Path, key: str, value) -> None:
  path = root / "data" / "frames.npz"
  with np.load(path) as file:
    arrays = {name: file[name] for name in file.files}
  arrays[key] = value(arrays[key])
  np.savez(path, **arrays)


def _splits(root: Path, **changes) -> None:
  _edit_header(root, splits={**json.loads((root / "data" / "dataset.json").read_text())["splits"], **changes})


def _poison(pose: np.ndarray) -> np.ndarray:
  pose = pose.copy()
  pose[3] = np.nan
  return pose


def _shrink(root: Path) -> None:
  for path in (root / "data" / "images").iterdir():
    write_image(path, np.zeros((32, 32, 3), np.uint8))


DATA = {
  "no images": (lambda root: shutil.rmtree(root / "data" / "images"), "00000.png: wanted 24 pictures in images/, 24 are missing"),
  "one image missing": (
    lambda root: (root / "data" / "images" / "00007.png").unlink(),
    "00007.png: wanted 24 pictures in images/, 1 are missing",
  ),
  "an image of another size": (_shrink, "wanted pictures of (48, 48)"),
  "a NaN": (lambda root: _edit_array(root, "pose", _poison), "pose: wanted finite"),
  "another rig": (lambda root: _edit_header(root, rig="flame2020"), "made on the rig 'flame2020'"),
  "no header": (lambda root: (root / "data" / "dataset.json").unlink(), "found no dataset.json there"),
  "no training frames": (lambda root: _splits(root, train=[]), "train"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_folders(own, capsys, name):
  spoil, phrase = DATA[name]
  spoil(own)
  _refused(capsys, ["train", *SMALL, f"--data_dir={own / 'data'}", f"--output_dir={own / 'new'}"], phrase, own)
  assert not (own / "new" / "checkpoints").exists()


def _other_rig(root: Path) -> None:
  for path in (root / "run" / "checkpoints").glob("*/meta/metadata"):
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "rig_name": "flame2020", "rig_hash": "0123456789ab"}))


def _tear(root: Path) -> None:
  for path in (root / "run" / "checkpoints").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


RUNS = {
  "missing": (lambda root: shutil.rmtree(root / "run"), "found no config.json there"),
  "half-written": (_tear, "no readable checkpoint"),
  "of another rig": (_other_rig, "made on the rig 'flame2020' (0123456789ab), but this version carries 'open_head'"),
  "of no family": (
    lambda root: (root / "run" / "config.json").write_text((root / "run" / "config.json").read_text().replace('"silky"', '"sulky"')),
    "sulky",
  ),
}


@pytest.mark.parametrize("name", RUNS)
def test_checkpoints(own, capsys, name):
  spoil, phrase = RUNS[name]
  spoil(own)
  _refused(capsys, ["edit", f"--checkpoint={own / 'run'}", f"--output_path={own / 'x.png'}"], phrase, own)


WORDS = {
  "unknown flag": (["--dta_dir=x"], "dta_dir"),
  "unknown config key": (["--config.model.widht=3"], "widht"),
  "no steps": (["--config.steps=0"], "steps: expected at least 1, got 0"),
  "unknown config": (["--config=configs/silk.py"], "no file 'configs/silk.py'"),
}


@pytest.mark.parametrize("name", WORDS)
def test_flags(own, capsys, name):
  words, phrase = WORDS[name]
  base = [] if any(word.startswith("--config=") for word in words) else SMALL
  _refused(capsys, ["train", *base, f"--data_dir={own / 'data'}", f"--output_dir={own / 'new'}", *words], phrase, own)


def test_a_run_with_another_config_is_not_gone_on_with(own, capsys):
  words = ["train", *SMALL, f"--data_dir={own / 'data'}", f"--output_dir={own / 'run'}"]
  _refused(capsys, words, "holds a run with another config; give another --output_dir, or the old values:\n  ", own)


def test_a_run_on_another_rig_is_not_gone_on_with(own, capsys):
  _other_rig(own)
  config = load_config("configs/smoke.py")
  write_config(own / "run", ExperimentConfig.from_dict(config.to_dict()))
  words = ["train", "--config=configs/smoke.py", f"--data_dir={own / 'data'}", f"--output_dir={own / 'run'}"]
  _refused(capsys, words, "checkpoint 0 was trained on the rig 'flame2020' (0123456789ab), but this data is tracked with 'open_head'", own)


OUTPUTS = {
  "edit": ["--resolution=64", "--output_path=file/x.png"],
  "export": ["--output_path=file/x.ply"],
  "export sequence": ["--format=ply_sequence", "--flame_params=data", "--output_path=file/x"],
  "render": ["--flame_params=data", "--output_path=file/x.mp4"],
  "eval": ["--data_dir=data", "--output_dir=file/x"],
  "render to a picture": ["--flame_params=data", "--output_path=x.png"],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_places_that_cannot_be_written(own, capsys, monkeypatch, name):
  (own / "file").write_text("mine")
  monkeypatch.chdir(own)
  phrase = "wanted a name that ends in .mp4" if "picture" in name else "wanted a folder" if name == "eval" else "cannot be written"
  _refused(capsys, [name.split()[0], "--checkpoint=run", *OUTPUTS[name]], phrase, own)


def test_an_output_folder_that_is_a_file(own, capsys):
  (own / "new").write_text("mine")
  _refused(
    capsys, ["train", *SMALL, f"--data_dir={own / 'data'}", f"--output_dir={own / 'new'}"], "wanted a folder that can be written", own
  )
  _refused(capsys, ["studio", f"--output_dir={own / 'new'}"], "wanted a folder that can be written", own)


def _video(path: Path, frames: int, size=(64, 48)) -> Path:
  with VideoWriter(path, 25) as writer:
    for k in range(frames):
      writer.add(np.full((size[1], size[0], 3), 90 + k % 20, np.uint8))
  return path


def _truncated(path: Path) -> Path:
  whole = _video(path, 60).read_bytes()
  path.write_bytes(whole[: len(whole) // 3])
  return path


def _two_faces(path: Path) -> Path:
  with VideoWriter(path, 25) as writer:
    for k, (_, image) in enumerate(iter_frames(bundled_clip())):
      if k >= 40:
        break
      half = image[:, 70:330]
      writer.add(np.hstack([half, half[:, ::-1]]))
  return path


def _text(path: Path) -> Path:
  path.write_text("hello")
  return path


VIDEOS = {
  "missing": (lambda root: root / "none.mp4", "none.mp4"),
  "empty": (lambda root: (root / "v.mp4").write_bytes(b"") or root / "v.mp4", "v.mp4"),
  "unreadable": (lambda root: _text(root / "v.mp4"), "v.mp4"),
  "truncated": (lambda root: _truncated(root / "v.mp4"), "v.mp4"),
  "one frame": (lambda root: _video(root / "v.mp4", 1), "1 frame"),
  "without a face": (lambda root: _video(root / "v.mp4", 40), "no face was found in any of 40 frames"),
  "two faces": (lambda root: _two_faces(root / "v.mp4"), "two faces or more of like size"),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(tmp_path, capsys, name):
  make, phrase = VIDEOS[name]
  video = make(tmp_path)
  before = _bytes_of(tmp_path)
  code = cli.main(["run.py", "preprocess", f"--video_path={video}", f"--output_dir={tmp_path / 'out'}", "--resolution=64"])
  said = capsys.readouterr()
  assert code == 2 and phrase in said.err and "Traceback" not in said.err, said.err
  after = _bytes_of(tmp_path)
  assert {key: after[key] for key in before} == before
  assert not (tmp_path / "out" / "dataset.json").exists()
