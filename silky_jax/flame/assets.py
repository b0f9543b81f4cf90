"""Licensed FLAME files -> FlameRig: 2017, 2019, 2020, 2023 and 2023-Open pickles, masks, UV layout, eyelids, landmark embeddings.

A pickle can run any code when it is loaded. Here an allow-list decides what it may name: numpy arrays, plain containers, and inert
stand-ins for chumpy and scipy.sparse objects (neither package is needed). Everything else is refused before it runs.

The pickles carry no version and all have the same arrays, so a model is named by its content: two files with different numbers get
different rig names, and coefficients tracked with one are refused by the other.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from silky_jax.flame.regions import REGIONS
from silky_jax.types import FlameRig, LandmarkEmbedding

__all__ = ["FlameModel", "find_models", "load_embedding", "load_flame", "read_model", "read_pickle", "unpickle"]

_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
_WHERE = "register at https://flame.is.tue.mpg.de, unpack FLAME there, or use the open head, which needs nothing"
_EXPRESSIONS = 100  # the last columns of shapedirs in every release
# Masks of FLAME_masks.pkl and the region each becomes; later lines win where masks overlap.
_MASKS = (
  ("scalp", "scalp"),
  ("face", "face"),
  ("neck", "neck"),
  ("boundary", "torso"),
  ("forehead", "forehead"),
  ("left_eye_region", "left_eye_region"),
  ("right_eye_region", "right_eye_region"),
  ("nose", "nose"),
  ("lips", "upper_lip"),
  ("left_ear", "left_ear"),
  ("right_ear", "right_ear"),
  ("left_eyeball", "left_eyeball"),
  ("right_eyeball", "right_eyeball"),
)


class FlameModel(NamedTuple):
  """The arrays of one FLAME pickle, float64."""

  template: np.ndarray  # [v, 3] metres
  faces: np.ndarray  # [f, 3]
  shapes: np.ndarray  # [v, 3, n] identity columns, then expression columns
  poses: np.ndarray  # [v, 3, q]
  joint_regressor: np.ndarray  # [j, v]
  parents: tuple[int, ...]
  skinning: np.ndarray  # [v, j]
  fingerprint: str  # 8 hex digits over the arrays


class _Inert:
  """Stand-in for an object of a package that is not loaded: keeps its state, does nothing."""

  def __init__(self, *arguments, **_):
    self.arguments = arguments

  def __setstate__(self, state):
    self.state = state if isinstance(state, dict) else {"state": state}


class _Chumpy(_Inert):
  """A chumpy array or expression."""


class _Sparse(_Inert):
  """A scipy.sparse matrix; the format is in the subclass."""

  layout = "csc"


class _SparseRows(_Sparse):
  layout = "csr"


class _Opaque(_Inert):
  """Something that a file carries along and nobody reads, such as torch tensors in landmark files."""

  def __new__(cls, *_, **__):
    return object.__new__(cls)


def _reconstructor(kind: type, base: type, _state: Any) -> Any:
  """What `copyreg._reconstructor` does, for stand-ins only."""
  if not issubclass(kind, _Inert) or base is not object:
    raise pickle.UnpicklingError(f"refused to construct {kind} from {base}")
  return kind.__new__(kind)


def _empty(subtype: type, shape: tuple[int, ...], kind: Any) -> np.ndarray:
  """What numpy's `_reconstruct` does, for plain arrays only."""
  if subtype is not np.ndarray:
    raise pickle.UnpicklingError(f"refused to construct an array of type {subtype}")
  return np.ndarray.__new__(np.ndarray, shape, kind)


def _encode(text: str, encoding: str = "utf-8") -> bytes:
  """`_codecs.encode` as protocol 2 uses it for bytes."""
  if encoding != "latin1":
    raise pickle.UnpicklingError(f"refused to encode as {encoding}")
  return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
  ("numpy", "ndarray"): np.ndarray,
  ("numpy", "dtype"): np.dtype,
  ("_codecs", "encode"): _encode,
  ("copy_reg", "_reconstructor"): _reconstructor,
  ("copyreg", "_reconstructor"): _reconstructor,
  ("__builtin__", "object"): object,
  ("builtins", "object"): object,
  ("collections", "OrderedDict"): dict,
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
  _ALLOWED[_core, "_reconstruct"] = _empty
  _ALLOWED[_core, "scalar"] = lambda kind, data: np.frombuffer(data, kind)[0]
for _module in ("scipy.sparse", "scipy.sparse.csc", "scipy.sparse._csc"):
  _ALLOWED[_module, "csc_matrix"] = _Sparse
