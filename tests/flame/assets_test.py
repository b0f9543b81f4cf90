"""FLAME files written in the published layouts, read back; hostile and wrong files, refused."""

import os
import pickle
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from silky_jax.flame import assets
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import REGIONS

VERTICES, FACES = 60, 40


@pytest.fixture
def chumpy():
  """A package of that name, as it was when the files were written; gone when they are read."""
  package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

  class Ch:
    def __init__(self, x):
      self.x = x

  Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
  module.Ch = Ch
  sys.modules["chumpy"], sys.modules["chumpy.ch"] = package, module
  yield Ch
  for name in ("chumpy", "chumpy.ch"):
    sys.modules.pop(name, None)


def _arrays(seed: int = 0) -> dict:
  generator = np.random.default_rng(seed)
  regressor = generator.dirichlet(np.ones(VERTICES), 5) * (generator.random((5, VERTICES)) < 0.5)
  return {
    "v_template": generator.normal(size=(VERTICES, 3)),
    "f": generator.integers(VERTICES, size=(FACES, 3)).astype(np.uint32),
    "shapedirs": generator.normal(size=(VERTICES, 3, 110)),
    "posedirs": generator.normal(size=(VERTICES, 3, 36)),
    "J_regressor": scipy.sparse.csc_matrix(regressor),
    "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
    "weights": generator.dirichlet(np.ones(5), VERTICES),
    "bs_style": "lbs",
  }


def _write(path, content, protocol=2):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.fixture
def folder(tmp_path, chumpy):
  arrays = _arrays()
  wrapped = {**arrays, "shapedirs": chumpy(arrays["shapedirs"]), "weights": chumpy(arrays["weights"])}
  _write(tmp_path / "models" / "renamed by its owner.pkl", wrapped)
  uv = np.random.default_rng(1).random((30, 2))
  corners = np.random.default_rng(2).integers(30, size=(FACES + 2, 3))
  faces = np.concatenate([arrays["f"], [[0, 1, 2], [3, 4, 5]]]).astype(int)
  lines = [f"vt {u:.6f} {v:.6f}" for u, v in uv]
  lines += ["f " + " ".join(f"{v + 1}/{t + 1}" for v, t in zip(*face, strict=True)) for face in zip(faces, corners, strict=True)]
  (tmp_path / "FlameMesh.obj").write_text("\n".join(lines))
  masks = {"face": np.arange(40), "lips": np.arange(10, 20), "left_eyeball": np.arange(50, 55), "neck": np.arange(40, 50)}
  _write(tmp_path / "FLAME_masks" / "FLAME_masks.pkl", masks)
  for side, sign in (("l", 1), ("r", -1)):
    np.save(tmp_path / f"{side}_eyelid.npy", sign * np.ones((VERTICES, 3)))
  return tmp_path, arrays


def test_a_whole_folder(folder):
  path, arrays = folder
  for name in ("chumpy", "chumpy.ch"):
    sys.modules.pop(name, None)
  rig = assets.load_flame(path, identities=300, expressions=50)
  assert rig.shape_basis.shape == (VERTICES, 3, 10) and rig.expression_basis.shape == (VERTICES, 3, 50)
  np.testing.assert_allclose(rig.template, arrays["v_template"], rtol=1e-6)
  np.testing.assert_allclose(rig.expression_basis, arrays["shapedirs"][..., 10:60], rtol=1e-6)
  np.testing.assert_allclose(rig.joint_regressor, arrays["J_regressor"].toarray(), rtol=1e-6)
  np.testing.assert_allclose(rig.pose_basis[7], arrays["posedirs"][..., 7], rtol=1e-6)
  np.testing.assert_allclose(rig.skinning, arrays["weights"], rtol=1e-6)
  assert rig.parents == (-1, 0, 1, 1, 1) and rig.faces.shape == rig.uv_faces.shape == (FACES + 2, 3) and rig.uv.shape == (30, 2)
  assert float(rig.eyelid_basis[1, 0, 0]) == -1
  regions = np.array(REGIONS)[rig.regions]
  assert (regions[50:55] == "left_eyeball").all() and (regions[40:50] == "neck").all()
  assert set(regions[10:20]) <= {"upper_lip", "lower_lip"}
  vertices, _ = flame_vertices(rig, jnp.zeros(10), jnp.zeros(50), jnp.zeros((5, 3)))
  np.testing.assert_allclose(vertices, rig.template, atol=1e-5)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_every_pickle_protocol(tmp_path, chumpy, protocol):
  arrays = _arrays()
  _write(tmp_path / "model.pkl", {**arrays, "posedirs": chumpy(arrays["posedirs"])}, protocol)
  for name in ("chumpy", "chumpy.ch"):
    sys.modules.pop(name, None)
  model = assets.read_model(tmp_path / "model.pkl")
  np.testing.assert_array_equal(model.poses, arrays["posedirs"])
  np.testing.assert_array_equal(model.joint_regressor, arrays["J_regressor"].toarray())


