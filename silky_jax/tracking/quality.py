"""How well a clip was tracked: `overlay.mp4` to look at, `quality.json` to test, `quality.html` to read."""

import html
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from silky_jax.charts import line_chart, page
from silky_jax.data.formats import native
from silky_jax.data.images import crop_resize, draw_points
from silky_jax.data.video import VideoWriter
from silky_jax.flame import open_head
from silky_jax.geometry.mesh import face_normals
from silky_jax.progress import Progress
from silky_jax.tracking import labels
from silky_jax.tracking.landmarks import FACE_SIDES, LEFT_LIDS, LIPS, REGIONS, RIGHT_LIDS
from silky_jax.types import Camera

GREEN, RED = (70, 220, 90), (255, 60, 60)


class Truth(NamedTuple):
  """Errors against what really was."""

  name: str
  errors: dict[str, Any]  # from `judge.compare`
  per_frame: dict[str, Float[np.ndarray, "t"]]  # from `judge.frame_errors`


def write(folder: Path, predicted: Float[np.ndarray, "t l 2"], truth: Truth | None = None) -> None:
  """Write the three files for a finished dataset.

  Args:
    folder: the dataset.
    predicted: the fitted landmarks in px of the video.
    truth: errors against a known truth, where there is one.
  """
  sequence = native.read(folder)
  crop = sequence.header["crop"]
  scale = sequence.size[0] / crop["side"]
  fitted = (predicted - [crop["x"], crop["y"]]) * scale
  result = measure(sequence, fitted)
  if truth is not None:
    result["truth"] = {"name": truth.name, **truth.errors}
  native.write_json(folder / "quality.json", result)
  (folder / "quality.html").write_text(_page(sequence, result, truth))
  _overlay(sequence, fitted, folder / "overlay.mp4")


def measure(sequence: native.NativeSequence, fitted: Float[np.ndarray, "t l 2"]) -> dict[str, Any]:
  """Residuals per frame and region, coefficient sizes, steadiness.

  The residual is the mean distance between measured and fitted landmarks over the face width (the distance of the
  landmarks at the two ears) of that frame.
  """
  seen = sequence.arrays["landmarks"]
  width = np.linalg.norm(seen[:, FACE_SIDES[0]] - seen[:, FACE_SIDES[1]], axis=-1)
  distance = np.linalg.norm(seen - fitted, axis=-1) / width[:, None]
  per_frame = distance.mean(axis=1)
  arrays = sequence.arrays
  opening = lambda points, pair: np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=-1) / width
  follow = {}
  for name, pair in (("lips", LIPS), ("left_lids", LEFT_LIDS), ("right_lids", RIGHT_LIDS)):
    a, b = opening(seen, pair), opening(fitted, pair)
    ok = np.isfinite(a)
    follow[name] = {"correlation": float(np.corrcoef(a[ok], b[ok])[0, 1]), "mean_error_face_widths": float(np.abs(a - b)[ok].mean())}
  expression = arrays["expression"]
  return {
    "landmark_residual_face_widths": float(np.nanmean(per_frame)),
    "landmark_residual_worst_frame": int(np.nanargmax(per_frame)),
    "landmark_residual_per_region": {name: float(np.nanmean(distance[:, index])) for name, index in REGIONS.items()},
    "landmark_residual_per_frame": [None if not np.isfinite(v) else round(float(v), 5) for v in per_frame],
    "identity_rms": float(np.sqrt(np.mean(arrays["shape"] ** 2))),
    "identity_max": float(np.abs(arrays["shape"]).max()),
    "focal_px": float(sequence.header["focal_video_px"]),
    "focal_crop_px": float(arrays["intrinsics"][0, 0]),
    "expression_rms": float(np.sqrt(np.mean(expression**2))),
    "expression_min_max": [float(expression.min()), float(expression.max())],
    "jaw_max_degrees": float(np.degrees(arrays["pose"][:, 2, 0].max())),
    "head_rotation_degrees": [float(v) for v in np.degrees(np.abs(arrays["pose"][:, 0]).max(axis=0))],
    "openings": follow,
    "jitter_face_widths": {"measured": _jitter(seen, width), "fitted": _jitter(fitted, width)},
    "frames": len(sequence),
    "frames_without_face": int((~arrays["valid"]).sum()),
  }


def _jitter(points: Float[np.ndarray, "t l 2"], width: Float[np.ndarray, "t"]) -> float:
  """Mean size of the second difference in time, in face widths."""
  return float(np.nanmean(np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1) / width[1:-1, None]))


def shaded(sequence: native.NativeSequence, indices: np.ndarray) -> tuple[UInt8[np.ndarray, "t h w 3"], np.ndarray]:
  """The rig in grey light over black, and where it covers."""
  rig = open_head.load()[0]
  a = sequence.arrays
  h, w = sequence.size
  camera = Camera(jnp.asarray(a["world_to_camera"]), jnp.asarray(a["intrinsics"]), width=w, height=h)
  moving = (a[key][indices] for key in ("expression", "pose", "eyelids", "translation"))
  vertices = labels.posed_vertices(rig, a["shape"], *moving, a["offset"])
  ids = np.asarray(labels.face_ids(vertices, rig.faces, camera))
  normals = np.asarray(jax.vmap(face_normals, in_axes=(0, None))(vertices, rig.faces))
  light = np.array([0.3, 0.4, 0.87])
  shade = np.clip(normals @ light, 0.0, 1.0) * 0.85 + 0.1
  picture = np.take_along_axis(shade, np.maximum(ids, 0).reshape(len(ids), -1), axis=1).reshape(ids.shape)
  return np.repeat((picture * 255).astype(np.uint8)[..., None], 3, axis=-1), ids >= 0


