"""The train step, on a toy family that compiles fast: terms, stages, backgrounds, traces, broken gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from silky_jax.config import ConfigError
from silky_jax.data.clips import Batch
from silky_jax.flame.regions import PARTS
from silky_jax.geometry import camera as cameras
from silky_jax.models import corrections
from silky_jax.models.corrections import CorrectionsConfig
from silky_jax.models.protocol import Avatar, Measured
from silky_jax.render.pipeline import RenderConfig, render
from silky_jax.training.objective import Ramp, StepConfig, make_objective
from silky_jax.training.optimizer import OptimizerConfig, make_optimizer
from silky_jax.training.shares import make_shares
from silky_jax.training.step import LossConfig, Term, create_state, make_train_step, part_ids, part_table, stages
from silky_jax.types import Frame, Gaussians, Variables

SIZE, COUNT = 16, 12
RENDER = RenderConfig(capacity=1024)  # the compiled kernel, as users of a CPU train: small programs
PLAIN = RenderConfig(capacity=1024, backend="xla")


def _toy(counts=None):
  """Twelve Gaussians whose colours and places are trained; the head shifts by the frame's translation."""

  def init(key, rig, subject):
    places = jax.random.uniform(key, (COUNT, 3), minval=-0.1, maxval=0.1)
    return Variables({"places": places, "colors": jnp.full((COUNT, 3), 0.5)}, {"alive": jnp.ones(COUNT, bool)})

  def deform(variables, rig, frame):
    if counts is not None:
      counts.append(1)
    means = variables.params["places"] + frame.translation
    covariances = jnp.broadcast_to(4e-4 * jnp.eye(3), (COUNT, 3, 3))
    return Gaussians(means, covariances, jnp.full(COUNT, 0.8), variables.params["colors"]), {"means": means}

  def regularize(variables, rig, clip, prediction):
    speed = jnp.diff(prediction.aux["means"], axis=1)
    return {"size": jnp.mean(variables.params["places"] ** 2), "still": jnp.mean(speed**2) if speed.size else jnp.zeros(())}

  return Avatar(init, deform, regularize, clip_terms=("still",))


def _frames(shape, size):
  camera = cameras.from_focal(cameras.look_at(jnp.asarray([0.0, 0.0, 1.0]), jnp.zeros(3)), 3.0 * SIZE, width=SIZE, height=SIZE)
  random = np.random.default_rng(0)
  full = {"image": random.uniform(size=(*shape, size, size, 3)), "mask": random.uniform(size=(*shape, size, size))}
  zero = jnp.zeros(shape, jnp.int32)
  return Frame(
    index=zero,
    time=jnp.zeros(shape),
    shot=zero,
    timestep=zero,
    view=zero,
    camera=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), camera),
    expression=jnp.zeros((*shape, 2)),
    pose=jnp.zeros((*shape, 5, 3)),
    eyelids=jnp.zeros((*shape, 2)),
    translation=jnp.asarray(random.uniform(-0.02, 0.02, (*shape, 3)), jnp.float32),
    image=jnp.asarray(full["image"], jnp.float32),
    mask=jnp.asarray(full["mask"], jnp.float32),
    parts=jnp.asarray(random.integers(0, 19, (*shape, size, size)), jnp.uint8),
    landmarks=jnp.zeros((*shape, 0, 2)),
    valid=jnp.ones(shape, bool),
  )


def _batch(clips=1, length=1, rendered=1):
  clip, target = _frames((clips, length), 0), _frames((clips, rendered), SIZE)
  places = jnp.tile(jnp.arange(rendered, dtype=jnp.int32), (clips, 1))
  target = target.replace(translation=clip.translation[:, :rendered])
  return Batch(clip, target, places)


_OPTIMIZER = make_optimizer(OptimizerConfig(rates={"places": (1e-3, 1e-3), "colors": (1e-2, 1e-2)}), steps=100)


@functools.cache
def _toy_step(weights, regularizers, ignored, background):
  """The plain family's step, compiled once for all tests that ask for the same."""
  config = StepConfig(dict(weights), dict(regularizers), part_table({}), ignored, background, RENDER)
  return jax.jit(make_train_step(_toy(), _OPTIMIZER, config))


