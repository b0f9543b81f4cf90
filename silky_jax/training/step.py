"""The one train step: deform, render, compare, regularise, update. Pure; the caller jits it.

A loss term whose weight is 0 is not in the compiled program. A term may join late: every distinct start makes another compiled step, at
most three a run, chosen on the host.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from silky_jax.config import ConfigError, closest
from silky_jax.data.clips import Batch
from silky_jax.flame.regions import PARTS
from silky_jax.losses import perceptual, photometric
from silky_jax.losses.matting import unmix_outline
from silky_jax.models import corrections
from silky_jax.models.protocol import Avatar
from silky_jax.render.pipeline import RenderConfig, render
from silky_jax.types import Frame, Prediction, PyTree, TrainState, Variables

__all__ = ["LossConfig", "Stage", "StepConfig", "Term", "TrainStep", "create_state", "make_train_step", "part_ids", "stages"]

TrainStep = Callable[[TrainState, PyTree, Batch, PyTree], tuple[TrainState, dict[str, Array]]]
T = TypeVar("T")
_MOST_STAGES = 3


@dataclasses.dataclass(frozen=True)
class Term:
  """One term of the loss."""

  weight: float = 0.0  # 0 removes the term
  start: float = 0.0  # share of the run after which it joins


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What is minimised. Photometric terms are means over the whole picture."""

  huber: Term = Term(1.0)
  l1: Term = Term()
  ssim: Term = Term()  # 1 - SSIM
  perceptual: Term = Term()  # LPIPS
  alpha: Term = Term()  # L1 between the render's alpha and the mask
  perceptual_net: Literal["alexnet", "vgg16"] = "alexnet"
  # Extra weight of a label's pixels in huber and l1, by its name in PARTS. The released code has mouth 40 on its three mouth labels.
  part_weights: dict[str, float] = dataclasses.field(default_factory=dict)
  # Labels whose pixels say nothing: what stands there is neither head nor background. Taught to be background, the rim of the neck
  # that the collar hides would turn transparent, and be missing from every other side.
  ignored_parts: tuple[str, ...] = ("cloth",)
  # Pixels on either side of the mask's edge in which head and background are told apart before anything is compared; 0: none.
  outline: int = 2
  regularizers: dict[str, Term] = dataclasses.field(default_factory=dict)  # by the family's names


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """Static settings of one compiled step."""

  weights: Mapping[str, float]  # photometric terms in use, all not 0
  regularizers: Mapping[str, float]  # the family's terms in use, all not 0
  part_table: tuple[float, ...]
  ignored: tuple[int, ...]  # label ids
  background: tuple[float, float, float] | None  # None: a random colour per clip and step
  render: RenderConfig
  outline: int = 0  # px


class Stage(NamedTuple):
  """A stretch of the run with one compiled step."""

  start: int  # first step
  weights: dict[str, float]
  regularizers: dict[str, float]


def stages(config: LossConfig, steps: int) -> list[Stage]:
  """Cut a run where terms join.

  Args:
    config: the loss.
    steps: length of the run.

  Raises:
    ConfigError: more than three stages, a negative weight, a start outside 0..1, or an outline outside 0..16.
  """
  if not 0 <= config.outline <= 16:
    raise ConfigError(f"losses.outline: expected 0 to 16 px, got {config.outline}")
  images = {name: getattr(config, name) for name in _IMAGE_TERMS}
  terms = {**images, **{f"regularizers.{name}": term for name, term in config.regularizers.items()}}
  for name, term in terms.items():
    if term.weight < 0 or not 0 <= term.start <= 1:
      raise ConfigError(f"losses.{name}: expected weight >= 0 and start in 0..1, got {term}")
  starts = sorted({0, *(round(term.start * steps) for term in terms.values() if term.weight)})
  if len(starts) > _MOST_STAGES:
    raise ConfigError(f"losses: terms start at {starts}, which makes {len(starts)} compiled steps; at most {_MOST_STAGES} are allowed")

  def active(group: Mapping[str, Term], start: int) -> dict[str, float]:
    return {name: term.weight for name, term in group.items() if term.weight and round(term.start * steps) <= start}

  return [Stage(start, active(images, start), active(config.regularizers, start)) for start in starts]


