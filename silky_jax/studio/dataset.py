"""`studio`: film a made-up person and write the native dataset, a video, and the truth beside it.

OUT/               the native dataset: its parameters are the truth, or what a tracker would have made of it (`noise`)
OUT/truth.npz      vertices, parameters, cameras, creases, the sites of the UV atlas; `read_truth` reads it
OUT/video.mp4      the first camera, unless StudioConfig.video is False
"""

import contextlib
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from silky_jax.config import UserError, output_folder
from silky_jax.data.formats import native
from silky_jax.data.images import write_image
from silky_jax.data.splits import SplitConfig, make_splits
from silky_jax.flame import open_head
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.flame.model import landmarks
from silky_jax.gaussians.seeding import uv_sites
from silky_jax.geometry.camera import project
from silky_jax.progress import Progress
from silky_jax.studio.noise import NoiseConfig, disturb, disturb_cameras
from silky_jax.studio.person import Person, make_person
from silky_jax.studio.scene import Scene, SceneConfig, make_scene, posed
from silky_jax.studio.shade import make_look, shoot

__all__ = ["StudioConfig", "Truth", "film", "read_truth"]

_SENSOR = 0.8  # of 255, standard deviation of the camera's noise
_CHUNK = 16  # frames posed at once
_SPLITS = SplitConfig(drop_first=0, repeat_threshold=0.0)
_KEYS = ("expression", "pose", "eyelids", "translation")


@dataclasses.dataclass(frozen=True)
class StudioConfig:
  """One studio dataset."""

  seed: int = 0  # of the person, the motion and the noise
  scene: SceneConfig = dataclasses.field(default_factory=SceneConfig)
  noise_level: float = 0.0  # scales `noise`; 0 writes the truth
  noise: NoiseConfig = dataclasses.field(default_factory=NoiseConfig)
  texture_size: int = 1024  # texels per side
  supersampling: int = 3  # samples per pixel and axis
  video: bool = True  # whether video.mp4 is written too


class Truth(NamedTuple):
  """What really was; frames [t], cameras [k, t]."""

  vertices: Float[np.ndarray, "t v 3"]  # world, metres
  parameters: dict[str, np.ndarray]  # expression, pose, eyelids, translation; shape, offset
  creases: Float[np.ndarray, "t w"]
  world_to_camera: Float[np.ndarray, "k t 4 4"]
  intrinsics: Float[np.ndarray, "k t 3 3"]
  site_faces: Int[np.ndarray, "n"]  # UV points: face and weights
  site_barycentric: Float[np.ndarray, "n 3"]
  faces: Int[np.ndarray, "f 3"]

  def points(self, frame: int) -> Float[np.ndarray, "n 3"]:
    """Positions of the UV points at one frame, world, metres."""
    return np.einsum("nk,nkc->nc", self.site_barycentric, self.vertices[frame][self.faces[self.site_faces]])


