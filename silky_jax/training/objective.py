"""What a step minimises: deform, render, compare, regularise. Pure functions of parameters and a batch."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.config import ConfigError, closest
from silky_jax.data.clips import Batch
from silky_jax.losses import perceptual, photometric
from silky_jax.losses.matting import unmix_outline
from silky_jax.models import corrections
from silky_jax.models.protocol import Avatar, Measured
from silky_jax.render.pipeline import RenderConfig, render
from silky_jax.types import Frame, Prediction, PyTree, TrainState, Variables

__all__ = ["IMAGE_TERMS", "Objective", "Ramp", "StepConfig", "Weighed", "exact_products", "make_objective", "truth"]

IMAGE_TERMS = ("huber", "l1", "ssim", "perceptual", "alpha")
T = TypeVar("T")


class Ramp(NamedTuple):
  """A weight that grows from 0."""

  start: int  # step
  length: int  # steps to all but 0.5 % of it


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
  precision: perceptual.Kind = "float32"  # of LPIPS
  ramps: Mapping[str, Ramp] = dataclasses.field(default_factory=dict)  # by the name of the term; the others have their weight at once


class Weighed(NamedTuple):
  """The objective of one batch."""

  parts: dict[str, Array]  # each term times its weight; the loss is their sum
  metrics: dict[str, Array]  # scalars: each term unweighted, and what there is to report
  memory: dict[str, Any]  # for `buffers["memory"]` of the next step


Objective = Callable[[PyTree, TrainState, PyTree, Batch, PyTree], Weighed]


def exact_products() -> contextlib.AbstractContextManager[Any]:
  """While a program is traced: float32 products are float32 also on a GPU, which would else compute them in tf32, wherever the code that
  multiplies says nothing of its own."""
  return jax.default_matmul_precision("highest")


def make_objective(avatar: Avatar, config: StepConfig) -> Objective:
  """The objective of one stage.

  Args:
    avatar: the family.
    config: static settings.

  Returns:
    objective(params, state, rig, batch, networks) -> Weighed; `state` gives all but the parameters. `networks` may hold "targets": what
    LPIPS' network sees in the batch's pictures (`training/targets.py`), where that is known.

  Raises:
    ConfigError: at the first call, a regulariser the family does not have.
  """
  look_back = any(name in avatar.clip_terms for name in config.regularizers)

  def objective(params: PyTree, state: TrainState, rig: PyTree, batch: Batch, networks: PyTree) -> Weighed:
    variables = state.variables.replace(params=params)
    background = _background(config, state, batch.target.index.shape[0])
    with exact_products():
      terms, weights, memory = _compare(avatar, config, variables, rig, batch, networks, background, look_back)
    parts = {name: weight * _grown(config.ramps.get(name), state.step) * terms[name] for name, weight in weights.items()}
    return Weighed(parts, terms, memory)

  return objective


def _grown(ramp: Ramp | None, step: Array) -> Array | float:
  """tanh(3 n / N), the hyperbolic ramp of the spec (5.4)."""
  if ramp is None or not ramp.length:
    return 1.0
  return jnp.tanh(3.0 * (step + 1 - ramp.start) / ramp.length)


def _compare(
  avatar: Avatar,
  config: StepConfig,
  variables: Variables,
  rig: PyTree,
  batch: Batch,
  networks: PyTree,
  background: Float[Array, "b 3"],
  look_back: bool,
) -> tuple[dict[str, Array], dict[str, float], dict[str, Any]]:
  """All terms by name, unweighted; their weights; and what they want to remember."""
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
  memory: dict[str, Any] = {}
  if config.regularizers:
    grouped = _unflatten((result, image), (clips, rendered))
    own = avatar.regularize(variables, rig, clip, Prediction(moved, *grouped, aux))
    if corrections.KEY in variables.params:
      own[corrections.KEY] = corrections.prior(variables, batch.target, batch.clip)
    for name in config.regularizers:
      if name not in own:
        raise ConfigError(f"losses.regularizers: the family has no term {name!r}{closest(name, own)}")
    for name in config.regularizers:
      term = own[name]
      found = term() if callable(term) else term
      found = found if isinstance(found, Measured) else Measured(found)
      memory |= dict(found.memory)
      terms |= {name: found.value, **{f"{name}_{key}": value for key, value in found.report.items()}}
  return terms, {**config.weights, **config.regularizers}, memory


def _image_terms(
  config: StepConfig, image: Array, alpha: Array, target: Frame, background: Float[Array, "r 3"], networks: PyTree
) -> dict[str, Array]:
  true, matte = truth(config, target, background)
  if config.ignored:
    ignored = jnp.isin(target.parts, jnp.asarray(config.ignored))
    image = jnp.where(ignored[..., None], true, image)
    alpha = jnp.where(ignored, matte, alpha)
  pixels = photometric.part_weights(target.parts, jnp.asarray(config.part_table)) if any(config.part_table) else None
  compute: dict[str, Callable[[], Array]] = {
    "huber": lambda: photometric.huber(image, true, pixels),
    "l1": lambda: photometric.l1(image, true, pixels),
    "ssim": lambda: 1.0 - photometric.ssim(image, true),
    "perceptual": lambda: perceptual.lpips(
      networks["perceptual"], image, true, precision=config.precision, target_taps=networks.get("targets")
    ),
    "alpha": lambda: photometric.l1(alpha[..., None], matte[..., None]),
  }
  terms = {name: jnp.mean(compute[name]()) for name in config.weights}
  return terms | {"psnr": jnp.mean(-10.0 * jnp.log10(jnp.mean((image - true) ** 2, axis=(1, 2, 3)) + 1e-10))}


def truth(config: StepConfig, target: Frame, background: Float[Array, "r 3"]) -> tuple[Float[Array, "r h w 3"], Float[Array, "r h w"]]:
  """What a picture should look like on a background, and its matte: a function of the frame, the background and settings alone.

  Args:
    config: static settings.
    target: frames [r] with pictures.
    background: colours.
  """
  foreground, matte = target.image, target.mask
  if config.outline:
    foreground, matte = unmix_outline(foreground, matte, config.outline)
  mask = matte[..., None]
  return foreground * mask + background[:, None, None, :] * (1.0 - mask), matte


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