for _module in ("scipy.sparse", "scipy.sparse.csr", "scipy.sparse._csr"):
  _ALLOWED[_module, "csr_matrix"] = _SparseRows


class _Unpickler(pickle.Unpickler):
  """Knows the allow-list, chumpy by its package name, and nothing else."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) in _ALLOWED:
      return _ALLOWED[module, name]
    if module.split(".")[0] == "chumpy":
      return _Chumpy
    if module.split(".")[0] == "torch":
      return _Opaque
    raise pickle.UnpicklingError(f"refused to load {module}.{name}")

  def persistent_load(self, pid: Any) -> Any:
    return _Opaque()


def read_pickle(path: Path) -> Any:
  """Load a pickle of arrays through the allow-list; runs no code of the file.

  Args:
    path: file.

  Returns:
    The object, with numpy arrays for chumpy and sparse values inside dictionaries.

  Raises:
    ValueError: the file is no pickle, or names something that is not allowed (the message says what).
  """
  return unpickle(Path(path).read_bytes(), Path(path))


def unpickle(content: bytes, path: Path) -> Any:
  """`read_pickle` of bytes.

  Args:
    content: the pickle.
    path: what messages call it.

  Returns:
    See `read_pickle`, as for errors.
  """
  try:
    found = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    return {key: _plain(value) for key, value in found.items()} if isinstance(found, dict) else _plain(found)
  except pickle.UnpicklingError as error:
    raise ValueError(f"{path}: {error}; only arrays are read from a pickle. Next: do not trust this file, download it anew") from error
  except (EOFError, AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
    raise ValueError(f"{path}: expected a pickle, got something else ({type(error).__name__}). Next: download it anew") from error


def _plain(value: Any) -> Any:
  """A numpy array where the value is a chumpy or sparse stand-in."""
  if isinstance(value, _Sparse):
    return _dense(value)
  if not isinstance(value, _Chumpy):
    return value
  state = getattr(value, "state", {})
  if "x" in state:  # chumpy.Ch holds its numbers in x
    return np.asarray(_plain(state["x"]))
  if "a" in state and "idxs" in state:  # chumpy's Select: some entries of another array
    chosen = np.asarray(_plain(state["a"])).ravel()[np.asarray(state["idxs"])]
    return chosen.reshape(state.get("preferred_shape", chosen.shape))
  return value


def _dense(matrix: _Sparse) -> np.ndarray:
  state = matrix.state
  shape = state.get("_shape", state.get("shape"))
  absent = [name for name in ("indptr", "indices", "data") if name not in state]
  if shape is None or absent:
    raise pickle.UnpicklingError(f"a sparse matrix lacks {absent or 'its shape'}")
  rows, columns = (int(n) for n in shape)
  starts, across, data = (np.asarray(state[name]) for name in ("indptr", "indices", "data"))
  along = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
  result = np.zeros((rows, columns))
  where = (across, along) if matrix.layout == "csc" else (along, across)
  np.add.at(result, where, data)
  return result


def read_model(path: Path) -> FlameModel:
  """The arrays of a FLAME pickle of any release.

  Args:
    path: e.g. generic_model.pkl or flame2023.pkl.

  Returns:
    FlameModel.

  Raises:
    ValueError: not a FLAME pickle; the message says what was wanted and what was found.
  """
  found = read_pickle(path)
  have = sorted(found) if isinstance(found, dict) else type(found).__name__
  missing = [key for key in _KEYS if not isinstance(found, dict) or not isinstance(found.get(key), np.ndarray)]
  if missing:
    raise ValueError(f"{path}: expected a FLAME model with arrays {_KEYS}, got {have}, without {missing}. Next: {_WHERE}")
  template, shapes, poses = (np.asarray(found[key], np.float64) for key in ("v_template", "shapedirs", "posedirs"))
  regressor, skinning = np.asarray(found["J_regressor"], np.float64), np.asarray(found["weights"], np.float64)
  faces, tree = np.asarray(found["f"], np.int64), np.asarray(found["kintree_table"]).astype(np.int64)
  vertices, joints = len(template), len(regressor)
  wanted = {
    "v_template": (template.shape, (vertices, 3)),
    "shapedirs": (shapes.shape[:2], (vertices, 3)),
    "posedirs": (poses.shape, (vertices, 3, 9 * (joints - 1))),
    "J_regressor": (regressor.shape, (joints, vertices)),
    "weights": (skinning.shape, (vertices, joints)),
    "kintree_table": (tree.shape, (2, joints)),
    "f": (faces.shape[1:], (3,)),
  }
  for key, (got, expected) in wanted.items():
    if got != expected:
      raise ValueError(f"{path}: {key}: expected {expected}, got {got}. Next: {_WHERE}")
  parents = (-1, *(int(parent) for parent in tree[0, 1:]))
  if parents != (-1, 0, 1, 1, 1):
    raise ValueError(
      f"{path}: expected FLAME's five joints with parents (-1, 0, 1, 1, 1), got {parents}: this is a body model. Next: {_WHERE}"
    )
  digest = hashlib.sha256()
  for array in (template, shapes, poses, regressor, skinning, faces):
    digest.update(np.ascontiguousarray(array, np.float32).tobytes())
  return FlameModel(template, faces, shapes, poses, regressor, parents, skinning, digest.hexdigest()[:8])


def find_models(folder: Path) -> list[Path]:
  """FLAME models in a folder, by what is in the files, not by their names.

  Args:
    folder: searched three levels deep for .pkl files.

  Returns:
    Paths of every FLAME pickle, sorted.
  """
  found = []
  for path in sorted(path for depth in ("*", "*/*", "*/*/*") for path in Path(folder).glob(depth + ".pkl")):
    try:
      read_model(path)
    except ValueError:
      continue
    found.append(path)
  return found


def load_flame(folder: Path, *, model: Path | None = None, identities: int = 300, expressions: int = 100, need_uv: bool = True) -> FlameRig:
  """A licensed FLAME as a rig.

  Args:
    folder: with a model pickle and, where present, `FlameMesh.obj` or `head_template_mesh.obj` (UV layout), `FLAME_masks.pkl`,
      `l_eyelid.npy` and `r_eyelid.npy`, `landmark_embedding*.npy`, at any depth up to three.
    model: the pickle to use when the folder holds several.
    identities: identity columns to keep.
    expressions: expression columns to keep.
    need_uv: refuse a folder without a UV layout; False gives an empty one.

  Returns:
    FlameRig, float32, named `flame_` and eight hex digits of its content. Without eyelid files the eyelid basis is zero; without masks
    every vertex is `face` but the eyeballs; without a landmark embedding `landmarks` is None.

  Raises:
    FileNotFoundError: no model, or no UV layout though needed.
    ValueError: several models and none chosen, or a file that is not what its name says.
  """
  folder = Path(folder)
  if model is None:
    models = find_models(folder)
    if not models:
      held = sorted(path.name for path in folder.glob("*"))[:20] if folder.is_dir() else "no such folder"
      raise FileNotFoundError(f"{folder}: expected a FLAME model pickle, found {held}. Next: {_WHERE}")
    if len(models) > 1:
      raise ValueError(f"{folder}: expected one FLAME model, found {[str(path) for path in models]}. Next: pass model=PATH")
    model = models[0]
  arrays = read_model(model)
  split = arrays.shapes.shape[-1] - _EXPRESSIONS
  if split < 1:
    raise ValueError(f"{model}: shapedirs: expected more than {_EXPRESSIONS} columns, got {arrays.shapes.shape[-1]}. Next: {_WHERE}")
  count = len(arrays.template)
  faces, uv, uv_faces = _layout(folder, arrays.faces, need_uv)
  lids = [_find(folder, f"{side}_eyelid.npy") for side in "lr"]
  eyelids = np.stack([np.load(lid, allow_pickle=False) for lid in lids]) if all(lids) else np.zeros((2, count, 3))
  if eyelids.shape != (2, count, 3):
    raise ValueError(f"{lids}: expected [{count}, 3] each, got {eyelids.shape[1:]}")
  expression = arrays.shapes[..., split : split + expressions]
  return FlameRig(
    template=_float32(arrays.template),
    shape_basis=_float32(arrays.shapes[..., : min(identities, split)]),
    expression_basis=_float32(expression),
    pose_basis=_float32(np.moveaxis(arrays.poses, -1, 0)),
    joint_regressor=_float32(arrays.joint_regressor),
    skinning=_float32(arrays.skinning),
    eyelid_basis=_float32(eyelids),
    faces=jnp.asarray(faces, jnp.int32),
    uv=_float32(uv),
    uv_faces=jnp.asarray(uv_faces, jnp.int32),
    regions=jnp.asarray(_regions(folder, arrays), jnp.int32),
    parents=arrays.parents,
    name=f"flame_{arrays.fingerprint}",
    region_names=REGIONS,
    expression_names=tuple(f"expression_{number}" for number in range(expression.shape[-1])),
    landmarks=_ibug(folder, len(faces)),
  )


def _ibug(folder: Path, faces: int) -> LandmarkEmbedding | None:
  """The 68 iBUG points, where the folder has them."""
  path = next((path for depth in _DEPTHS for path in sorted(folder.glob(f"{depth}landmark_embedding*.npy"))), None)
  if path is None:
    return None
  embedding, _ = load_embedding(path)
  if len(embedding.face_indices) < 68 or int(jnp.max(embedding.face_indices)) >= faces:
    raise ValueError(f"{path}: expected 68 points on {faces} faces, got {len(embedding.face_indices)} points")
  return LandmarkEmbedding(embedding.face_indices[:68], embedding.barycentric[:68])


def _float32(array: np.ndarray) -> jnp.ndarray:
  return jnp.asarray(np.asarray(array, np.float32))


_DEPTHS = ("", "*/", "*/*/")


def _find(folder: Path, name: str) -> Path | None:
  return next((path for depth in _DEPTHS for path in sorted(folder.glob(f"{depth}{name}"))), None)


def _layout(folder: Path, faces: np.ndarray, needed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Faces (with those that seal the mouth, where the file has them), texture coordinates and texture faces."""
  path = _find(folder, "FlameMesh.obj") or _find(folder, "head_template_mesh.obj")
  if path is None:
    if needed:
      names = "FlameMesh.obj or head_template_mesh.obj"
      raise FileNotFoundError(f"{folder}: expected a UV layout, {names}, found none. Next: copy it there, or pass need_uv=False")
    return faces, np.zeros((0, 2)), np.zeros_like(faces)
  uv, corners = [], []
  for line in path.read_text().splitlines():
    words = line.split()
    if words[:1] == ["vt"]:
      uv.append([float(word) for word in words[1:3]])
    elif words[:1] == ["f"]:
      corners.append([[int(number) - 1 for number in word.split("/")[:2]] for word in words[1:4]])
  table = np.array(corners)
  if table.ndim != 3 or table.shape[-1] != 2 or len(table) < len(faces) or (table[: len(faces), :, 0] != faces).any():
    raise ValueError(f"{path}: expected the {len(faces)} faces of the model first, each corner as v/vt, got {table.shape}")
  return table[..., 0], np.array(uv), table[..., 1]


