"""The protocol on a made-up clip: its structure, its circumstances, and that it scores what it says."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.evaluation import protocol, scores

BACKGROUND = np.array([0.0, 1.0, 0.0], np.float32)
CONFIG = protocol.EvalConfig(resolution=48, batch=4, vgg_every=2)
LPIPS = {net: lambda a, b: jnp.mean(jnp.abs(a - b), axis=(1, 2, 3)) for net in ("alex", "vgg")}


def _perfect(sequence):
  """An avatar that shows the truth itself, looked up by frame number, and fails on anything but tracked parameters."""

  def render(frames):
    assert frames.image is None and frames.mask is None and frames.parts is None and frames.landmarks is None
    known = sequence.frames(frames.index)
    return scores.composite(jnp.asarray(known.image), jnp.asarray(known.mask), jnp.asarray(BACKGROUND)), jnp.asarray(known.mask)

  return render


@pytest.fixture
def evaluation(make_sequence):
  sequence = make_sequence()
  return sequence, protocol.evaluate(_perfect(sequence), sequence, BACKGROUND, lpips=LPIPS, config=CONFIG)


def test_structure_is_that_of_metrics_json(evaluation):
  _, result = evaluation
  assert set(result.metrics) == {"heldout_blocks", "heldout_tail"}
  for split, by_name in result.metrics.items():
    assert set(by_name) == {"avatar", "nearest_frame", "aligned_frame", "truth_shifted_1px", "truth_shifted_2px", "truth_blurred"}
    for name, row in by_name.items():
      assert all(isinstance(row[key], float) for key in ("psnr", "ssim", "lpips_alex")), (split, name)
      assert (row["lpips_vgg"] is None) == name.startswith("truth")
      assert set(row["whole"]) == {"psnr", "ssim", "lpips_alex"} and set(row["mouth"]) == set(row["eyes"]) == {"psnr", "ssim"}
      assert set(row["temporal"]) == {"psnr", "lpips_alex"} and set(row["on_white"]) == {"psnr"}
      wanted = {"split", "crop", "mask", "resolution", "background", "lpips_net", "lpips_version", "data_range", "tracked_parameters"}
      assert wanted <= set(row["meta"])
      assert (row["meta"]["split"], row["meta"]["resolution"], row["meta"]["background"]) == (split, "48x48", [0.0, 1.0, 0.0])
  json.dumps(result.metrics, allow_nan=False)
  assert result.metrics["heldout_blocks"]["avatar"]["frames"] == 5
  assert result.metrics["heldout_blocks"]["avatar"]["meta"]["lpips_vgg_frames"] == 3


def test_a_perfect_avatar_wins_and_the_calibration_is_ordered(evaluation):
  _, result = evaluation
  for rows in result.metrics.values():
    assert rows["avatar"]["psnr"] > 60 and rows["avatar"]["whole"]["psnr"] > 60  # 8 bits are the only error
    assert rows["avatar"]["on_white"]["psnr"] > 55
    assert rows["avatar"]["ssim"] > 0.999 and rows["avatar"]["lpips_alex"] < 1e-3
    assert rows["avatar"]["psnr"] > rows["aligned_frame"]["psnr"]
    assert rows["avatar"]["psnr"] > rows["truth_shifted_1px"]["psnr"] > rows["truth_shifted_2px"]["psnr"]
    assert rows["avatar"]["temporal"]["psnr"] > rows["nearest_frame"]["temporal"]["psnr"]


def test_means_are_those_of_single_frames(evaluation):
  sequence, result = evaluation
  frames = sequence.frames(sequence.splits["heldout_tail"])
  mask = jnp.asarray(np.round(frames.mask * 255) / 255, jnp.float32)
  photo, behind = jnp.asarray(frames.image), jnp.asarray(BACKGROUND)
  moved = jnp.concatenate([photo[:, :, :1], photo[:, :, :-1]], axis=2)
  each = scores.psnr(scores.composite(moved, mask, behind), scores.composite(photo, mask, behind), mask)
  assert result.metrics["heldout_tail"]["truth_shifted_1px"]["psnr"] == pytest.approx(float(jnp.mean(each)), abs=0.01)
  assert result.psnr["heldout_tail"].shape == (9,) == result.indices["heldout_tail"].shape
  assert result.renders["heldout_tail"].shape == (9, 48, 48, 3)


def test_batch_size_changes_no_score(evaluation, make_sequence):
  sequence, result = evaluation
  other = protocol.evaluate(_perfect(sequence), sequence, BACKGROUND, lpips=LPIPS, config=protocol.EvalConfig(48, batch=7, vgg_every=2))
  for split in CONFIG.splits:
    for name in ("avatar", "aligned_frame"):
      for key in ("psnr", "ssim", "lpips_alex", "lpips_vgg"):
        assert other.metrics[split][name][key] == pytest.approx(result.metrics[split][name][key], rel=1e-5)


def test_another_resolution_and_an_empty_split(make_sequence):
  sequence = make_sequence()
  sequence.splits["heldout_blocks"] = np.array([], int)
  sizes = set()

  def render(frames):
    sizes.add((frames.camera.width, frames.camera.height, float(frames.camera.intrinsics[0, 0, 0])))
    return jnp.full((len(frames.index), 32, 32, 3), 0.5), jnp.ones((len(frames.index), 32, 32))

  sequence = dataclasses.replace(sequence, all_frames=sequence.all_frames.replace(landmarks=np.zeros((40, 0, 2), np.float32)))
  result = protocol.evaluate(render, sequence, BACKGROUND, lpips={}, config=protocol.EvalConfig(32, batch=4))
  assert result.metrics["heldout_tail"]["aligned_frame"]["psnr"] is None  # no landmarks, nothing to align by
  assert sizes == {(32, 32, 32.0)}  # the focal length follows the size
  assert result.metrics["heldout_blocks"]["avatar"]["psnr"] is None and result.metrics["heldout_blocks"]["avatar"]["frames"] == 0
  assert result.metrics["heldout_tail"]["avatar"]["lpips_alex"] is None
  json.dumps(result.metrics, allow_nan=False)
  target = protocol.read_truth(sequence, np.array([3, 4]), 24)
  assert target.image.shape == (2, 24, 24, 3) and target.mask.shape == target.parts.shape == (2, 24, 24)
  target = protocol.read_truth(make_sequence(), np.array([3, 4]), 24)
  np.testing.assert_allclose(target.landmarks, make_sequence().all_frames.landmarks[[3, 4]] / 2, rtol=1e-6)
  assert set(np.unique(target.parts)) <= set(np.unique(sequence.all_frames.parts))


def test_baselines_never_show_a_heldout_picture(make_sequence):
  sequence = make_sequence()
  asked = []
  original = sequence.frames
  object.__setattr__(sequence, "frames", lambda indices: (asked.append(np.asarray(indices)), original(indices))[1])

  def black(frames):
    return jnp.zeros((len(frames.index), 48, 48, 3)), jnp.zeros((len(frames.index), 48, 48))

  first = protocol.evaluate(black, sequence, BACKGROUND, lpips={}, config=CONFIG)
  train = set(sequence.splits["train"].tolist())
  for indices in asked:
    seen = set(indices.tolist())
    assert seen <= train or not seen & train  # photographs for baselines come from training frames alone
  assert first.metrics["heldout_tail"]["nearest_frame"]["psnr"] < 60


def test_baselines_are_given_the_exposure_too(make_sequence):
  sequence = make_sequence()
  gain = np.ones((40, 3), np.float32)
  gain[sequence.splits["heldout_tail"]] = (0.7, 0.8, 0.9)
  dark = sequence.all_frames.replace(image=sequence.all_frames.image * gain[:, None, None], exposure=gain)
  rows = []
  for frames in (dark, dark.replace(exposure=None)):
    changed = dataclasses.replace(sequence, all_frames=frames)
    rows.append(protocol.evaluate(_perfect(changed), changed, BACKGROUND, lpips={}, config=CONFIG).metrics["heldout_tail"])
  for name in ("nearest_frame", "aligned_frame"):
    assert rows[0][name]["psnr"] > rows[1][name]["psnr"] + 0.3
  assert rows[0]["avatar"]["psnr"] == rows[1]["avatar"]["psnr"]