def _run(avatar=None, *, batch=None, steps=1, background=(1.0, 1.0, 1.0), weights=None, regularizers=None, ignored=(), render=RENDER):
  weights, regularizers = weights or {"huber": 1.0}, regularizers or {}
  if avatar is None:
    step = _toy_step(tuple(weights.items()), tuple(regularizers.items()), ignored, background)
  else:
    config = StepConfig(weights, regularizers, part_table({}), ignored, background, render)
    step = jax.jit(make_train_step(avatar, _OPTIMIZER, config))
  state = create_state((avatar or _toy()).init(jax.random.key(0), None, None), _OPTIMIZER, seed=0)
  batch = _batch() if batch is None else batch
  history = []
  for _ in range(steps):
    state, metrics = step(state, None, batch, {})
    history.append(metrics)
  return state, history


def test_learns_and_logs_every_term_unweighted():
  weights = {"huber": 1.0, "l1": 0.5, "ssim": 0.2, "alpha": 0.1}
  state, history = _run(steps=30, weights=weights, regularizers={"size": 0.3})
  assert history[-1]["loss"] < 0.9 * history[0]["loss"]
  assert {*weights, "size", "loss", "psnr", "gradient_norm", "pairs", "overflow", "skipped"} == set(history[0])
  for metrics in history[:2]:
    expected = sum(weight * metrics[name] for name, weight in {**weights, "size": 0.3}.items())
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  assert int(state.step) == 30


def test_ignored_labels_have_no_say():
  """A picture that differs only under an ignored label trains the same avatar."""
  plain = _batch()
  cloth = plain.target.parts == PARTS.index("cloth")
  assert cloth.any()
  target = plain.target.replace(
    image=jnp.where(cloth[..., None], 1.0 - plain.target.image, plain.target.image),
    mask=jnp.where(cloth, 1.0 - plain.target.mask, plain.target.mask),
  )
  spoiled = plain._replace(target=target)
  run = lambda batch, ignored: _run(batch=batch, steps=3, weights={"huber": 1.0, "alpha": 0.5}, ignored=ignored)[0].variables.params
  same = jax.tree.map(jnp.array_equal, run(plain, part_ids(("cloth",))), run(spoiled, part_ids(("cloth",))))
  assert all(jax.tree.leaves(same))
  seen = jax.tree.map(jnp.array_equal, run(plain, ()), run(spoiled, ()))
  assert not all(jax.tree.leaves(seen))


def test_corrections_find_where_a_frame_really_was():
  """Six pictures of the true avatar; the tracker puts each a few millimetres off. They are put back, but for what they share."""
  own = CorrectionsConfig(enabled=True, start=0.0, rate=(0.3, 0.02), prior=0.0)
  variables = _toy().init(jax.random.key(0), None, None)
  variables = variables.replace(params={**variables.params, "colors": jax.random.uniform(jax.random.key(1), (COUNT, 3))})
  frames = _frames((6,), SIZE).replace(timestep=jnp.arange(6))
  picture = lambda frame: render(_toy().deform(variables, None, frame)[0], frame.camera, jnp.ones(3), config=RENDER).image
  seen = jax.jit(jax.vmap(picture))(frames)
  off = jnp.asarray(np.random.default_rng(3).normal(0, 0.003, (6, 3)), jnp.float32).at[:, 2].set(0.0)
  tracked = frames.replace(image=seen, mask=jnp.ones((6, SIZE, SIZE)), translation=frames.translation + off)
  variables = corrections.begin(own, variables, tracked, np.arange(6))
  optimizer = make_optimizer(
    OptimizerConfig(rates={"places": (1e-9, 1e-9), "colors": (1e-9, 1e-9)}),
    steps=240,
    own={"corrections": corrections.per_look_descent(corrections.schedule(own, steps=240))},
  )
  step = make_train_step(_toy(), optimizer, StepConfig({"huber": 1.0}, {"corrections": 1e-9}, part_table({}), (), (1.0, 1.0, 1.0), RENDER))

  @jax.jit
  def learn(state, k):
    one = jax.tree.map(lambda leaf: leaf[k][None, None], tracked)
    return step(state, None, Batch(one, one, jnp.zeros((1, 1), jnp.int32)), {})

  state = create_state(variables, optimizer, seed=0)
  for k in range(240):
    state, metrics = learn(state, k % 6)
  found = corrections.correct(state.variables, tracked).translation - frames.translation
  spread = lambda error: float(jnp.sqrt(jnp.mean((error - error.mean(axis=0))[:, :2] ** 2)))
  assert spread(found) < 0.4 * spread(off)
  assert float(metrics["corrections"]) > 0


