"""`.frame` files: what is written in their format comes back, and nothing else gets in. Masks of a parsing map."""

import os
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import tracked
from silky_jax.flame.regions import PARTS, parsing_masks
from silky_jax.math.rotation import matrix_from_sixd


def _content():
  random = np.random.default_rng(0)
  flat = {key: random.normal(size=(1, *shape)).astype(np.float32) for key, shape in tracked.KEYS.items()}
  nested = {"flame": {}, "opencv": {}}
  for key, value in flat.items():
    group, name = key.split(".")
    nested[group][name] = value
  nested["flame"] |= {"tex": np.zeros((1, 140), np.float32), "sh": np.zeros((1, 9, 3), np.float32)}
  nested |= {"img_size": np.asarray([480, 512]), "frame_id": "00007", "global_step": 7}
  return flat, nested


def _write(path, content):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
    archive.writestr("archive/version", "3")


def test_anchor_9_round_trip_without_torch(tmp_path):
  flat, nested = _content()
  _write(tmp_path / "00007.frame", nested)
  found = tracked.read_frame(tmp_path / "00007.frame")
  assert set(found) == {*tracked.KEYS, "img_size"} and found["img_size"].tolist() == [480, 512]
  for key, value in flat.items():
    np.testing.assert_array_equal(found[key], value[0])
    assert found[key].dtype == np.float32
  turn = np.asarray(matrix_from_sixd(jnp.asarray([0.0, -1.0, 0.0, 1.0, 0.0, 0.0])))
  np.testing.assert_allclose(turn, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)  # rows: 90 degrees about z


class _Hostile:
  def __reduce__(self):
    return os.system, ("true",)


def test_anchor_9_nothing_else_gets_in(tmp_path):
  _, nested = _content()
  path = tmp_path / "a.frame"
  _write(path, {**nested, "frame_id": _Hostile()})
  with pytest.raises(ValueError, match=r"a\.frame: refused to load"):
    tracked.read_frame(path)
  del nested["opencv"]["K"]
  _write(path, nested)
  with pytest.raises(ValueError, match=r"expected the key opencv\.K"):
    tracked.read_frame(path)
  nested["opencv"]["K"] = np.eye(4)[None]
  _write(path, nested)
  with pytest.raises(ValueError, match=r"opencv\.K: expected \(1, 3, 3\) numbers, got \(1, 4, 4\)"):
    tracked.read_frame(path)
  path.write_bytes(b"\x80\x02\x8a\x0a")  # torch's format from before zips
  with pytest.raises(ValueError, match="expected a zip that torch.save wrote"):
    tracked.read_frame(path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("notes.txt", "hello")
  with pytest.raises(ValueError, match=r"expected one data\.pkl inside, found \[\]"):
    tracked.read_frame(path)


def test_anchor_11_masks_of_a_label_map():
  labels = np.arange(19, dtype=np.uint8).repeat(3)
  alpha, neckhead, mouth = (np.asarray(mask) for mask in parsing_masks(jnp.asarray(labels)))
  assert (alpha.sum(), neckhead.sum(), mouth.sum()) == (3 * 17, 3 * 16, 3 * 3)
  assert set(labels[mouth]) == {11, 12, 13} and not alpha[labels == PARTS.index("hat")].any()