def _regions(folder: Path, arrays: FlameModel) -> np.ndarray:
  """Region per vertex from FLAME_masks.pkl; the lips are parted by the jaw's skin weight."""
  regions = np.full(len(arrays.template), REGIONS.index("face"))
  regions[arrays.skinning[:, 3] > 0.5] = REGIONS.index("left_eyeball")
  regions[arrays.skinning[:, 4] > 0.5] = REGIONS.index("right_eyeball")
  path = _find(folder, "FLAME_masks.pkl")
  if path is None:
    return regions
  masks = read_pickle(path)
  for mask, region in _MASKS:
    if mask in masks:
      regions[np.asarray(masks[mask])] = REGIONS.index(region)
  lower = (regions == REGIONS.index("upper_lip")) & (arrays.skinning[:, 2] > 0.5)
  regions[lower] = REGIONS.index("lower_lip")
  return regions


def load_embedding(path: Path) -> tuple[LandmarkEmbedding, np.ndarray]:
  """A landmark embedding on FLAME.

  Args:
    path: `mediapipe_landmark_embedding.npz` (105 points) or a `landmark_embedding*.npy` (68 or 70 points, the `full` set).

  Returns:
    embedding, and the index of each point in its landmark model [l].

  Raises:
    ValueError: neither of the two layouts.
  """
  path = Path(path)
  if path.suffix == ".npz":
    with np.load(path, allow_pickle=False) as data:
      faces, weights, numbers = data["lmk_face_idx"], data["lmk_b_coords"], data["landmark_indices"]
  else:
    found = _npy_object(path)
    if "full_lmk_faces_idx" not in found:
      raise ValueError(f"{path}: expected full_lmk_faces_idx and full_lmk_bary_coords, got {sorted(found)}")
    faces, weights = found["full_lmk_faces_idx"].reshape(-1), found["full_lmk_bary_coords"].reshape(-1, 3)
    numbers = np.arange(len(faces))
  return LandmarkEmbedding(jnp.asarray(faces.astype(np.int32)), _float32(weights)), numbers.astype(np.int32)


def _npy_object(path: Path) -> dict[str, Any]:
  """The dictionary in a .npy of one pickled object, through the allow-list."""
  with path.open("rb") as file:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    reader(file)
    try:
      found = _Unpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
      raise ValueError(f"{path}: {error}; only arrays are read from a pickle") from error
  found = found.item() if isinstance(found, np.ndarray) else found
  if not isinstance(found, dict):
    raise ValueError(f"{path}: expected a dictionary, got {type(found).__name__}")
  return found
