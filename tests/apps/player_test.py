"""Standing before a head: centre, distance, silhouette, the swept motion, the exported file. The avatar is a stand-in on the real rig."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.apps import export, motions, player
from silky_jax.config import UserError
from silky_jax.data.memory import MemorySequence
from silky_jax.evaluation.playback import driving, take
from silky_jax.flame import open_head
from silky_jax.flame.fingerprint import rig_hash
from silky_jax.flame.model import flame_vertices
from silky_jax.gaussians import ply
from silky_jax.types import Camera, Frame, Gaussians, Subject

SIZE = 96
BACK = 0.8  # metres from the camera to the origin


@pytest.fixture(scope="module")
def sequence():
  rng, count = np.random.default_rng(0), 12
  pose = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
  pose[2, 3] = BACK
  intrinsics = np.array([[200, 0, 48], [0, 200, 48], [0, 0, 1]], np.float32)
  every = lambda a: np.repeat(a[None], count, axis=0)
  order = np.arange(count, dtype=np.int32)
  frames = Frame(
    index=order,
    time=order / np.float32(25),
    shot=0 * order,
    timestep=order,
    view=0 * order,
    camera=Camera(every(pose), every(intrinsics), width=SIZE, height=SIZE),
    expression=np.abs(rng.normal(0, 0.1, (count, 49))).astype(np.float32),
    pose=rng.normal(0, 0.05, (count, 5, 3)).astype(np.float32),
    eyelids=rng.uniform(0, 0.3, (count, 2)).astype(np.float32),
    translation=np.zeros((count, 3), np.float32),
    image=np.zeros((count, SIZE, SIZE, 3), np.float32),
    mask=np.zeros((count, SIZE, SIZE), np.float32),
    parts=np.zeros((count, SIZE, SIZE), np.uint8),
    landmarks=np.zeros((count, 478, 2), np.float32),
    valid=np.ones(count, bool),
  )
  rig = open_head.load()[0]
  subject = Subject(np.zeros(80, np.float32), np.zeros((5340, 3), np.float32), np.zeros(49, np.float32), np.ones(49, np.float32))
  return MemorySequence(frames, {"train": np.arange(10), "heldout_tail": np.arange(10, 12)}, subject, rig.name, rig_hash(rig), 25.0)


@pytest.fixture(scope="module")
def shown():
  rig = open_head.load()[0]

  def gaussians(frame):
    points = flame_vertices(rig, jnp.zeros(80), frame.expression, frame.pose, eyelids=frame.eyelids)[0] + frame.translation
    spread = jnp.broadcast_to(1e-6 * jnp.eye(3), (len(points), 3, 3))
    return Gaussians(points, spread, jnp.full(len(points), 0.9), jnp.full((len(points), 3), 0.25))

  @jax.jit
  def vertices(frames):
    one = lambda f: flame_vertices(rig, jnp.zeros(80), f.expression, f.pose, eyelids=f.eyelids)[0] + f.translation
    return jax.vmap(one)(driving(frames).replace(camera=None))

  return player.Player(
    render=None,
    own=lambda frames: frames,
    gaussians=gaussians,
    vertices=vertices,
    silhouette=lambda frames: player.outline(rig, vertices(frames), frames.camera),
    rig=rig,
    restored=None,
    background=np.ones(3, np.float32),
  )


def test_the_stance_frames_the_head(sequence, shown):
  rest = player.resting(sequence)
  assert rest.image is None and np.abs(rest.pose[0, :2]).max() == 0 == np.abs(rest.translation).max()
  where = player.stance(shown, sequence, rest)
  assert abs(where.distance - BACK) < 0.1 and abs(where.centre[0]) < 2e-3
  frames = motions.repeat(
    rest, motions.orbit(where.centre, np.zeros(1), np.zeros(1), distance=where.distance, focal=where.focal * SIZE, size=SIZE)
  )
  seen = shown.silhouette(frames)[0]
  rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
  assert 0.5 < len(rows) / SIZE < 0.85 and abs(columns.mean() - SIZE / 2) < 3
  assert not seen[0].any() and not seen[-1].any()  # the torso is left out


def test_the_sweep_moves_one_thing_at_a_time_and_no_further_than_said(sequence, shown):
  rest = player.resting(sequence)
  names = shown.rig.expression_names
  sweep = motions.expression_sweep(sequence, rest, names, player.stance(shown, sequence, rest), size=64, frames_each=10)
  count = 10 * len(motions.SWEEP)
  assert sweep.expression.shape == (count, 49) and sweep.camera.world_to_camera.shape == (count, 4, 4)
  moved = np.abs(sweep.expression - rest.expression) > 1e-3
  for k, (what, units) in enumerate(motions.SWEEP):
    during = slice(10 * k, 10 * (k + 1))
    told = np.array([bool(units) and name.startswith(units) for name in names])
    assert not moved[during][:, ~told].any() and moved[during][:, told].any() == told.any(), what
    assert (np.abs(sweep.pose[during, 2] - rest.pose[0, 2]).max() > 0.05) == (what == "jaw")
    assert (sweep.eyelids[during].max() > 0.9) == (what == "lids")
  assert sweep.expression.max() <= 1.0
  assert np.abs(sweep.pose[:, :2]).max() == 0  # the camera turns, not the head


def test_export_writes_the_moment(sequence, shown, tmp_path):
  frame = take(driving(sequence.frames(np.array([3]))), np.array([0]))
  said = []
  path = export.export_ply(shown, frame, tmp_path / "new" / "a.ply", say=said.append)
  raw = ply.read(path)
  np.testing.assert_allclose(raw.means, np.asarray(shown.vertices(frame))[0], atol=1e-6)
  assert "5,340 Gaussians" in said[0]
  with pytest.raises(UserError, match=r"ends in \.ply"):
    export.export_ply(shown, frame, tmp_path / "a.obj")
  with pytest.raises(UserError, match="cannot be written"):
    export.export_ply(shown, frame, path / "b.ply")


def test_a_foreign_rig_is_named():
  with pytest.raises(UserError, match=r"'flame2023' \(xyz\).*'open_head'"):
    player.find_rig("flame2023", "xyz")
  rig = open_head.load()[0]
  assert player.find_rig(rig.name, rig_hash(rig)) is rig