def _overlay(sequence: native.NativeSequence, fitted: Float[np.ndarray, "t l 2"], path: Path) -> None:
  """Left: measured (green) and fitted (red) landmarks; right: the mesh over the picture."""
  size = max(384, sequence.size[0])
  zoom = size / sequence.size[0]
  with VideoWriter(path, sequence.fps) as writer, Progress("overlay", len(sequence), "frames") as bar:
    for start in range(0, len(sequence), 16):
      index = np.minimum(np.arange(start, start + 16), len(sequence) - 1)
      mesh, covered = shaded(sequence, index)
      for k in range(min(16, len(sequence) - start)):
        image = sequence.images[start + k]
        blend = np.where(covered[k][..., None], (0.45 * image + 0.55 * mesh[k]).astype(np.uint8), image)
        left = crop_resize(image, (0.0, 0.0, float(sequence.size[0])), size)
        draw_points(left, sequence.arrays["landmarks"][start + k] * zoom, GREEN)
        draw_points(left, fitted[start + k] * zoom, RED)
        writer.add(np.hstack([left, crop_resize(blend, (0.0, 0.0, float(sequence.size[0])), size)]))
        bar.update()


def _truth_section(truth: Truth, times: np.ndarray) -> str:
  """Errors against the truth: figures, and frame by frame."""
  e, per_frame = truth.errors, truth.per_frame
  rows = "".join(
    f"<tr><td>{name}</td><td>{value}</td></tr>"
    for name, value in (
      ("head rotation", f"{e['rotation_degrees']:.2f} degrees; {e['rotation_steady_degrees']:.2f} about the turn that all frames share"),
      ("focal length", f"{100 * e['focal_relative']:+.1f} %"),
      ("distance over focal length", f"{100 * e['distance_over_focal_relative']:.2f} %, up to one factor"),
      (
        "what expression, jaw and lids do",
        f"correlation {e['expression_motion_correlation']:.3f}, {e['expression_motion_error_mm']:.2f} mm",
      ),
      ("single coefficients", f"mean correlation {e['expression_correlation']:.3f}; lowest {html.escape(e['expression_worst'])}"),
      ("identity", f"{e['identity_mm']:.2f} mm; worst landmark {e['identity_mm_worst']:.1f}"),
    )
  )
  turn = {"all of it": per_frame["rotation_degrees"], "steady part off": per_frame["rotation_steady_degrees"]}
  charts = (
    line_chart("Head rotation, degrees off", times, turn),
    line_chart("Distance over focal length, % off", times, {"distance": 100 * per_frame["distance_relative"]}),
    line_chart("What expression, jaw and lids do to the landmarks, mm off", times, {"face": per_frame["face_mm"]}),
  )
  return f"<h2>Against the truth: {html.escape(truth.name)}</h2><table>{rows}</table>{''.join(charts)}"


def _page(sequence: native.NativeSequence, result: dict[str, Any], truth: Truth | None) -> str:
  """The page: figures, residual over time, parameters over time, the overlay beside it."""
  times = sequence.arrays["time"]
  residual = np.array([np.nan if v is None else v for v in result["landmark_residual_per_frame"]]) * 100
  pose = np.degrees(sequence.arrays["pose"][:, 0] + sequence.arrays["pose"][:, 1])
  rows = "".join(
    f"<tr><td>{html.escape(name)}</td><td>{value}</td></tr>"
    for name, value in (
      ("mean landmark residual", f"{result['landmark_residual_face_widths'] * 100:.2f} % of face width"),
      ("identity, rms", f"{result['identity_rms']:.2f} standard deviations"),
      ("focal length", f"{result['focal_px']:.0f} px of the video"),
      ("expression, rms", f"{result['expression_rms']:.3f}"),
      ("frames without a face", f"{result['frames_without_face']} of {result['frames']}"),
      *((f"residual, {name}", f"{value * 100:.2f} %") for name, value in result["landmark_residual_per_region"].items()),
      *((f"{name} opening, correlation", f"{v['correlation']:.3f}") for name, v in result["openings"].items()),
      *((f"jitter, {name}", f"{value * 100:.3f} %") for name, value in result["jitter_face_widths"].items()),
    )
  )
  charts = "".join(
    (
      line_chart("Landmark residual, % of face width", times, {"mean": residual}),
      line_chart("Head rotation, degrees", times, {"pitch": pose[:, 0], "yaw": pose[:, 1], "roll": pose[:, 2]}),
      line_chart("Jaw, degrees", times, {"jaw": np.degrees(sequence.arrays["pose"][:, 2, 0])}),
      line_chart(
        "Eyelids (0 open, 1 closed)", times, {"left": sequence.arrays["eyelids"][:, 0], "right": sequence.arrays["eyelids"][:, 1]}
      ),
    )
  )
  known = "" if truth is None else _truth_section(truth, times)
  body = (
    f"<h1>Tracking of {html.escape(sequence.header['video']['name'])}</h1><table>{rows}</table>{known}"
    f"<h2>Overlay</h2><video src='overlay.mp4' controls loop muted width='768'></video>{charts}"
  )
  return page("Tracking quality", body)
