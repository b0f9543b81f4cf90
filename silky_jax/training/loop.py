"""The training loop: where a run starts, its steps, what is written when. No maths.

Start rule, in this order: 1 resume the folder; 2 start from another run's variables (`init_from`); 3 fresh.
Output: `config.json`, `metrics.jsonl`, `renders/<step>.png` (photograph | avatar), `checkpoints/<step>`.
"""

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from silky_jax.config import UserError, differences, output_folder
from silky_jax.data.clips import Batch, Draw, Sequence, load_drivers, plan_clips
from silky_jax.data.images import write_image
from silky_jax.data.loader import prefetch
from silky_jax.losses import perceptual
from silky_jax.models import corrections
from silky_jax.models.drive import Renderer, make_renderer
from silky_jax.progress import Progress
from silky_jax.render.pipeline import next_capacity
from silky_jax.training import checkpoint
from silky_jax.training.experiment import Experiment, ExperimentConfig, build
from silky_jax.training.metrics import JsonLines, Means
from silky_jax.training.shares import make_shares
from silky_jax.training.shortage import PAIR_BYTES, explain, is_shortage
from silky_jax.training.start import fresh_variables, loss_networks, some_frames
from silky_jax.training.step import Stage, create_state, make_train_step
from silky_jax.training.supply import Kept, Program, Supply, make_program, received
from silky_jax.types import Frame, PyTree, Render, TrainState, Variables

__all__ = ["Trained", "train"]

_MIB = 2**20


class Trained(NamedTuple):
  """A finished (or stopped) run, ready to be played."""

  experiment: Experiment
  state: TrainState
  capacity: int  # tile pairs of the renderer
  seconds: float  # spent in this call
  compiles: int  # of the train step, in this call


def train(
  config: ExperimentConfig,
  sequence: Sequence,
  rig: PyTree,
  workdir: Path | str,
  *,
  init_from: Path | str | None = None,
  stop: int | None = None,
  evaluate: Callable[[int, TrainState], dict[str, float]] | None = None,
  say: Callable[[str], None] = print,
) -> Trained:
  """Train an avatar, or finish training it: run again with the same arguments, it goes on from its newest checkpoint.

  Args:
    config: the run.
    sequence: the video; only frames of its "train" split are looked at.
    rig: what the family rides on; must be the rig the sequence was tracked with.
    workdir: folder of the run, made if missing.
    init_from: folder of another run whose variables a fresh run starts from.
    stop: leave after this step, with a checkpoint, as if interrupted there; None runs to the end.
    evaluate: called with (step, state) whenever samples are written; its numbers are logged. It must not train.
    say: prints a line.

  Returns:
    Trained.

  Raises:
    UserError: a folder that cannot be written, or with another config or rig; the differing keys are named; a device
      that has no memory for it: what is large is named, and nothing is half-written.
  """
  run = _Run(config, sequence, rig, Path(workdir), say)
  begun = time.perf_counter()
  try:
    run.start(None if init_from is None else Path(init_from))
    run.go(config.steps if stop is None else min(stop, config.steps), evaluate)
  except jax.errors.JaxRuntimeError as error:
    if not is_shortage(error):
      raise
    raise run.shortage(error) from error
  return Trained(run.experiment, run.state, run.capacity, time.perf_counter() - begun, run.compiles)


