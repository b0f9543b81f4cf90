"""The studio: persons, motion, noise, and a whole small dataset whose truth is checked against its pictures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.formats import native
from silky_jax.flame import open_head
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import PARTS
from silky_jax.geometry.camera import project
from silky_jax.studio import dataset, noise, scene
from silky_jax.studio.motion import MotionConfig, make_motion
from silky_jax.studio.noise3d import solid
from silky_jax.studio.person import make_person
from silky_jax.tracking.judge import rotation_errors
from silky_jax.types import Camera

SIZE, FRAMES = 64, 24
CONFIG = dataset.StudioConfig(
  seed=5, scene=scene.SceneConfig(frames=FRAMES, cameras=2, resolution=SIZE), texture_size=128, supersampling=2, noise_level=1.0
)


@pytest.fixture(scope="module")
def person():
  return make_person(5, texture_size=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return dataset.film(tmp_path_factory.mktemp("studio") / "out", CONFIG)


def test_noise_is_smooth_seeded_and_fills_its_range():
  points = np.random.default_rng(0).uniform(-0.1, 0.1, (20000, 3))
  field = solid(points, 0.01, 3)
  assert field.min() < -0.6 and field.max() > 0.6 and abs(field.mean()) < 0.1
  np.testing.assert_array_equal(field, solid(points, 0.01, 3))
  assert np.abs(field - solid(points, 0.01, 4)).mean() > 0.1
  assert np.abs(field - solid(points + 1e-5, 0.01, 3)).max() < 0.02


def test_a_person_is_its_seeds(person):
  again, other = make_person(5, texture_size=128), make_person(6, texture_size=128)
  np.testing.assert_array_equal(person.albedo, again.albedo)
  np.testing.assert_array_equal(person.offset, again.offset)
  assert np.abs(person.shape - other.shape).max() > 0.5 and np.abs(person.albedo - other.albedo).mean() > 0.01
  for field in dataclasses.fields(person):
    if field.name != "rig":
      assert np.isfinite(getattr(person, field.name)).all(), field.name
  assert np.linalg.norm(person.offset, axis=1).max() < 0.004 and 0.005 < person.hair.max() < 0.05
  with pytest.raises(ValueError, match="at least 64, got 8"):
    make_person(0, texture_size=8)


def test_motion_talks_blinks_and_turns():
  motion = make_motion(500, 25.0, seed=1)
  jaw = motion.pose[:, 2, 0]
  assert jaw.max() > 0.1 and (jaw < 0.02).mean() > 0.1  # opens, and closes again
  blinks = (np.diff((motion.eyelids[:, 0] > 0.8).astype(int)) == 1).sum()
  assert 3 <= blinks <= 15
  yaw = motion.pose[:, 0, 1] + motion.pose[:, 1, 1]
  assert np.degrees(np.abs(yaw[350:380]).max()) > 30
  speed = np.degrees(np.abs(np.diff(yaw))) * 25
  assert speed.max() > 90  # degrees per second: hard
  assert np.isfinite(motion.expression).all() and motion.expression.dtype == np.float32
  assert motion.arkit.min() >= 0 and motion.arkit.max() <= 1
  still = make_motion(50, 25.0, seed=1, config=MotionConfig(speech=0.0, mood=0.0, turn=0.0, nod=0.0, sway=(0, 0, 0), shift=0.0))
  assert np.abs(still.pose[:, :3]).max() == 0 and np.abs(still.translation).max() == 0
  with pytest.raises(ValueError, match="got 0"):
    make_motion(0, 25.0, seed=0)


def test_controls_are_those_of_the_weights():
  motion = make_motion(40, 25.0, seed=2)
  controls = open_head.arkit_to_rig(jnp.asarray(motion.arkit[17]))
  np.testing.assert_allclose(motion.expression[17], controls.expression, atol=1e-5)
  np.testing.assert_allclose(motion.pose[17, 2:], controls.pose()[2:], atol=1e-5)
  np.testing.assert_allclose(motion.eyelids[17], controls.eyelids, atol=1e-5)


def test_cheeks_lag_and_creases_open_only_when_the_face_moves(person):
  directed = scene.make_scene(person, scene.SceneConfig(frames=200), seed=1)
  assert directed.creases.min() >= 0 and directed.creases.max() > 0.2
  assert 1e-4 < np.linalg.norm(directed.shake, axis=1).max() < 0.0061
  still = MotionConfig(speech=0.0, mood=0.0, turn=0.0, nod=0.0, sway=(0, 0, 0), shift=0.0, blink_every=1e9)
  calm = scene.make_scene(person, scene.SceneConfig(frames=50, motion=still), seed=1)
  np.testing.assert_allclose(calm.shake, 0, atol=1e-7)
  # Glances alone open nothing.
  assert calm.creases.max() == 0


def test_true_vertices_leave_the_bases(person):
  directed = scene.make_scene(person, scene.SceneConfig(frames=60), seed=1)
  vertices, head = scene.posed(person, directed, 0, 60)
  m = directed.motion
  shape, offset = jnp.asarray(person.shape), jnp.asarray(person.offset)
  plain = jax.vmap(lambda e, p, l, t: flame_vertices(person.rig, shape, e, p, eyelids=l, offset=offset)[0] + t)(
    *(jnp.asarray(x) for x in (m.expression, m.pose, m.eyelids, m.translation))
  )
  away = np.linalg.norm(vertices - np.asarray(plain), axis=-1)
  assert 5e-4 < away.max() < 8e-3
  np.testing.assert_allclose(head @ np.swapaxes(head, 1, 2), np.broadcast_to(np.eye(3), head.shape), atol=1e-5)


@pytest.mark.parametrize("bad", [{"cameras": 0}, {"cameras": 17}, {"resolution": 4}, {"cameras": 2, "moving": True}])
def test_impossible_scenes_are_refused(person, bad):
  with pytest.raises(ValueError, match="cameras, resolution"):
    scene.make_scene(person, scene.SceneConfig(frames=5, **bad), seed=0)


def test_tracker_noise_has_the_sizes_it_states():
  rig = open_head.load()[0]
  frames = 4000
  zero = {
    "expression": np.zeros((frames, 49)),
    "pose": np.zeros((frames, 5, 3)),
    "eyelids": np.full((frames, 2), 0.5),
    "translation": np.zeros((frames, 3)),
  }
  config = noise.NoiseConfig()
  out = noise.disturb(zero, rig.expression_names, level=2.0, fps=25.0, seed=0, config=config)
  np.testing.assert_allclose(out["expression"].std(), 2 * config.expression, rtol=0.05)
  np.testing.assert_allclose(np.degrees((out["pose"][:, 0] + out["pose"][:, 1]).std()), 2 * config.head, rtol=0.1)
  np.testing.assert_allclose(out["translation"].std(axis=0), 2 * np.array(config.translation), rtol=0.15)
  x = out["pose"][:, 0, 0]
  forgets = np.exp(-1 / (config.slow_seconds * 25))
  np.testing.assert_allclose(np.corrcoef(x[1:], x[:-1])[0, 1], config.slow_share * forgets, atol=0.05)
  names = list(rig.expression_names)
  a, b, c = (out["expression"][:, names.index(n)] for n in ("mouthLeft", "mouthPucker", "browInnerUp"))
  assert abs(np.corrcoef(a, b)[0, 1]) > 0.4 > 0.15 > abs(np.corrcoef(a, c)[0, 1])
  same = noise.disturb(zero, rig.expression_names, level=0.0, fps=25.0, seed=0)
  assert all((same[key] == zero[key]).all() for key in same)
  with pytest.raises(ValueError, match="got -1"):
    noise.disturb(zero, rig.expression_names, level=-1, fps=25.0, seed=0)


def test_the_dataset_shows_what_its_truth_says(folder):
  data, truth = native.read(folder), dataset.read_truth(folder)
  assert len(data) == 2 * FRAMES and truth.vertices.shape[0] == FRAMES
  rows = np.array([3, FRAMES + 3])
  frames = data.frames(rows)
  np.testing.assert_array_equal(frames.view, [0, 1])
  np.testing.assert_array_equal(frames.timestep, [3, 3])
  assert np.abs(frames.camera.world_to_camera[0] - frames.camera.world_to_camera[1]).max() > 0.1
  for k in range(2):
    camera = Camera(jnp.asarray(truth.world_to_camera[k, 3]), jnp.asarray(truth.intrinsics[k, 3]), width=SIZE, height=SIZE)
    # Landmarks are the true ones, and lie on the person.
    rig, dense, _ = open_head.load()
    points = np.einsum("lk,lkc->lc", dense.barycentric, truth.vertices[3][np.asarray(rig.faces)[dense.face_indices]])
    pixels = np.asarray(project(jnp.asarray(points), camera)[0])
    np.testing.assert_allclose(frames.landmarks[k], pixels, atol=1e-2)
    column, row = np.floor(pixels).astype(int).T
    assert (frames.mask[k][row, column] > 0.5).mean() > 0.88  # some lie on the very outline
    # Where the nose's vertices project, the label is nose (most of them are seen from both sides).
    nose = truth.vertices[3][np.asarray(rig.regions) == rig.region_names.index("nose")]
    column, row = np.floor(np.asarray(project(jnp.asarray(nose), camera)[0])).astype(int).T
    assert (frames.parts[k][row, column] == PARTS.index("nose")).mean() > 0.5
  seen = set(np.unique(data.parts))
  assert {PARTS.index(n) for n in ("background", "skin", "nose", "hair", "neck", "cloth", "upper_lip", "lower_lip")} <= seen
  # The mask leaves the shirt out.
  assert (data.masks[data.parts == PARTS.index("cloth")] < 128).mean() > 0.95
  assert truth.points(0).shape[1] == 3 and np.isfinite(truth.points(FRAMES - 1)).all()


def test_noise_is_in_the_dataset_and_not_in_the_truth(folder):
  data, truth = native.read(folder), dataset.read_truth(folder)
  difference = data.arrays["expression"][:FRAMES] - truth.parameters["expression"]
  assert 0.01 < difference.std() < 0.06
  np.testing.assert_array_equal(data.arrays["expression"][:FRAMES], data.arrays["expression"][FRAMES:])  # one tracker, two cameras
  assert data.header["studio"]["noise_level"] == 1.0
  # Each camera has its own error, the same in all frames.
  views = data.arrays["world_to_camera"].reshape(2, FRAMES, 4, 4) @ np.linalg.inv(truth.world_to_camera)
  np.testing.assert_allclose(views, np.broadcast_to(views[:, :1], views.shape), atol=1e-5)
  angles = rotation_errors(views[:, 0, :3, :3], np.eye(3)[None])
  assert (angles > 0.02).all() and (angles < 1.0).all() and abs(angles[0] - angles[1]) > 1e-3
  assert (np.linalg.norm(views[:, 0, :3, 3], axis=-1) < 0.02).all()
  gain = data.arrays["intrinsics"].reshape(2, FRAMES, 3, 3)[:, 0, 0, 0] / truth.intrinsics[:, 0, 0, 0]
  assert (np.abs(gain - 1) > 1e-5).all() and (np.abs(gain - 1) < 0.02).all()


def test_a_single_camera_is_never_disturbed(folder):
  truth = dataset.read_truth(folder)
  one = Camera(truth.world_to_camera[:1], truth.intrinsics[:1], width=SIZE, height=SIZE)
  assert noise.disturb_cameras(one, level=1.0, seed=0) is one


def test_splits_hold_moments_out_of_all_cameras(folder):
  data = native.read(folder)
  for index in data.splits.values():
    np.testing.assert_array_equal(np.sort(index % FRAMES)[::2], np.sort(index % FRAMES)[1::2])


def test_a_second_film_is_refused_and_the_first_stays(folder):
  before = (folder / "dataset.json").read_bytes()
  with pytest.raises(UserError, match="found one"):
    dataset.film(folder, CONFIG)
  assert (folder / "dataset.json").read_bytes() == before


def test_a_clip_too_short_is_refused_before_it_is_filmed(tmp_path):
  config = dataclasses.replace(CONFIG, scene=dataclasses.replace(CONFIG.scene, frames=8))
  with pytest.raises(UserError, match="the clip has 8 frames"):
    dataset.film(tmp_path / "out", config)
  assert not (tmp_path / "out").exists()


def test_the_same_seed_films_the_same(folder, tmp_path):
  again = dataset.film(tmp_path / "again", CONFIG)
  a, b = native.read(folder), native.read(again)
  np.testing.assert_array_equal(a.images, b.images)
  for key in a.arrays:
    np.testing.assert_array_equal(a.arrays[key], b.arrays[key], err_msg=key)


def test_truth_is_asked_for_where_there_is_none(tmp_path):
  with pytest.raises(UserError, match=r"truth\.npz: wanted the truth"):
    dataset.read_truth(tmp_path)
