"""An avatar as a function from frames to pictures, and frames as batches of one size."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from silky_jax.types import Frame

__all__ = ["RenderFrames", "bytes_of", "chunks", "driving", "join", "play", "play_layers", "take"]

# (frames [t], whose camera has the size wanted) -> (pictures on the background [t, h, w, 3], alpha [t, h, w])
RenderFrames = Callable[[Frame], tuple[Float[Array, "t h w 3"], Float[Array, "t h w"]]]


def driving(frames: Frame) -> Frame:
  """Only what drives an avatar, tracked parameters and camera: no picture, mask, labels or landmarks (they are None)."""
  return frames.replace(image=None, mask=None, parts=None, landmarks=None)


def take(frames: Frame, positions: Int[np.ndarray, "t"]) -> Frame:
  """The frames at some positions of a batch, numpy-backed."""
  return jax.tree.map(lambda a: np.asarray(a)[positions], frames)


def join(parts: list[Frame]) -> Frame:
  """One batch of several, in order; cameras must have one size."""
  return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *parts)


def chunks(count: int, batch: int) -> Iterator[tuple[Int[np.ndarray, "b"], int]]:
  """Positions 0 .. count - 1 in groups of one size, so that a jitted function compiles once.

  Yields:
    The positions, the last group filled up with the last position; how many of them are real.
  """
  for start in range(0, count, batch):
    yield np.minimum(np.arange(start, start + batch), count - 1), min(batch, count - start)


def bytes_of(image: Float[Array | np.ndarray, "*b"]) -> UInt8[np.ndarray, "*b"]:
  """0..1 to 0..255, rounded, clipped."""
  return np.clip(np.round(np.asarray(image) * 255.0), 0, 255).astype(np.uint8)


def play(render: RenderFrames, frames: Frame, *, batch: int = 8) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
  """The avatar's pictures of a batch of frames, one after the other.

  Args:
    render: the avatar.
    frames: batch [t]; pictures in it are not looked at.
    batch: frames rendered at once.

  Yields:
    RGB bytes at the size of the frames' camera.
  """
  return (picture for picture, _ in play_layers(render, frames, batch=batch))


def play_layers(
  render: RenderFrames, frames: Frame, *, batch: int = 8
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]]]:
  """`play`, with the alpha of every picture."""
  frames = driving(frames)
  for positions, kept in chunks(len(frames.index), batch):
    image, alpha = render(take(frames, positions))
    yield from zip(bytes_of(image)[:kept], np.asarray(alpha)[:kept], strict=True)
