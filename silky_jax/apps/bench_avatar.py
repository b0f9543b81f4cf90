"""`bench avatar`: frames and training steps per second of a whole avatar, a trained one or one made up on the bundled head.

A frame is all of it: the motion handed over by the host (one row of numbers, another one every frame), the rig, the network, projection,
binning, rasterizing, the picture on the device. `ms_latency`: median of frames that are waited for one by one, the device idle before
each. `frames_per_second`: frames issued one after the other, one wait at the end. A call draws `batch` frames.

`psnr_against_float32` compares a row's 16 pictures with those of the same avatar in float32, one at a time: what its precision costs.
Memory is the process's peak so far, where the device tells it.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from silky_jax.apps.bench import front_camera, write_rows
from silky_jax.apps.player import find_rig
from silky_jax.config import UserError
from silky_jax.data.clips import Batch
from silky_jax.flame import open_head
from silky_jax.losses import perceptual
from silky_jax.models import corrections
from silky_jax.models.corrections import CorrectionsConfig
from silky_jax.models.drive import LiveRenderer, live_renderer, make_renderer, pack_motion
from silky_jax.models.silky import SilkyConfig, make
from silky_jax.nets.mlp import Precision
from silky_jax.render.pipeline import next_capacity
from silky_jax.training.checkpoint import restore_run
from silky_jax.training.experiment import ExperimentConfig, build
from silky_jax.training.step import Term, create_state, make_train_step
from silky_jax.types import Camera, FlameRig, Frame, Subject, TrainState, Variables

__all__ = ["FRAMES", "USUAL", "Counts", "Sitter", "bench_avatar", "moments", "pictures", "sitter", "time_frames", "time_training"]

FRAMES = 16  # different ones, in turn
_WARM = 8  # calls before the clock starts
_MOST_DECIBELS = 150.0  # of equal pictures


class Sitter(NamedTuple):
  """An avatar, its camera and sixteen moments."""

  config: ExperimentConfig
  variables: Variables
  rig: FlameRig
  camera: Camera
  motion: dict[str, np.ndarray]  # expression [16, e], pose [16, 5, 3], eyelids [16, 2], translation [16, 3]
  capacity: int  # of the renderer, chosen as a user's is

  @property
  def rows(self) -> Float[np.ndarray, "16 m"]:
    """The moments as `live_renderer` takes them."""
    return pack_motion(**self.motion)


class Counts(NamedTuple):
  """How long to measure."""

  latency: int = 60  # frames or steps that are waited for one by one
  throughput: int = 200  # that are not


USUAL = Counts()


def bench_avatar(
  config: ExperimentConfig,
  *,
  checkpoint: Path | str | None = None,
  network: str | None = None,
  size: int = 512,
  batches: Sequence[int] = (1, 8, 32),
  precisions: Sequence[str] = get_args(Precision),
  training: bool = True,
  counts: Counts = USUAL,
  json_path: Path | str | None = None,
  say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
  """Measure; print a line per row; write JSON.

  Args:
    config: of the made-up avatar, and of its training.
    checkpoint: a run that is measured instead, with its own config.
    network: WIDTHxDEPTH, like 256x6, instead of the config's; not with a checkpoint.
    size: px of the square picture.
    batches: frames per call; 1 is also measured without the network.
    precisions: of the network's products.
    training: whether training steps are measured too.
    counts: how long to measure.
    json_path: where the rows go, with the machine.
    say: prints a line.

  Raises:
    UserError: an unknown precision, a network that is not WIDTHxDEPTH, no such run.
  """
  if unknown := [name for name in precisions if name not in get_args(Precision)]:
    raise UserError(f"bench avatar: wanted precisions of {', '.join(get_args(Precision))}, found {', '.join(unknown)}")
  who, rows = sitter(config, checkpoint=checkpoint, network=network, size=size), []

  def add(row: dict[str, Any]) -> None:
    rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    say(json.dumps(rows[-1]))

  model = who.config.model
  if 1 in batches:
    add(time_frames(who, dataclasses.replace(model, residual="none"), 1, counts, None))
  if model.residual != "none":
    exact = pictures(who, dataclasses.replace(model, precision="float32"))
    for batch in batches:
      for precision in precisions:
        add(time_frames(who, dataclasses.replace(model, precision=precision), batch, counts, exact))
  if training:
    for with_perceptual in (False, True):
      add(time_training(who, _with_perceptual(who.config, with_perceptual), counts))
  if json_path is not None:
    write_rows(json_path, rows)
  return rows


# ---- what is measured ------------------------------------------------------------------------------------------------------------


def sitter(config: ExperimentConfig, *, checkpoint: Path | str | None = None, network: str | None = None, size: int = 512) -> Sitter:
  """The avatar of a run, or one made up: as `init` makes it, with colours and a network that moves it.

  Raises:
    UserError: see `bench_avatar`.
  """
  if checkpoint is not None:
    if network is not None:
      raise UserError("bench avatar: --network is of the made-up avatar; a run has its own")
    restored = restore_run(checkpoint)
    config, rig = restored.config, find_rig(restored.meta.rig_name, restored.meta.rig_hash)
    variables = restored.state.variables
    drop = lambda tree: {key: value for key, value in tree.items() if key != corrections.KEY}
    variables = variables.replace(params=drop(variables.params), buffers=drop(variables.buffers))
  else:
    rig = open_head.load()[0]
    config = dataclasses.replace(config, model=_sized(config.model, network))
    variables = _made_up(config.model, rig)
  config = dataclasses.replace(config, corrections=CorrectionsConfig())
  motion = _motion(rig.expression_basis.shape[-1])
  who = Sitter(config, variables, jax.device_put(rig), _anywhere(size), motion, config.render.capacity)
  means = jax.jit(make(config.model).deform)(variables, rig, moments(who, 0))[0].means
  who = who._replace(camera=front_camera(np.asarray(means), size))
  show = _show(who, config.model)
  return who._replace(capacity=max(who.capacity, next_capacity(max(int(show(row)[1]) for row in who.rows))))


def _network_of(model: SilkyConfig) -> str:
  return {"mlp": f"{model.width}x{model.depth}", "uv": f"uv {model.uv_width}"}.get(model.residual, model.residual)


def _sized(model: SilkyConfig, network: str | None) -> SilkyConfig:
  if network is None:
    return model
  if model.residual != "mlp":
    raise UserError(f"bench avatar: --network is the size of an MLP, and the config's residual is {model.residual!r}; leave it out")
  width, _, depth = network.partition("x")
  if not (width.isdigit() and depth.isdigit() and int(width) and int(depth)):
    raise UserError(f"bench avatar: --network is WIDTHxDEPTH, like 256x6, found {network!r}")
  return dataclasses.replace(model, width=int(width), depth=int(depth))


def _made_up(model: SilkyConfig, rig: FlameRig) -> Variables:
  expressions = rig.expression_basis.shape[-1]
  person = Subject(
    shape=jnp.zeros(rig.shape_basis.shape[-1]),
    offset=jnp.zeros_like(rig.template),
    mean_expression=jnp.full(expressions, 0.1),
    expression_variance=jnp.full(expressions, 0.02),
  )
  variables = make(model).init(jax.random.key(0), rig, person)
  params, keys = variables.params, jax.random.split(jax.random.key(1), 4)
  kernel, paint = params["gaussians"]["color"], variables.buffers["encoding"]
  colors = jnp.sin(2.0 * paint @ jax.random.normal(keys[0], (paint.shape[1], 3)) / jnp.sqrt(paint.shape[1]))
  gaussians = {
    **params["gaussians"],
    "color": colors,
    "opacity": params["gaussians"]["opacity"] + jax.random.normal(keys[1], kernel.shape[:1]),
  }
  if "harmonics" in gaussians:
    gaussians["harmonics"] = 0.1 * jax.random.normal(keys[2], gaussians["harmonics"].shape)
  params = {**params, "gaussians": gaussians}
  if "residual" in params:
    last = params["residual"]["output"]
    moved = 0.1 * jax.random.normal(keys[3], last["kernel"].shape) / jnp.sqrt(last["kernel"].shape[0])
    params["residual"] = {**params["residual"], "output": {**last, "kernel": moved}}
  return variables.replace(params=params)


def _motion(expressions: int) -> dict[str, np.ndarray]:
  """Someone who talks, looks around and blinks."""
  rng, time_ = np.random.default_rng(0), np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
  wave = lambda *shape: np.sin(time_.reshape(-1, *[1] * len(shape)) + rng.uniform(0, 2 * np.pi, shape)).astype(np.float32)
  reach = np.array([[0.1, 0.25, 0.05], [0.05, 0.05, 0.02], [0.15, 0, 0], [0.1, 0.1, 0], [0.1, 0.1, 0]], np.float32)
  pose = wave(5, 3) * reach
  pose[:, 2, 0] = np.abs(pose[:, 2, 0])
  lids, place = np.clip(3 * wave(2) - 2, 0, 1), 0.005 * wave(3)
  return {"expression": 0.2 * (1 + wave(expressions)), "pose": pose, "eyelids": lids, "translation": place}


def _anywhere(size: int) -> Camera:
  return Camera(np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32), size, size)


def moments(who: Sitter, at: Any) -> Frame:
  """One moment, or several [*b], without pictures."""
  at = np.asarray(at)
  camera = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*at.shape, *leaf.shape)), who.camera)
  number = jnp.asarray(at, jnp.int32)
  nothing = jnp.zeros((*at.shape, 0, 0))
  return Frame(
    index=number,
    time=number / 25.0,
    shot=jnp.zeros_like(number),
    timestep=number,
    view=jnp.zeros_like(number),
    camera=camera,
    **{name: jnp.asarray(value[at]) for name, value in who.motion.items()},
    image=nothing[..., None][..., [0, 0, 0]],
    mask=nothing,
    parts=nothing.astype(jnp.uint8),
    landmarks=jnp.zeros((*at.shape, 0, 2)),
    valid=jnp.ones(at.shape, bool),
  )


# ---- frames ----------------------------------------------------------------------------------------------------------------------


def _show(who: Sitter, model: SilkyConfig) -> LiveRenderer:
  render = dataclasses.replace(who.config.render, capacity=who.capacity)
  background = jnp.asarray(who.config.background, jnp.float32)
  return live_renderer(make(model), who.variables, who.rig, who.camera, background, config=render)


def pictures(who: Sitter, model: SilkyConfig) -> Float[np.ndarray, "16 h w 3"]:
  """All moments, drawn one by one."""
  show = _show(who, model)
  return np.stack([np.asarray(show(row)[0]) for row in who.rows])


def time_frames(who: Sitter, model: SilkyConfig, batch: int, counts: Counts, exact: Float[np.ndarray, "16 h w 3"] | None) -> dict[str, Any]:
  """A row: frames of one model, `batch` per call.

  Args:
    who: the avatar.
    model: its settings but for residual and precision.
    batch: frames per call.
    counts: how long to measure.
    exact: the same frames in float32; None compares nothing.
  """
  show, rows = _show(who, model), who.rows
  sent = [rows[k] if batch == 1 else rows[(batch * k + np.arange(batch)) % FRAMES] for k in range(FRAMES)]
  calls = max(1, -(-counts.throughput // batch))
  latency, rate = _clock(lambda k: show(sent[k % FRAMES]), counts.latency, calls)
  off = model.residual == "none"
  row: dict[str, Any] = {
    "what": "frame",
    "batch": batch,
    "size": who.camera.width,
    "network": "none" if off else _network_of(model),
  }
  row |= {"precision": "" if off else model.precision, "ms_latency": latency, "frames_per_second": rate * batch}
  drawn = [show(one) for one in sent[: -(-FRAMES // batch)]]
  pairs = max(int(jnp.max(found)) for _, found in drawn)
  row |= {"gaussians": int(jnp.sum(who.variables.buffers["alive"])), "pairs": pairs, "overflow": max(0, pairs - who.capacity)}
  if exact is not None:
    found = np.concatenate([np.asarray(image).reshape(-1, *exact.shape[1:]) for image, _ in drawn])[:FRAMES]
    row["psnr_against_float32"] = decibels(found, exact[: len(found)])
  return row | _device()


def decibels(found: np.ndarray, wanted: np.ndarray) -> float:
  """PSNR over all pixels of pictures 0..1, dB, at most 150."""
  error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
  return min(_MOST_DECIBELS, -10.0 * float(np.log10(error + 1e-30)))


def _clock(call: Callable[[int], Any], single: int, many: int) -> tuple[float, float]:
  """Median milliseconds of a call that is waited for, and calls a second where only the last one is."""
  for k in range(_WARM):
    jax.block_until_ready(call(k))
  spent = []
  for k in range(single):
    begun = time.perf_counter()
    jax.block_until_ready(call(k))
    spent.append(1e3 * (time.perf_counter() - begun))
  begun, last = time.perf_counter(), None
  for k in range(many):
    last = call(k)
  jax.block_until_ready(last)
  return statistics.median(spent), many / (time.perf_counter() - begun)


def _device() -> dict[str, Any]:
  device = jax.devices()[0]
  peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
  return {"device": device.device_kind, "peak_memory_mib": None if peak is None else round(peak / 2**20)}


# ---- training --------------------------------------------------------------------------------------------------------------------


def _with_perceptual(config: ExperimentConfig, wanted: bool) -> ExperimentConfig:
  """The config with every term from the first step on, and LPIPS or not."""
  weight = config.losses.perceptual.weight or 0.1
  return dataclasses.replace(config, losses=dataclasses.replace(config.losses, perceptual=Term(weight if wanted else 0.0)))


def time_training(who: Sitter, config: ExperimentConfig, counts: Counts) -> dict[str, Any]:
  """A row: steps of training with all terms of a config, on batches that lie on the device. The pictures are the avatar's own.

  Where the Gaussians that are trained come to want more tile pairs than the renderer has, it is timed again with more, as a run would grow.
  """
  while True:
    row = _time_training(who, config, counts)
    if not row["overflow"]:
      return row
    who = who._replace(capacity=next_capacity(row["pairs"]))


def _time_training(who: Sitter, config: ExperimentConfig, counts: Counts) -> dict[str, Any]:
  experiment = build(config)
  settings = experiment.step_config(experiment.stages[-1], who.capacity)
  step = jax.jit(make_train_step(experiment.avatar, experiment.optimizer, settings), donate_argnums=0)
  networks: dict[str, Any] = {}
  if "perceptual" in settings.weights:
    networks["perceptual"] = perceptual.cast(perceptual.load(config.losses.perceptual_net), config.losses.perceptual_precision)
  film = _film(who, config)
  networks, batches = jax.device_put(networks), [_batch(who, config, film, k) for k in range(0, FRAMES, 4)]
  # A copy, for the step writes over what it is given.
  state: TrainState = jax.tree.map(jnp.array, create_state(who.variables, experiment.optimizer, seed=0))

  def call(k: int) -> Any:
    nonlocal state
    state, metrics = step(state, who.rig, batches[k % len(batches)], networks)
    return metrics

  latency, rate = _clock(call, counts.latency, counts.throughput)
  metrics = call(0)
  row: dict[str, Any] = {"what": "training step", "size": who.camera.width, "perceptual": config.losses.perceptual_net if networks else ""}
  row |= {"terms": [*settings.weights, *settings.regularizers], "network": _network_of(config.model)}
  row |= {"precision": config.model.precision, "clips": config.clips.clips, "rendered": config.clips.rendered}
  row |= {"ms_latency": latency, "steps_per_second": rate, "gaussians": int(jnp.sum(who.variables.buffers["alive"]))}
  row |= {"pairs": int(state.stats["pairs"]), "overflow": int(state.stats["overflow"]), "psnr": float(metrics["psnr"])}
  return row | _device()


def _film(who: Sitter, config: ExperimentConfig) -> tuple[Array, Array]:
  """Pictures and alphas of all moments."""
  render = dataclasses.replace(config.render, capacity=who.capacity)
  one, background = make_renderer(make(who.config.model), render), jnp.asarray(config.background, jnp.float32)
  drawn = jax.lax.map(lambda frame: one(who.variables, who.rig, frame, background), moments(who, np.arange(FRAMES)))
  return jnp.clip(drawn.image, 0, 1), drawn.alpha


def _batch(who: Sitter, config: ExperimentConfig, film: tuple[Array, Array], start: int) -> Batch:
  """Clips of consecutive moments, the first of each rendered."""
  clips, length, rendered = config.clips.clips, config.clips.length, config.clips.rendered
  at = (start + np.arange(clips)[:, None] + np.arange(length)) % FRAMES
  image, mask = (pictures[at[:, :rendered]] for pictures in film)
  target = moments(who, at[:, :rendered]).replace(image=image, mask=mask, parts=(mask > 0.5).astype(jnp.uint8))
  places = jnp.broadcast_to(jnp.arange(rendered, dtype=jnp.int32), (clips, rendered))
  return jax.device_put(Batch(clip=_clip(who, at), target=target, rendered=places))


def _clip(who: Sitter, at: np.ndarray) -> Frame:
  """Time runs on where moments come round again."""
  frames = moments(who, at)
  numbers = jnp.asarray(at[:, :1] + np.arange(at.shape[1]), jnp.int32)
  return frames.replace(index=numbers, timestep=numbers, time=numbers / 25.0)