def test_a_term_without_weight_is_not_computed_and_three_steps_are_one_trace():
  counts = []
  state, history = _run(_toy(counts), steps=3, render=PLAIN)  # the backend that counts its pairs
  assert set(history[0]) == {"huber", "loss", "psnr", "gradient_norm", "pairs", "overflow", "skipped"}
  assert len(counts) == 1
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
  assert int(state.stats["pairs"]) == max(int(m["pairs"]) for m in history) > 0
  compiled, other = _run(steps=3)
  np.testing.assert_allclose([m["loss"] for m in history], [m["loss"] for m in other], rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.variables.params, compiled.variables.params)


def test_only_rendered_frames_are_deformed_unless_a_term_looks_across_time():
  shapes = []

  def spying(avatar):
    def deform(variables, rig, frame):
      shapes.append(frame.translation.shape)
      return avatar.deform(variables, rig, frame)

    def regularize(variables, rig, clip, prediction):
      shapes.append(prediction.aux["means"].shape)
      return avatar.regularize(variables, rig, clip, prediction)

    return avatar._replace(deform=deform, regularize=regularize)

  batch = _batch(clips=2, length=5, rendered=2)
  plain = _run(spying(_toy()), batch=batch, regularizers={"size": 1.0})[1][0]
  assert shapes[-1] == (2, 2, COUNT, 3)
  across = _run(spying(_toy()), batch=batch, regularizers={"size": 1.0, "still": 1.0})[1][0]
  assert shapes[-1] == (2, 5, COUNT, 3)
  np.testing.assert_allclose(plain["huber"], across["huber"], rtol=1e-6)
  assert across["still"] > 0