def film(output_dir: Path | str, config: StudioConfig | None = None) -> Path:
  """Make a person, direct a scene, take the pictures, write everything.

  Args:
    output_dir: made where missing; must hold no other dataset.
    config: settings.

  Returns:
    The folder.

  Raises:
    UserError: the folder cannot be written or holds a dataset already; settings that make no scene, or a clip
      too short to train on and to score.
  """
  config, root = config or StudioConfig(), Path(output_dir)
  make_splits(np.full(config.scene.frames, 255.0), _SPLITS)  # too short a clip is refused before it is filmed
  _prepare(root)
  try:
    person = make_person(config.seed, texture_size=config.texture_size)
    scene = make_scene(person, config.scene, seed=config.seed)
  except ValueError as error:
    raise UserError(f"studio: {error}") from error
  count, views = config.scene.frames, config.scene.cameras
  vertices = np.concatenate([posed(person, scene, start, start + _CHUNK)[0] for start in range(0, count, _CHUNK)])
  changes = _take_pictures(root, person, scene, config)
  seen = _landmarks(person, vertices, scene)
  _write_truth(root / "truth.npz", person, scene, vertices)
  clean = {key: getattr(scene.motion, key) for key in _KEYS}
  driven = disturb(
    clean, person.rig.expression_names, level=config.noise_level, fps=config.scene.fps, seed=config.seed, config=config.noise
  )
  cameras = disturb_cameras(scene.cameras, level=config.noise_level, seed=config.seed, config=config.noise)
  rows = lambda a: np.concatenate([a] * views)
  flat = lambda a: np.ascontiguousarray(np.asarray(a).reshape(views * count, *np.shape(a)[2:]), np.float32)
  numbers = np.arange(views * count, dtype=np.int32)
  arrays: dict[str, np.ndarray] = {
    "index": numbers,
    "time": rows(np.arange(count, dtype=np.float32) / config.scene.fps),
    "shot": numbers // count,
    "timestep": numbers % count,
    "view": numbers // count,
    **{key: rows(value) for key, value in driven.items()},
    "landmarks": flat(seen),
    "valid": np.ones(len(numbers), bool),
    "exposure": np.ones((len(numbers), 3), np.float32),
    "shape": person.shape,
    "offset": person.offset,
    "intrinsics": flat(cameras.intrinsics),
    "world_to_camera": flat(cameras.world_to_camera),
  }
  if views == 1 and not config.scene.moving:
    arrays |= {key: arrays[key][0] for key in ("intrinsics", "world_to_camera")}
  splits = make_splits(changes, _SPLITS)
  spread = {name: np.concatenate([index + count * view for view in range(views)]).tolist() for name, index in splits.items()}
  header = {
    "rig": person.rig.name,
    "rig_hash": rig_hash(person.rig),
    "frames": len(numbers),
    "width": config.scene.resolution,
    "height": config.scene.resolution,
    "fps": config.scene.fps,
    "splits": spread,
    "video": {"name": f"studio, seed {config.seed}", "width": config.scene.resolution, "height": config.scene.resolution},
    "studio": dataclasses.asdict(config),
    "tracked_from": "nothing: the truth" if not config.noise_level else f"the truth with tracker-like noise of level {config.noise_level}",
  }
  native.write_tables(root, header, arrays)
  return root


def _prepare(root: Path) -> None:
  if (root / "dataset.json").exists():
    raise UserError(f"--output_dir {root}: wanted a folder without a dataset, found one. Choose another, or delete {root}.")
  output_folder(root)
  for folder in ("images", "masks", "parts"):
    (root / folder).mkdir(exist_ok=True)


def _video(path: Path, config: StudioConfig) -> contextlib.AbstractContextManager[Any]:
  """A writer, or nothing where none is wanted."""
  if not config.video:
    return contextlib.nullcontext()
  from silky_jax.data.video import VideoWriter  # pulls in PyAV: only when a video is written

  return VideoWriter(path, config.scene.fps, crf=12)


def _take_pictures(root: Path, person: Person, scene: Scene, config: StudioConfig) -> Float[np.ndarray, "t"]:
  """All pictures of all cameras, as many at a time as there are cores. Returns the mean change per frame of the first camera."""
  look, count, views = make_look(person), config.scene.frames, config.scene.cameras
  walls = [_wall(config.scene.resolution, config.seed + 1000 * view) for view in range(views)]
  changes, before = np.full(count, np.inf), None
  changes[0] = 0.0
  with (
    Progress("film", count * views, "pictures") as bar,
    ThreadPoolExecutor(min(os.cpu_count() or 2, _CHUNK)) as pool,
    _video(root / "video.mp4", config) as video,
  ):
    for view in range(views):
      for start in range(0, count, _CHUNK):
        vertices, heads = posed(person, scene, start, start + _CHUNK)
        jobs = [
          pool.submit(_picture, look, person, scene, view, start + k, vertices[k], heads[k], walls[view], config)
          for k in range(len(vertices))
        ]
        for k, job in enumerate(jobs):
          image, mask, parts = job.result()
          name = f"{view * count + start + k:05d}.png"
          for folder, picture in (("images", image), ("masks", mask), ("parts", parts)):
            write_image(root / folder / name, picture)
          if view == 0:
            if video is not None:
              video.add(image)
            if before is not None:
              changes[start + k] = np.abs(image.astype(np.float32) - before).mean()
            before = image.astype(np.float32)
          bar.update()
  return changes


