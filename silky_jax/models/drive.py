"""Playing an avatar: frames in, pictures out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from silky_jax.models.protocol import Avatar
from silky_jax.render.pipeline import RenderConfig, grow, render
from silky_jax.types import Frame, PyTree, Render, Variables

__all__ = ["FramesRenderer", "Renderer", "frames_renderer", "make_renderer"]

Renderer = Callable[[Variables, PyTree, Frame, Float[Array, "3"]], Render]
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