def test_background_is_fixed_or_a_function_of_key_and_step():
  white, black = (float(_run(background=color)[1][0]["huber"]) for color in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
  assert white != black
  first, second = (_run(steps=2, background=None)[1] for _ in range(2))
  assert [float(m["huber"]) for m in first] == [float(m["huber"]) for m in second]


def test_a_broken_gradient_changes_nothing_but_the_count():
  broken = _batch()
  broken = broken._replace(target=broken.target.replace(image=broken.target.image.at[0, 0, 3, 3, 0].set(jnp.nan)))
  state, history = _run(batch=broken)
  start = _toy().init(jax.random.key(0), None, None)
  jax.tree.map(np.testing.assert_array_equal, state.variables, start)
  assert int(state.step) == 1 and float(history[0]["skipped"]) == 1.0
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def _remembering():
  """The toy with a term that counts its steps in the buffers and reports what it counted."""
  toy = _toy()

  def init(*given):
    variables = toy.init(*given)
    return variables.replace(buffers=variables.buffers | {"memory": {"count": {"looks": jnp.zeros(())}, "other": jnp.ones(2)}})

  def regularize(variables, rig, clip, prediction):
    looks = variables.buffers["memory"]["count"]["looks"]
    value = jnp.mean(variables.params["places"] ** 2)
    return {"count": lambda: Measured(value, {"count": {"looks": looks + 1}}, {"seen": looks}), "dear": lambda: 1 / 0}

  return toy._replace(init=init, regularize=regularize)


def test_terms_remember_and_report_and_are_not_called_without_a_weight():
  state, history = _run(_remembering(), steps=3, regularizers={"count": 0.5})
  assert [float(m["count_seen"]) for m in history] == [0.0, 1.0, 2.0]
  assert float(state.variables.buffers["memory"]["count"]["looks"]) == 3.0
  np.testing.assert_array_equal(state.variables.buffers["memory"]["other"], jnp.ones(2))
  np.testing.assert_allclose(history[0]["loss"], history[0]["huber"] + 0.5 * history[0]["count"], rtol=1e-5)
  broken = _batch()
  broken = broken._replace(target=broken.target.replace(image=broken.target.image.at[0, 0, 3, 3, 0].set(jnp.nan)))
  state, _ = _run(_remembering(), batch=broken, regularizers={"count": 0.5})
  assert float(state.variables.buffers["memory"]["count"]["looks"]) == 0.0  # a step that was thrown away is not remembered


def test_a_ramp_grows_a_weight_from_nothing():
  config = StepConfig({"huber": 1.0}, {"size": 0.3}, part_table({}), (), (1.0, 1.0, 1.0), RENDER, ramps={"size": Ramp(10, 20)})
  objective = jax.jit(make_objective(_toy(), config))
  state = create_state(_toy().init(jax.random.key(0), None, None), _OPTIMIZER, seed=0)
  shares = []
  for step in (10, 19, 29, 60):
    found = objective(state.variables.params, state.replace(step=jnp.asarray(step, jnp.int32)), None, _batch(), {})
    shares.append(float(found.parts["size"] / (0.3 * found.metrics["size"])))
    np.testing.assert_allclose(found.parts["huber"], found.metrics["huber"], rtol=1e-6)
  np.testing.assert_allclose(shares, np.tanh(3 * np.asarray([1, 10, 20, 51]) / 20), rtol=1e-5)


def test_shares_are_those_of_lone_gradients():
  weights, own = {"huber": 1.0, "ssim": 0.2}, {"size": 0.3}
  config = StepConfig(weights, own, part_table({}), (), (1.0, 1.0, 1.0), RENDER)
  state = create_state(_toy().init(jax.random.key(0), None, None), _OPTIMIZER, seed=0)
  found = jax.jit(make_shares(_toy(), config))(state, None, _batch(), {})
  norms = {}
  for name in (*weights, *own):
    alone = dataclasses.replace(
      config, weights={k: v for k, v in weights.items() if k == name}, regularizers={k: v for k, v in own.items() if k == name}
    )
    lone = make_objective(_toy(), alone)
    slope = jax.jit(jax.grad(lambda p, lone=lone, name=name: lone(p, state, None, _batch(), {}).parts[name]))(state.variables.params)
    norms[name] = float(optax.global_norm(slope))
  for name, norm in norms.items():
    np.testing.assert_allclose(found[name], norm / sum(norms.values()), rtol=1e-4)
  np.testing.assert_allclose(sum(found.values()), 1.0, rtol=1e-5)


def test_unknown_regularizer():
  with pytest.raises(ConfigError, match="no term 'sise'; did you mean 'size'"):
    _run(regularizers={"sise": 1.0})


def test_stages_are_cut_where_terms_join():
  config = LossConfig(huber=Term(1.0), perceptual=Term(0.1, 0.5), ssim=Term(0.0, 0.3), regularizers={"size": Term(2.0, 0.25)})
  got = stages(config, 100)
  assert [stage.start for stage in got] == [0, 25, 50]
  assert [set(stage.weights) for stage in got] == [{"huber"}, {"huber"}, {"huber", "perceptual"}]
  assert [stage.regularizers for stage in got] == [{}, {"size": 2.0}, {"size": 2.0}]
  growing = stages(LossConfig(huber=Term(1.0), regularizers={"size": Term(2.0, 0.25, 0.1), "still": Term(0.0, 0.9, 0.1)}), 100)
  assert [stage.ramps for stage in growing] == [{}, {"size": Ramp(25, 10)}]


def test_stage_refusals():
  with pytest.raises(ConfigError, match="4 compiled steps; at most 3"):
    stages(LossConfig(ssim=Term(1.0, 0.1), l1=Term(1.0, 0.2), alpha=Term(1.0, 0.3)), 100)
  with pytest.raises(ConfigError, match=r"losses\.regularizers\.size"):
    stages(LossConfig(regularizers={"size": Term(-1.0)}), 100)
  with pytest.raises(ConfigError, match=r"losses\.size: expected a ramp|regularizers\.size: expected a ramp"):
    stages(LossConfig(regularizers={"size": Term(1.0, 0.0, 1.5)}), 100)
  with pytest.raises(ConfigError, match="no label 'moth'"):
    part_table({"moth": 1.0})
  assert part_table({"nose": 2.0})[10] == 2.0
  with pytest.raises(ConfigError, match="no label 'clothes'"):
    part_ids(("clothes",))