def test_models_are_named_by_content(tmp_path):
  _write(tmp_path / "a.pkl", _arrays(0))
  _write(tmp_path / "b.pkl", _arrays(0), protocol=4)
  _write(tmp_path / "c.pkl", _arrays(1))
  prints = [assets.read_model(tmp_path / f"{name}.pkl").fingerprint for name in "abc"]
  assert prints[0] == prints[1] != prints[2]
  assert len(assets.find_models(tmp_path)) == 3
  with pytest.raises(ValueError, match=r"expected one FLAME model, found .*a\.pkl"):
    assets.load_flame(tmp_path)
  rig = assets.load_flame(tmp_path, model=tmp_path / "c.pkl", need_uv=False)
  assert rig.name == f"flame_{prints[2]}"


class _Hostile:
  def __init__(self, call, *arguments):
    self.call, self.arguments = call, arguments

  def __reduce__(self):
    return self.call, self.arguments


@pytest.mark.parametrize("call", [os.system, eval, getattr, np.load, np.frombuffer, print])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused(tmp_path, call, protocol):
  mark = tmp_path / "ran"
  _write(tmp_path / "generic_model.pkl", {**_arrays(), "shapedirs": _Hostile(call, f"touch {mark}")}, protocol)
  with pytest.raises(ValueError, match="refused to load"):
    assets.read_model(tmp_path / "generic_model.pkl")
  assert not mark.exists()
  assert assets.find_models(tmp_path) == []


def test_wrong_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"expected a FLAME model pickle, found .*Next: register"):
    assets.load_flame(tmp_path)
  _write(tmp_path / "other.pkl", {"v_template": np.zeros((4, 3))})
  with pytest.raises(ValueError, match=r"other\.pkl: expected a FLAME model with arrays .*without \['f', 'shapedirs'"):
    assets.read_model(tmp_path / "other.pkl")
  (tmp_path / "text.pkl").write_text("version https://example\n")
  with pytest.raises(ValueError, match=r"text\.pkl"):
    assets.read_model(tmp_path / "text.pkl")
  body = {**_arrays(), "kintree_table": np.array([[0, 0, 0, 1, 1], [0, 1, 2, 3, 4]])}
  _write(tmp_path / "body.pkl", body)
  with pytest.raises(ValueError, match="this is a body model"):
    assets.read_model(tmp_path / "body.pkl")
  _write(tmp_path / "cut.pkl", {**_arrays(), "weights": np.ones((3, 5))})
  with pytest.raises(ValueError, match=r"weights: expected \(60, 5\), got \(3, 5\)"):
    assets.read_model(tmp_path / "cut.pkl")
  _write(tmp_path / "good" / "m.pkl", _arrays())
  with pytest.raises(FileNotFoundError, match="expected a UV layout"):
    assets.load_flame(tmp_path / "good")


def test_landmark_embeddings(tmp_path):
  generator = np.random.default_rng(0)
  faces, weights = generator.integers(FACES, size=105), generator.dirichlet(np.ones(3), 105)
  np.savez(tmp_path / "mediapipe.npz", lmk_face_idx=faces.astype(np.uint32), lmk_b_coords=weights, landmark_indices=np.arange(105) * 4)
  embedding, numbers = assets.load_embedding(tmp_path / "mediapipe.npz")
  np.testing.assert_array_equal(embedding.face_indices, faces)
  np.testing.assert_array_equal(numbers, np.arange(105) * 4)
  content = {"full_lmk_faces_idx": faces[None, :68], "full_lmk_bary_coords": weights[None, :68]}
  np.save(tmp_path / "landmark_embedding.npy", content)
  embedding, numbers = assets.load_embedding(tmp_path / "landmark_embedding.npy")
  np.testing.assert_allclose(embedding.barycentric, weights[:68], rtol=1e-6)
  assert len(numbers) == 68
  np.save(tmp_path / "bad.npy", {"full_lmk_faces_idx": _Hostile(os.system, "true")})
  with pytest.raises(ValueError, match="refused to load"):
    assets.load_embedding(tmp_path / "bad.npy")