def _picture(
  look: Any,
  person: Person,
  scene: Scene,
  view: int,
  frame: int,
  vertices: np.ndarray,
  head: np.ndarray,
  wall: np.ndarray,
  config: StudioConfig,
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
  camera = jax.tree.map(lambda a: a[view, frame], scene.cameras)
  shot = shoot(
    look,
    person.rig,
    jnp.asarray(vertices),
    jnp.asarray(head),
    jnp.asarray(scene.creases[frame]),
    camera,
    supersampling=config.supersampling,
  )
  image = np.asarray(shot.image) + (1.0 - np.asarray(shot.alpha))[..., None] * wall
  image = image + np.random.default_rng([config.seed, 4, view, frame]).normal(0, _SENSOR / 255, image.shape)
  as_bytes = lambda x: np.clip(np.round(255 * np.asarray(x)), 0, 255).astype(np.uint8)
  return as_bytes(image), as_bytes(shot.mask), np.asarray(shot.parts)


def _wall(size: int, seed: int) -> Float[np.ndarray, "h w 3"]:
  """A plain wall with a soft shadow and an edge."""
  rng = np.random.default_rng([seed, 5])
  y, x = np.mgrid[:size, :size] / size
  tint = np.array([0.70, 0.68, 0.64]) + rng.normal(0, 0.04, 3)
  light = 1.0 - 0.25 * (0.6 * x + 0.4 * y) - 0.08 * (x > rng.uniform(0.2, 0.8))
  return tint * light[..., None]


def _landmarks(person: Person, vertices: np.ndarray, scene: Scene) -> Float[np.ndarray, "k t 478 2"]:
  """True landmarks in pixels, hidden ones too."""
  embedding = open_head.load()[1]
  points = landmarks(jnp.asarray(vertices), person.rig.faces, embedding)
  cameras = scene.cameras
  every = [
    np.stack([np.asarray(project(points[t], jax.tree.map(lambda a, v=view, t=t: a[v, t], cameras))[0]) for t in range(len(vertices))])
    for view in range(cameras.world_to_camera.shape[0])
  ]
  return np.stack(every)


def _write_truth(path: Path, person: Person, scene: Scene, vertices: np.ndarray) -> None:
  sites = uv_sites(np.asarray(person.rig.uv), np.asarray(person.rig.uv_faces), size=128, keep=np.ones(len(person.rig.faces), bool))
  part = path.with_name(f".{path.name}.part")
  with part.open("wb") as file:
    np.savez_compressed(
      file,
      vertices=vertices.astype(np.float32),
      **{key: getattr(scene.motion, key) for key in _KEYS},
      shape=person.shape,
      offset=person.offset,
      creases=scene.creases,
      world_to_camera=np.asarray(scene.cameras.world_to_camera),
      intrinsics=np.asarray(scene.cameras.intrinsics),
      site_faces=np.asarray(sites.faces, np.int32),
      site_barycentric=np.asarray(sites.barycentric, np.float32),
      faces=np.asarray(person.rig.faces, np.int32),
    )
  os.replace(part, path)


def read_truth(data_dir: Path | str) -> Truth:
  """The truth of a studio dataset.

  Raises:
    UserError: there is none.
  """
  path = Path(data_dir) / "truth.npz"
  if not path.is_file():
    raise UserError(f"{path}: wanted the truth of a studio dataset, found none. `python run.py studio --output_dir DIR` makes one.")
  with np.load(path, allow_pickle=False) as data:
    a = {key: data[key] for key in data.files}
  parameters = {key: a[key] for key in (*_KEYS, "shape", "offset")}
  return Truth(
    a["vertices"], parameters, a["creases"], a["world_to_camera"], a["intrinsics"], a["site_faces"], a["site_barycentric"], a["faces"]
  )
