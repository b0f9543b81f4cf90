"""Corrections of tracked parameters: they begin as nothing, reach training moments alone, sum to zero, turn the head about itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from silky_jax.config import ConfigError
from silky_jax.flame.model import flame_vertices
from silky_jax.models import corrections
from silky_jax.models.corrections import CorrectionsConfig
from silky_jax.types import Variables

CONFIG = CorrectionsConfig(enabled=True, camera=True)
TRAIN = np.array([0, 1, 2, 5, 6, 7])  # of 8 moments by each of two cameras: moments 3 and 4 are held out


@pytest.fixture(scope="module")
def frames(make_frame):
  """Two cameras, eight moments; a row per picture, camera after camera."""
  rows = [make_frame(seed).replace(timestep=jnp.asarray(seed), view=jnp.asarray(view)) for view in (0, 1) for seed in range(8)]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@pytest.fixture(scope="module")
def fresh(frames):
  return corrections.begin(CONFIG, Variables({}, {}), frames, np.concatenate([TRAIN, TRAIN + 8]))


@pytest.fixture(scope="module")
def learnt(fresh):
  tables, tree = jax.tree.flatten(fresh.params)
  keys = jax.random.split(jax.random.key(0), len(tables))
  return fresh.replace(params=tree.unflatten([jax.random.normal(key, table.shape) for key, table in zip(keys, tables, strict=True)]))


def _without_camera(variables):
  return variables.replace(params={"corrections": {k: v for k, v in variables.params["corrections"].items() if k != "camera"}})


def _pick(frames, chosen):
  return jax.tree.map(lambda leaf: leaf[chosen], frames)


def test_they_begin_as_nothing_and_an_avatar_without_them_is_left_alone(fresh, frames):
  for variables in (fresh, Variables({}, {})):
    jax.tree.map(np.testing.assert_array_equal, corrections.correct(variables, frames), frames)
    jax.tree.map(np.testing.assert_array_equal, corrections.calibrate(variables, frames), frames)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))


@pytest.mark.parametrize("moment", [3, 4, 8, 1000])  # held out, held out, beyond the film, of another film
def test_other_moments_are_driven_as_tracked(learnt, frames, moment):
  other = _pick(frames, np.array([3])).replace(timestep=np.array([moment], np.int32))
  jax.tree.map(np.testing.assert_array_equal, corrections.correct(_without_camera(learnt), other), other)


def test_all_driving_parameters_of_training_moments_change_and_in_all_views_alike(learnt, frames):
  found = corrections.correct(learnt, frames)
  for name in ("expression", "eyelids", "translation"):
    before, after = (np.asarray(getattr(f, name)) for f in (frames, found))
    assert (np.abs(after - before)[TRAIN].max(axis=1) > 1e-4).all(), name
    np.testing.assert_array_equal(after[:8], after[8:])
  change = np.asarray(found.pose) - frames.pose
  assert (np.abs(change[TRAIN][:, [0, 2, 3, 4]]).max(axis=-1) > 1e-4).all()
  np.testing.assert_array_equal(change[:, 1], 0)  # the neck follows the torso, which is not seen
  np.testing.assert_allclose(change[:, 3], change[:, 4], atol=1e-7)  # both eyes look at the same thing
  assert ((found.eyelids >= 0) & (found.eyelids <= 1)).all()


def test_the_sum_over_training_moments_is_zero(learnt, frames):
  some = _pick(frames, TRAIN)
  found = corrections.correct(learnt, some)
  for name in ("expression", "pose"):
    change = np.asarray(getattr(found, name)) - np.asarray(getattr(some, name))
    np.testing.assert_allclose(change.mean(axis=0), 0, atol=1e-6)
    assert np.abs(change).max() > 1e-2


def test_the_head_turns_about_the_pivot(fresh, frames, rig, subject):
  params = {
    **fresh.params["corrections"],
    "head": jnp.asarray([[30.0, 20, 10], [-30, -20, -10], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]),
  }
  variables = _without_camera(fresh.replace(params={"corrections": params}))
  before = _pick(frames, np.array([0])).replace(pose=jnp.zeros((1, 5, 3)).at[0, 0].set(jnp.asarray([0.3, -0.4, 0.1])))
  after = corrections.correct(variables, before)
  assert np.degrees(np.linalg.norm(after.pose[0, 0] - before.pose[0, 0])) == pytest.approx(0.5 * np.sqrt(1400), rel=1e-4)
  face = jnp.asarray(before.expression[0])
  root = rig.joint_regressor[0] @ flame_vertices(rig, subject.shape, face, jnp.zeros((5, 3)))[0]

  def place(frame):
    """Of the pivot, carried along by the root joint; the joint stays where it is."""
    _, joints = flame_vertices(rig, subject.shape, face, frame.pose[0])
    return joints[0, :3, :3] @ jnp.asarray(CONFIG.pivot) + root + frame.translation[0]

  np.testing.assert_allclose(place(after), place(before), atol=1e-6)
  moved = np.linalg.norm(np.asarray(after.translation - before.translation))
  assert moved > 0.01  # so without it, it would not have stayed


def test_cameras_hold_for_held_out_pictures_of_their_view_too(fresh, frames):
  table = jnp.zeros((2, 7)).at[1].set(jnp.asarray([5.0, 0, 0, 0, 2.0, 0, 4.0]))
  variables = fresh.replace(params={"corrections": {**fresh.params["corrections"], "camera": table}})
  for found in (corrections.correct(variables, frames), corrections.calibrate(variables, frames)):
    np.testing.assert_array_equal(found.camera.world_to_camera[:8], frames.camera.world_to_camera[:8])
    np.testing.assert_array_equal(found.camera.intrinsics[:8], frames.camera.intrinsics[:8])
    angle = np.radians(5 * CONFIG.camera_rotation)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    before = frames.camera.world_to_camera[8:]
    np.testing.assert_allclose(found.camera.world_to_camera[8:, :3, :3], turn @ before[:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(
      found.camera.world_to_camera[8:, :3, 3], before[:, :3, 3] @ turn.T + [0, 2 * CONFIG.camera_translation, 0], atol=1e-6
    )
    gain = np.exp(4 * CONFIG.focal)
    wanted = frames.camera.intrinsics[8:] * np.array([[gain, 1, 1], [1, gain, 1], [1, 1, 1]])
    np.testing.assert_allclose(found.camera.intrinsics[8:], wanted, rtol=1e-6)


def test_gradients_reach_every_table_and_are_finite_at_the_start(fresh, frames):
  some = _pick(frames, np.array([0, 9, 3]))
  weights = jax.tree.map(lambda a: np.random.default_rng(0).normal(size=np.shape(a)).astype(np.float32), some)

  def total(params):
    found = corrections.correct(fresh.replace(params=params), some)
    picked = lambda f: (f.expression, f.pose, f.eyelids, f.translation, f.camera.world_to_camera, f.camera.intrinsics)
    return sum(jnp.vdot(a, b) for a, b in zip(picked(found), picked(weights), strict=True))

  gradient = jax.jit(jax.grad(total))(fresh.params)
  for name, table in gradient["corrections"].items():
    assert np.isfinite(table).all() and np.abs(table).max() > 0, name
    direction = jnp.zeros_like(table).at[0, 0].set(1e-1)
    shifted = lambda s, name=name, d=direction: {"corrections": {**fresh.params["corrections"], name: s * d}}
    slope = (total(shifted(1.0)) - total(shifted(-1.0))) / 0.2
    assert float(slope) == pytest.approx(float(table[0, 0]), rel=0.05, abs=2e-3), name


def test_the_prior_counts_only_what_is_looked_at(learnt, frames):
  everything = corrections.prior(learnt, *2 * (_pick(frames, np.array([0])),))
  row = [table[0] for name, table in learnt.params["corrections"].items() if name != "camera"]
  values = np.concatenate([*map(np.ravel, row), np.ravel(learnt.params["corrections"]["camera"])])
  np.testing.assert_allclose(everything, np.mean(values**2), rtol=1e-5)
  assert float(corrections.prior(_without_camera(learnt), *2 * (_pick(frames, np.array([3])),))) == 0.0


def _film(make_frame, count, seed):
  """Someone who keeps moving as before, tracked with errors; the frames and the truth."""
  random = np.random.default_rng(seed)
  one = make_frame(0)
  moves = {"expression": 0.3, "translation": 0.05}
  path = {
    name: np.cumsum(np.cumsum(1e-3 * size * random.normal(size=(count, *np.shape(getattr(one, name)))), 0), 0)
    for name, size in moves.items()
  }
  seen = {name: (x + 0.02 * moves[name] * random.normal(size=x.shape)).astype(np.float32) for name, x in path.items()}
  frames = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], count, axis=0), one)
  k = np.arange(count, dtype=np.int32)
  return frames.replace(**seen, index=k, timestep=k, view=0 * k, shot=0 * k, time=(k / 25).astype(np.float32)), path


def test_what_the_track_says_of_itself_pulls_corrections_towards_the_truth(make_frame):
  frames, path = _film(make_frame, 60, 0)
  config = CorrectionsConfig(enabled=True, inertia=True)
  variables = corrections.begin(config, Variables({}, {}), frames, np.arange(60))
  window = jax.tree.map(lambda leaf: leaf[None], frames)
  loss = lambda params: corrections.prior(variables.replace(params=params), frames, window)
  optimizer = optax.adam(0.05)

  @jax.jit
  def step(params, state):
    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  params, state = variables.params, optimizer.init(variables.params)
  first = None
  for _ in range(300):
    params, state, value = step(params, state)
    first = value if first is None else first
  found = corrections.correct(variables.replace(params=params), frames)
  assert np.isfinite(value) and value < 0.7 * first
  for name, true in path.items():
    off = lambda x, true=true: np.sqrt(np.mean((np.asarray(x) - true - np.mean(np.asarray(x) - true, axis=0)) ** 2))
    assert off(getattr(found, name)) < 0.7 * off(getattr(frames, name)), name


def test_inertia_wants_frames_in_a_row(make_frame):
  frames, _ = _film(make_frame, 8, 0)
  with pytest.raises(ConfigError, match=r"corrections\.inertia"):
    corrections.begin(CorrectionsConfig(enabled=True, inertia=True), Variables({}, {}), frames, np.arange(8))


@pytest.mark.parametrize("change", [{"head": 0.0}, {"expression": -1.0}, {"start": 1.5}, {"prior": -1.0}])
def test_settings_that_make_no_sense_are_refused(frames, change):
  with pytest.raises(ConfigError, match=next(iter(change))):
    corrections.begin(dataclasses.replace(CONFIG, **change), Variables({}, {}), frames, TRAIN)


def test_rows_that_are_not_seen_stay_and_a_row_that_is_further_off_moves_further():
  descent = corrections.per_look_descent(lambda count: 0.1)
  params = {"table": jnp.zeros((4, 2))}
  state = descent.init(params)
  for row, size in ((0, 1.0), (1, 2.0), (2, -1.0)):
    gradient = {"table": jnp.zeros((4, 2)).at[row, 0].set(size)}
    step, state = descent.update(gradient, state, params)
    params = optax.apply_updates(params, step)
  table = np.asarray(params["table"])
  np.testing.assert_array_equal(table[3], 0)
  np.testing.assert_array_equal(table[:, 1], 0)  # no gradient at all: no movement, no NaN
  assert table[0, 0] == pytest.approx(-0.1) and table[1, 0] < table[0, 0] and 0 < table[2, 0] < 0.1
  assert np.abs(table).max() <= 0.3


def test_the_rate_waits_then_falls():
  rate = corrections.schedule(dataclasses.replace(CONFIG, start=0.2, rate=(0.4, 0.04)), steps=100)
  values = [float(rate(jnp.asarray(count))) for count in (0, 19, 20, 60, 100, 200)]
  np.testing.assert_allclose(values, [0, 0, 0.4, 0.4 * 10**-0.5, 0.04, 0.04], rtol=1e-5)
