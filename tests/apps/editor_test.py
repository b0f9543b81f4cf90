"""The editor: every handle moves what it names, in the direction it says."""

import numpy as np
import pytest

from silky_jax import cli
from silky_jax.apps.editor import EXPRESSIONS, AvatarEditor
from silky_jax.config import UserError
from silky_jax.data.images import read_image


@pytest.fixture(scope="module")
def editor(trained):
  return AvatarEditor(trained[2])


def _vertices(editor, expression="neutral", jaw=None, intensity=1.0, gaze=(0, 0), eyelids=None, head=(0, 0, 0)):
  frame = editor.frame(expression, jaw, intensity, gaze, eyelids, head, (0, 0), 64)
  return np.asarray(editor.player.vertices(frame)[0])


def _region(editor, *names):
  return np.isin(np.asarray(editor.player.rig.region_names)[np.asarray(editor.player.rig.regions)], names)


def test_the_promised_names_are_there():
  promised = {"neutral", "happy", "sad", "surprise", "angry", "disgust", "fear", "blink", "wink", "pucker"}
  assert promised <= set(EXPRESSIONS)


def test_every_expression_moves_the_face_and_no_two_are_alike(editor):
  still = _vertices(editor)
  moved = {name: _vertices(editor, name) - still for name in EXPRESSIONS}
  for name, change in moved.items():
    assert (np.abs(change).max() > 2e-3) == (name != "neutral"), name
  flat = {name: change.ravel() / np.linalg.norm(change) for name, change in moved.items() if name != "neutral"}
  names = list(flat)
  assert all(abs(flat[a] @ flat[b]) < 0.97 for i, a in enumerate(names) for b in names[i + 1 :])


def test_handles_go_where_they_say(editor):
  still = _vertices(editor)
  chin = _region(editor, "lower_lip")
  opened = (_vertices(editor, jaw=1.0) - still)[chin, 1].mean()
  assert opened < -0.008  # down, metres
  assert opened < (_vertices(editor, jaw=0.5) - still)[chin, 1].mean() < 0
  assert np.abs(_vertices(editor, "surprise", jaw=0.0) - _vertices(editor, "surprise"))[chin].max() > 0.004
  lids = (_vertices(editor, eyelids=1.0) - still)[_region(editor, "left_eye_region"), 1]
  assert lids.min() < -0.004
  winked = _vertices(editor, "wink") - still
  assert np.abs(winked[_region(editor, "left_eye_region")]).max() > 2 * np.abs(winked[_region(editor, "right_eye_region")]).max()
  half = _vertices(editor, "happy", intensity=0.5) - still
  # Nearly: this person's usual face has coefficients below zero, which are raised to it.
  np.testing.assert_allclose(half, 0.5 * (_vertices(editor, "happy") - still), atol=1e-3)


def test_gaze_and_head_turn_towards_the_persons_left_and_up(editor):
  still = _vertices(editor)
  eye = _region(editor, "left_eyeball")
  front = eye & (still[:, 2] > np.quantile(still[eye, 2], 0.9))
  looked = _vertices(editor, gaze=(20, 0)) - still
  assert looked[front, 0].mean() > 1e-3  # +x is the person's left
  assert (_vertices(editor, gaze=(0, 15)) - still)[front, 1].mean() > 1e-3
  nose = _region(editor, "nose")
  assert (_vertices(editor, head=(0, 30, 0)) - still)[nose, 0].mean() > 0.02
  assert (_vertices(editor, head=(20, 0, 0)) - still)[nose, 1].mean() < -0.01  # down


def test_returns_and_writes_the_same_picture(editor, tmp_path):
  image = editor.interactive_edit(expression="surprise", jaw_openness=0.7, resolution=64, output_path=tmp_path / "new" / "a.png")
  assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.std() > 5
  np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), image)
  turned = editor.interactive_edit(expression="surprise", jaw_openness=0.7, resolution=64, camera=(40, 0))
  assert np.abs(turned.astype(int) - image).mean() > 1
  sheet = read_image(editor.contact_sheet(tmp_path / "sheet.png", resolution=48))
  assert sheet.shape[0] > 96 and sheet.shape[1] > 5 * 48


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"expression": "suprise"}, "did you mean 'surprise'"),
    ({"jaw_openness": 1.5}, "jaw_openness: wanted 0 to 1, found 1.5"),
    ({"eyelids": -0.1}, "eyelids: wanted 0 to 1"),
    ({"gaze": (90, 0)}, "gaze: wanted 2 angles of at most 35"),
    ({"head_pose": (0, 0)}, "head_pose: wanted 3 angles"),
    ({"resolution": 8}, "resolution: wanted 32 to 2048"),
    ({"output_path": "face.tiff"}, "ends in .png or .jpg"),
  ],
)
def test_refusals(editor, settings, message):
  with pytest.raises(UserError, match=message):
    editor.interactive_edit(**{"resolution": 32, **settings})


def test_the_command(trained, tmp_path, capsys):
  run = str(trained[0] / "train")
  out = tmp_path / "x.png"
  words = ["run.py", "edit", f"--checkpoint={run}", f"--output_path={out}"]
  assert cli.main([*words, "--expression=happy", "--gaze=10,0", "--resolution=48"]) == 0
  assert read_image(out).shape == (48, 48, 3)
  assert cli.main([*words, "--gaze=ten,0"]) != 0
  assert "--gaze: wanted numbers" in capsys.readouterr().err