class _Run:
  """One call of `train`: the state between its steps."""

  state: TrainState
  capacity: int
  store: checkpoint.Store
  done: int | None = None  # the newest step known to be done

  def __init__(self, config: ExperimentConfig, sequence: Sequence, rig: PyTree, workdir: Path, say: Callable[[str], None]):
    self.experiment = build(config)
    self.config, self.sequence, self.workdir, self.say = config, sequence, workdir, say
    self.rig = jax.device_put(rig)
    self.plan = plan_clips(sequence, config.clips)
    self.drivers = load_drivers(sequence)
    self.supply = Supply(sequence, self.plan, self.drivers, config)
    self.networks = loss_networks(self.experiment)
    self.compiles = 0
    self.scratch = 0  # bytes of the newest compiled step
    self._steps: dict[tuple[int, int], tuple[Callable[..., Any], list[str]]] = {}
    self._shares: dict[tuple[int, int], Callable[..., Any]] = {}
    self._renderer: tuple[int, Renderer] | None = None

  # ---- start

  def start(self, init_from: Path | None) -> None:
    """Resume, or begin fresh; then open the files that the run writes."""
    output_folder(self.workdir)
    (self.workdir / "renders").mkdir(exist_ok=True)
    resumed = self._resume()
    if resumed is None:
      self._begin(init_from)
      checkpoint.write_config(self.workdir, self.config)
    self.store = checkpoint.Store(self.workdir, keep=self.config.loop.keep)
    at = int(self.state.step)
    self.done = at if resumed else None
    self.store.discard_after(at if resumed else -1)
    self.log = JsonLines(self.workdir / "metrics.jsonl", keep_until=at)
    if at < self.config.steps:
      self.supply.keep(self.experiment.step_config(self.experiment.stages[-1], self.capacity), self.networks)
    self._foresee(at)
    self._introduce(at, "resumed" if resumed else "fresh" if init_from is None else f"from {init_from}")

  def _resume(self) -> checkpoint.Restored | None:
    if not (self.workdir / "config.json").is_file():
      return None
    before = checkpoint.read_config(self.workdir)
    # Where pictures lie changes no number, and is what has to change where a device is too small.
    if changed := [line for line in differences(before.to_dict(), self.config.to_dict()) if not line.startswith("loop.resident")]:
      lines = "\n  ".join(changed)
      raise UserError(f"{self.workdir} holds a run with another config; give another --output_dir, or the old values:\n  {lines}")
    try:
      restored = checkpoint.restore_run(self.workdir, rig=(self.sequence.rig_name, self.sequence.rig_hash))
    except checkpoint.NoCheckpoint:
      return None
    self.state, self.capacity = restored.state, restored.meta.capacity
    return restored

  def _begin(self, init_from: Path | None) -> None:
    config = self.config
    variables = fresh_variables(self.experiment, self.rig, self.sequence, self.plan, self.drivers, painted=init_from is None)
    if init_from is not None:
      other = checkpoint.restore_run(init_from, rig=(self.sequence.rig_name, self.sequence.rig_hash)).state.variables
      if jax.tree.map(jnp.shape, other) != jax.tree.map(jnp.shape, variables):
        raise UserError(f"init_from: the variables of {init_from} have other names or shapes than this config makes")
      variables = other
    self.state = create_state(variables, self.experiment.optimizer, seed=config.seed)
    wanted = max(int(result.pairs) for _, result in self._pictures(variables, config.render.capacity, 4))
    self.capacity = max(config.render.capacity, next_capacity(wanted))

  def _foresee(self, at: int) -> None:
    """Trace the last stage now, so that settings which do not fit it are refused before the first step, not half-way."""
    last = self.experiment.stages[-1]
    if at < last.start and at < self.config.steps:
      jax.eval_shape(self._program(last)[0], self.state, self.rig, self.supply.send(at), self.networks, self.supply.kept)

  def _introduce(self, at: int, how: str) -> None:
    device = jax.devices()[0]
    gaussians = int(jnp.sum(self.state.variables.buffers["alive"]))
    sizes = {"state": self.state, "rig": self.rig, "networks": self.networks, "step of frames": self.supply.send(at)}
    sizes |= {"resident": self.supply.kept} if self.supply.kept.film is not None else {}
    budget = ", ".join(f"{name} {_size(tree) / _MIB:.0f} MiB" for name, tree in sizes.items())
    self.say(f"{how}: step {at} of {self.config.steps}, family {self.config.family}, {gaussians} Gaussians")
    self.say(f"device: {device.platform} {device.device_kind}; memory: {budget}")
    self.log.write({"event": "start", "step": at, "how": how, "device": device.device_kind, "gaussians": gaussians})

  # ---- steps

  def go(self, last: int, evaluate: Callable[[int, TrainState], dict[str, float]] | None) -> None:
    """Run to step `last`."""
    first, loop, kept = int(self.state.step), self.config.loop, self.supply.kept
    window, clock = [], _Clock()
    batches = prefetch(self.supply.send, range(first, last), ahead=loop.prefetch)
    # Nothing in here waits for the device but at log lines, shares, samples and checkpoints.
    with Progress("train", self.config.steps, "steps", start=first) as progress, contextlib.closing(batches):
      for step, sent in batches:
        with clock.paused():
          compiled, names = self._compiled(step)
          if loop.shares_every and step and (step % loop.shares_every == 0 or step == self.config.steps - 1):
            self._share(step, sent)
        self.state, metrics = compiled(self.state, self.rig, sent, self.networks, kept)
        window.append((names, metrics))
        done = step + 1
        if done % loop.log_every == 0 or done == last:
          means = self._record(done, window, clock)
          progress.to(done, f"loss {means['loss']:.4f}, psnr {means['psnr']:.1f}")
          window = []
        with clock.paused():
          if done % loop.log_every == 0:
            self._make_room(done)
          if loop.sample_every and (done % loop.sample_every == 0 or done == self.config.steps):
            self._sample(done, evaluate)
          if done % loop.checkpoint_every == 0 or done == last:
            self._save()
    self._save()
    self.store.close()
    self.say(f"step {int(self.state.step)}: {self.compiles} compiles, peak memory {_peak() / _MIB:.0f} MiB")

  def _stage(self, step: int) -> int:
    return max(i for i, s in enumerate(self.experiment.stages) if s.start <= step)

  def _program(self, stage: Stage) -> tuple[Program, list[str]]:
    settings = self.experiment.step_config(stage, self.capacity)
    return make_program(make_train_step(self.experiment.avatar, self.experiment.optimizer, settings))

  def _compiled(self, step: int) -> tuple[Callable[..., Any], list[str]]:
    """The program of this stage and capacity, compiled on first use, and the names of its metrics."""
    stage = self._stage(step)
    key = (stage, self.capacity)
    if key not in self._steps:
      begun = time.perf_counter()
      chosen = self.experiment.stages[stage]
      program, metrics = self._program(chosen)
      given = (self.state, self.rig, self.supply.send(step), self.networks, self.supply.kept)
      compiled = jax.jit(program, donate_argnums=0).lower(*given).compile()
      self.compiles += 1
      seconds = time.perf_counter() - begun
      memory = compiled.memory_analysis()
      self.scratch = memory.temp_size_in_bytes if memory is not None else 0
      scratch = f", {self.scratch / _MIB:.0f} MiB scratch" if memory is not None else ""
      names = ", ".join([*chosen.weights, *chosen.regularizers])
      self.say(f"step {step}: compiled stage {stage + 1} of {len(self.experiment.stages)} in {seconds:.1f} s{scratch}: {names}")
      self.log.write({"event": "compile", "step": step, "stage": stage, "capacity": self.capacity, "seconds": seconds})
      self._steps = {key: (compiled, metrics)}
    return self._steps[key]

  def _share(self, step: int, sent: Batch | Draw) -> None:
    """Log each term's share of the gradient before this step."""
    stage = self._stage(step)
    key = (stage, self.capacity)
    if key not in self._shares:
      chosen = self.experiment.step_config(self.experiment.stages[stage], self.capacity)
      shares = make_shares(self.experiment.avatar, chosen)

      def program(state: TrainState, rig: PyTree, sent: Batch | Draw, networks: PyTree, kept: Kept) -> dict[str, Any]:
        batch, seen = received(sent, kept)
        return shares(state, rig, batch, {**networks, **seen})

      self._shares = {key: jax.jit(program)}
    found = jax.device_get(self._shares[key](self.state, self.rig, sent, self.networks, self.supply.kept))
    self.log.write({"event": "shares", "step": step, **{name: float(share) for name, share in found.items()}})

  def _record(self, done: int, window: list[tuple[list[str], Any]], clock: "_Clock") -> dict[str, float]:
    """Write the means of a window of steps."""
    means = Means.empty()
    for (names, _), metrics in zip(window, jax.device_get([metrics for _, metrics in window]), strict=True):
      means = means.add(dict(zip(names, metrics, strict=True)))
    values, self.done = means.compute(), done
    self.log.write({"step": done, **values, "steps_per_second": len(window) / clock.lap(), "capacity": self.capacity})
    return values

  def _make_room(self, done: int) -> None:
    """Grow the renderer where a picture asked for more tile pairs than it has. At fixed steps only, so that a resumed run does the same."""
    wanted = int(self.state.stats["pairs"])
    if wanted > self.capacity:
      before, self.capacity = self.capacity, next_capacity(wanted)
      self.say(f"step {done}: {wanted} tile pairs, room for {before}: growing to {self.capacity}, which compiles again")
      self.log.write({"event": "grow", "step": done, "from": before, "to": self.capacity})
    self.state = self.state.replace(stats=jax.tree.map(jnp.zeros_like, self.state.stats))

  def shortage(self, error: Exception) -> UserError:
    """What to say of a device without memory."""
    store = getattr(self, "store", None)
    return explain(error, self._sizes(), step=self.done, checkpoints=store.steps() if store else [])

  def _sizes(self) -> dict[str, int]:
    """Bytes of what is large on the device, by name; some of it estimated."""
    losses, size = self.config.losses, self.sequence.size
    kept, state = self.supply.kept, getattr(self, "state", None)
    pictures = self.config.clips.clips * self.config.clips.rendered
    sizes = {"state (parameters, optimiser, buffers)": _size(state), "rig": _size(self.rig), "networks": _size(self.networks)}
    sizes |= {"resident pictures": _size(kept.film), "cached features": _size(kept.targets), "scratch of the compiled step": self.scratch}
    capacity = getattr(self, "capacity", self.config.render.capacity)
    sizes[f"renderer: {capacity} tile pairs a picture, about"] = pictures * capacity * PAIR_BYTES
    if "perceptual" in self.networks:
      numbers = perceptual.activations(self.networks["perceptual"], *size)
      width = 2 if losses.perceptual_precision == "bfloat16" else 4
      sizes[f"LPIPS: activations of {losses.perceptual_net}, about"] = 2 * pictures * numbers * width  # and their gradients
    return sizes

  # ---- what is written

  def _sample(self, step: int, evaluate: Callable[[int, TrainState], dict[str, float]] | None) -> None:
    """Photograph beside avatar, for three training frames."""
    background, rows = np.asarray(self.config.background), []
    for frame, result in self._pictures(self.state.variables, self.capacity, 3):
      mask = np.asarray(frame.mask)[..., None]
      rows.append(np.concatenate([frame.image * mask + background * (1 - mask), result.image], axis=1))
    picture = np.clip(np.concatenate(rows) * 255 + 0.5, 0, 255).astype(np.uint8)
    write_image(self.workdir / "renders" / f"{step:06d}.png", picture)
    if evaluate is not None:
      self.log.write({"event": "evaluate", "step": step, **evaluate(step, self.state)})

  def _save(self) -> None:
    if int(self.state.step) in self.store.steps():
      return
    camera = corrections.calibrate(self.state.variables, _pick(self.drivers, int(self.plan.frames[0]))).camera
    identity = {"rig_name": self.sequence.rig_name, "rig_hash": self.sequence.rig_hash, "camera": camera, "fps": self.sequence.fps}
    self.store.save(self.state, family=self.config.family, capacity=self.capacity, **identity)

  def _pictures(self, variables: Variables, capacity: int, count: int) -> Iterator[tuple[Frame, Render]]:
    """Training frames and their renders, on the config's background."""
    if self._renderer is None or self._renderer[0] != capacity:
      config = self.experiment.step_config(self.experiment.stages[0], capacity).render
      self._renderer = capacity, make_renderer(self.experiment.avatar, config)
    frames = some_frames(self.sequence, self.plan, count)
    for i in range(len(frames.index)):
      frame = corrections.correct(variables, _pick(frames, i))
      yield frame, self._renderer[1](variables, self.rig, frame, jnp.asarray(self.config.background))


class _Clock:
  """Seconds spent in steps, without compiling and writing."""

  def __init__(self):
    self._since = time.perf_counter()

  def lap(self) -> float:
    """Seconds since the last lap, less the pauses."""
    now = time.perf_counter()
    spent, self._since = now - self._since, now
    return max(spent, 1e-9)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Do not count what happens inside."""
    begun = time.perf_counter()
    yield
    self._since += time.perf_counter() - begun


def _pick(tree: PyTree, i: int) -> PyTree:
  return jax.tree.map(lambda leaf: leaf[i], tree)


def _size(tree: PyTree) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _peak() -> float:
  """Bytes: of the device where it can tell, else of the process."""
  stats = jax.devices()[0].memory_stats() or {}
  return float(stats.get("peak_bytes_in_use", 0) or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
