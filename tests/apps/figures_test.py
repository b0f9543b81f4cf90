"""Error colours, panels and contact sheets."""

import numpy as np

from silky_jax.apps import figures
from silky_jax.data.images import read_image
from silky_jax.data.video import read_video


def test_error_colours_grow_lighter():
  truth = np.zeros((1, 65, 3), np.uint8)
  shown = np.repeat(np.arange(65, dtype=np.uint8)[None, :, None], 3, axis=2)
  colours = figures.error_colours(shown, truth)[0].astype(int)
  assert colours[0].tolist() == [0, 0, 4] and colours[64].tolist() == [252, 255, 164]
  lightness = colours @ [0.299, 0.587, 0.114]
  assert (np.diff(lightness) > 0).all()
  np.testing.assert_array_equal(figures.error_colours(shown, truth), figures.error_colours(truth, shown))


def test_on_background_mixes_by_the_mask():
  image = np.full((1, 3, 3), 100, np.uint8)
  mask = np.array([[0, 51, 255]], np.uint8)
  got = figures.on_background(image, mask, np.array([1.0, 0.0, 1.0]))
  assert got[0].tolist() == [[255, 0, 255], [224, 20, 224], [100, 100, 100]]


def test_comparison_is_three_panels_wide(tmp_path):
  a, b = np.full((32, 40, 3), 90, np.uint8), np.full((32, 40, 3), 60, np.uint8)
  picture = figures.comparison(a, b)
  assert picture.shape == (32, 3 * 40 + 2 * 4, 3)
  assert (picture[:, :40] == 90).all() and (picture[:, 44:84] == 60).all()
  rows = [(k + 107, a, b) for k in range(3)]
  path = figures.write_comparison(tmp_path / "a.mp4", lambda: iter(rows), 12)
  info, _, frames = read_video(path)
  assert np.abs(frames[0, 6:14, 6:28].astype(int) - 90).max() > 10  # the number
  assert np.abs(frames[0, 20:, :38].astype(int) - 90).max() <= 4
  assert (info.frames, info.width, info.height) == (3, 128, 32)


def test_sheet_fills_up_its_last_row(tmp_path):
  tiles = [np.full((16, 16, 3), k * 40, np.uint8) for k in range(5)]
  picture = figures.sheet(tiles, 3)
  assert picture.shape == (36, 56, 3)
  assert (picture[20:, 20:36] == 160).all() and (picture[20:, 40:] == 255).all()
  figures.write_sheet(tmp_path / "new" / "a.png", tiles, 5, scale=2.0)
  assert read_image(tmp_path / "new" / "a.png").shape == (32, 5 * 36 - 4, 3)