def part_table(weights: Mapping[str, float]) -> tuple[float, ...]:
  """Extra weight per label id, from weights by label name.

  Raises:
    ConfigError: a name that is no label.
  """
  for name in weights:
    if name not in PARTS:
      raise ConfigError(f"losses.part_weights: no label {name!r}{closest(name, PARTS)}")
  return tuple(float(weights.get(name, 0.0)) for name in PARTS)


def part_ids(names: Sequence[str]) -> tuple[int, ...]:
  """Label ids by name.

  Raises:
    ConfigError: a name that is no label.
  """
  for name in names:
    if name not in PARTS:
      raise ConfigError(f"losses.ignored_parts: no label {name!r}{closest(name, PARTS)}")
  return tuple(PARTS.index(name) for name in names)


def create_state(variables: Variables, optimizer: optax.GradientTransformation, *, seed: int) -> TrainState:
  """The state before step 0, every array with a strong type (a weak one would compile the step twice).

  Args:
    variables: from the family's init.
    optimizer: from `make_optimizer`.
    seed: of all randomness in the run.
  """
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    variables=variables,
    opt_state=optimizer.init(variables.params),
    stats={"pairs": jnp.zeros((), jnp.int32), "overflow": jnp.zeros((), jnp.int32)},
    key=jax.random.key_data(jax.random.key(seed)),
  )
  return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


def make_train_step(avatar: Avatar, optimizer: optax.GradientTransformation, config: StepConfig) -> TrainStep:
  """The step for one stage.

  Args:
    avatar: the family.
    optimizer: over the family's params.
    config: static settings.

  Returns:
    step(state, rig, batch, networks) -> (state, metrics). `networks` holds what losses need: `{"perceptual": load(net)}`, or `{}`.
    Metrics are scalars: each term unweighted, `loss`, `psnr` (dB, whole picture), `gradient_norm`, `pairs`, `overflow`, and `skipped`,
    1 where loss or gradient were not finite: then nothing is changed but the step count. `state.stats` keeps the largest `pairs` and
    `overflow` since the loop last cleared them.

  Raises:
    ConfigError: at the first call, a regulariser the family does not have.
  """
  look_back = any(name in avatar.clip_terms for name in config.regularizers)

  def total(params: PyTree, state: TrainState, rig: PyTree, batch: Batch, networks: PyTree) -> tuple[Array, dict[str, Array]]:
    variables = state.variables.replace(params=params)
    background = _background(config, state, batch.target.index.shape[0])
    terms, weights = _compare(avatar, config, variables, rig, batch, networks, background, look_back)
    loss = sum((weights[name] * terms[name] for name in weights), start=jnp.zeros(()))
    return loss, {**terms, "loss": loss}

  def step(state: TrainState, rig: PyTree, batch: Batch, networks: PyTree) -> tuple[TrainState, dict[str, Array]]:
    params = state.variables.params
    (loss, metrics), gradient = jax.value_and_grad(total, has_aux=True)(params, state, rig, batch, networks)
    norm = optax.global_norm(gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, params)
    sound = jnp.isfinite(loss) & jnp.isfinite(norm)
    params, opt_state = _where(sound, (optax.apply_updates(params, updates), opt_state), (params, state.opt_state))
    stats = {name: jnp.maximum(state.stats[name], metrics[name]) for name in state.stats}
    new = state.replace(step=state.step + 1, variables=state.variables.replace(params=params), opt_state=opt_state, stats=stats)
    return new, {**metrics, "gradient_norm": norm, "skipped": 1.0 - sound}

  return step


# ---- the parts of a step ---------------------------------------------------------------------------------------------------------


