"""Playing an avatar: frames in, pictures out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from silky_jax.models.protocol import Avatar
from silky_jax.render.pipeline import RenderConfig, grow, render
from silky_jax.types import Camera, Frame, PyTree, Render, Variables

__all__ = ["FramesRenderer", "LiveRenderer", "Renderer", "frames_renderer", "live_renderer", "make_renderer", "pack_motion"]

Renderer = Callable[[Variables, PyTree, Frame, Float[Array, "3"]], Render]
LiveRenderer = Callable[[np.ndarray], tuple[Float[Array, "*b h w 3"], Int[Array, "*b"]]]
FramesRenderer = Callable[[Frame], tuple[Float[Array, "t h w 3"], Float[Array, "t h w"]]]


def make_renderer(avatar: Avatar, config: RenderConfig) -> Renderer:
  """One frame to one picture, jitted: compiles once per picture size.

  Args:
    avatar: the family.
    config: static settings; look at `overflow` in the result, or use `frames_renderer`, which does.

  Returns:
    (variables, rig, frame, background [3]) -> Render, its image decoded to [h, w, 3]. Pictures in the frame are not looked at.
  """

  @jax.jit
  def one(variables: Variables, rig: PyTree, frame: Frame, background: Float[Array, "3"]) -> Render:
    gaussians, _ = avatar.deform(variables, rig, frame)
    color = background if avatar.features == 3 else jnp.zeros(avatar.features).at[:3].set(background)
    result = render(gaussians, frame.camera, color, config=config)
    return result.replace(image=avatar.decode(variables, result.image))

  return one


def frames_renderer(
  avatar: Avatar, variables: Variables, rig: PyTree, background: Float[Array, "3"], *, config: RenderConfig
) -> FramesRenderer:
  """A trained avatar as a function of frames alone; frames are rendered one after the other in one compiled program.

  A picture that needs more tile pairs than the capacity is never returned with holes: the capacity grows and it is rendered again.

  Args:
    avatar: the family.
    variables: its arrays.
    rig: what it rides on.
    background: colour behind the head.
    config: static settings to start from.

  Returns:
    (frames [t]) -> (pictures [t, h, w, 3], alpha [t, h, w]). One compile per number of frames and picture size.
  """
  current = config

  @jax.jit(static_argnames="settings")
  def many(variables: Variables, rig: PyTree, frames: Frame, settings: RenderConfig) -> tuple[Array, Array, Array]:
    one = make_renderer(avatar, settings)

    def shown(frame: Frame) -> tuple[Array, Array, Array]:
      result = one(variables, rig, frame, background)
      return result.image, result.alpha, result.pairs

    return jax.lax.map(shown, frames)

  def show(frames: Frame) -> tuple[Float[Array, "t h w 3"], Float[Array, "t h w"]]:
    nonlocal current
    while True:
      image, alpha, pairs = many(variables, rig, frames, current)
      wanted = int(jnp.max(pairs))
      if wanted <= current.capacity:
        return image, alpha
      current = grow(current, wanted)

  return show


def pack_motion(
  expression: Float[np.ndarray, "*b e"],
  pose: Float[np.ndarray, "*b 5 3"],
  eyelids: Float[np.ndarray, "*b 2"],
  translation: Float[np.ndarray, "*b 3"],
) -> Float[np.ndarray, "*b m"]:
  """What moves a head, as one row for `live_renderer`: one copy to the device, not four. Units as in `Frame`."""
  return np.concatenate([expression, pose.reshape(*pose.shape[:-2], 15), eyelids, translation], axis=-1).astype(np.float32)


def live_renderer(
  avatar: Avatar, variables: Variables, rig: PyTree, camera: Camera, background: Float[Array, "3"], *, config: RenderConfig
) -> LiveRenderer:
  """A trained avatar as a function of what the host knows anew every frame; all else stays on the device. Nothing is waited for.

  Args:
    avatar: the family.
    variables: its arrays.
    rig: what it rides on.
    camera: of all frames.
    background: colour behind the head.
    config: static settings. The caller compares `pairs` with the capacity: a picture that wanted more has holes.

  Returns:
    (rows of `pack_motion` [m], or [b, m] for several pictures at once) -> (pictures [*b, h, w, 3], pairs [*b]).
  """
  # Arguments of a jitted function are looked through at every call: a list is, faster than nested classes.
  arrays, tree = jax.tree.flatten((variables, rig, camera, background))
  arrays = jax.device_put(arrays)
  one = make_renderer(avatar, config)

  @jax.jit
  def program(arrays: list[Array], motion: Float[Array, "*b m"]) -> tuple[Array, Array]:
    variables, rig, camera, background = jax.tree.unflatten(tree, arrays)

    def shown(row: Float[Array, "m"]) -> tuple[Array, Array]:
      result = one(variables, rig, _frame(row, camera), background)
      return result.image, result.pairs

    return jax.vmap(shown)(motion) if motion.ndim == 2 else shown(motion)

  return lambda motion: program(arrays, motion)


def _frame(row: Float[Array, "m"], camera: Camera) -> Frame:
  expression, pose, eyelids, translation = jnp.split(row, [row.shape[0] - 20, row.shape[0] - 5, row.shape[0] - 3])
  zero = jnp.zeros((), jnp.int32)
  return Frame(
    index=zero,
    time=jnp.zeros(()),
    shot=zero,
    timestep=zero,
    view=zero,
    camera=camera,
    expression=expression,
    pose=pose.reshape(5, 3),
    eyelids=eyelids,
    translation=translation,
    image=None,
    mask=None,
    parts=None,
    landmarks=None,
    valid=jnp.ones((), bool),
  )