def _compare(
  avatar: Avatar,
  config: StepConfig,
  variables: Variables,
  rig: PyTree,
  batch: Batch,
  networks: PyTree,
  background: Float[Array, "b 3"],
  look_back: bool,
) -> tuple[dict[str, Array], dict[str, float]]:
  """All terms by name, unweighted, and their weights."""
  clips, rendered = batch.target.index.shape
  target = corrections.correct(variables, batch.target)
  clip = corrections.correct(variables, batch.clip) if look_back else target
  whole = look_back and avatar.deforms_clip
  seen = clip if whole else target

  def deform(frame: Frame) -> tuple[Any, Any]:
    return avatar.deform(variables, rig, frame)

  moved, aux = _unflatten(_each(deform, _flatten(seen)), seen.index.shape)
  shown = jax.vmap(lambda tree, at: jax.tree.map(lambda leaf: leaf[at], tree))(moved, batch.rendered) if whole else moved
  target = _flatten(target)
  backgrounds = jnp.repeat(background, rendered, axis=0)

  def picture(gaussians: Any, camera: Any, color: Array) -> tuple[Any, Array]:
    colors = color if avatar.features == 3 else jnp.zeros(avatar.features).at[:3].set(color)
    result = render(gaussians, camera, colors, config=config.render)
    return result, avatar.decode(variables, result.image)

  result, image = _each(picture, _flatten(shown), target.camera, backgrounds)
  terms = _image_terms(config, image, result.alpha, target, backgrounds, networks)
  terms |= {"pairs": jnp.max(result.pairs), "overflow": jnp.max(result.overflow)}
  if config.regularizers:
    grouped = _unflatten((result, image), (clips, rendered))
    own = avatar.regularize(variables, rig, clip, Prediction(moved, *grouped, aux))
    if corrections.KEY in variables.params:
      own[corrections.KEY] = corrections.prior(variables, batch.target)
    for name in config.regularizers:
      if name not in own:
        raise ConfigError(f"losses.regularizers: the family has no term {name!r}{closest(name, own)}")
    terms |= {name: term() if callable(term := own[name]) else term for name in config.regularizers}
  return terms, {**config.weights, **config.regularizers}


def _image_terms(
  config: StepConfig, image: Array, alpha: Array, target: Frame, background: Float[Array, "r 3"], networks: PyTree
) -> dict[str, Array]:
  foreground, matte = target.image, target.mask
  if config.outline:
    foreground, matte = unmix_outline(foreground, matte, config.outline)
  mask = matte[..., None]
  truth = foreground * mask + background[:, None, None, :] * (1.0 - mask)
  if config.ignored:
    ignored = jnp.isin(target.parts, jnp.asarray(config.ignored))
    image = jnp.where(ignored[..., None], truth, image)
    alpha = jnp.where(ignored, matte, alpha)
  pixels = photometric.part_weights(target.parts, jnp.asarray(config.part_table)) if any(config.part_table) else None
  compute: dict[str, Callable[[], Array]] = {
    "huber": lambda: photometric.huber(image, truth, pixels),
    "l1": lambda: photometric.l1(image, truth, pixels),
    "ssim": lambda: 1.0 - photometric.ssim(image, truth),
    "perceptual": lambda: perceptual.lpips(networks["perceptual"], image, truth),
    "alpha": lambda: photometric.l1(alpha[..., None], mask),
  }
  terms = {name: jnp.mean(compute[name]()) for name in config.weights}
  return terms | {"psnr": jnp.mean(-10.0 * jnp.log10(jnp.mean((image - truth) ** 2, axis=(1, 2, 3)) + 1e-10))}


_IMAGE_TERMS = ("huber", "l1", "ssim", "perceptual", "alpha")


def _background(config: StepConfig, state: TrainState, clips: int) -> Float[Array, "b 3"]:
  """A fixed colour, or one per clip that depends on the run's key and the step alone."""
  if config.background is not None:
    return jnp.broadcast_to(jnp.asarray(config.background, jnp.float32), (clips, 3))
  key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
  return jax.random.uniform(key, (clips, 3))


def _flatten(tree: T) -> T:
  """[b, t, ...] -> [b t, ...]."""
  return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), tree)


def _unflatten(tree: T, shape: tuple[int, ...]) -> T:
  return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), tree)


def _each(f: Callable[..., T], *trees: Any) -> T:
  """vmap, but a batch of one is called plainly: the usual case on a CPU, where batching small kernels costs more than it gives."""
  if jax.tree.leaves(trees)[0].shape[0] > 1:
    return jax.vmap(f)(*trees)
  return jax.tree.map(lambda leaf: leaf[None], f(*jax.tree.map(lambda leaf: leaf[0], trees)))


def _where(condition: Array, new: T, old: T) -> T:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
