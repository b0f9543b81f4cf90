"""What to say when the device has no more memory."""

import re
from collections.abc import Mapping

import jax

from silky_jax.config import UserError

__all__ = ["PAIR_BYTES", "explain", "is_shortage"]

# Of a tile pair in the plain renderer: its sort key twice (16), the splat's number (4), and ten numbers of its splat with their gradients
# (80). A rough figure, to tell what is large from what is not.
PAIR_BYTES = 100
_MIB = 2**20
_REMEDIES = (
  ("resident pictures", "--config.loop.resident=no"),
  ("cached features", "--config.losses.cache_targets=False"),
  ("LPIPS", "--config.losses.perceptual_net=alexnet"),
  ("LPIPS", "--config.losses.perceptual_precision=bfloat16"),
)
_ALWAYS = ("--config.clips.rendered", "--config.model.uv_size", "the dataset's resolution (`preprocess --resolution`)")


def is_shortage(error: BaseException) -> bool:
  """Whether an error is the device's lack of memory."""
  return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def explain(error: BaseException, sizes: Mapping[str, int], *, step: int | None, checkpoints: list[int]) -> UserError:
  """An error that says what takes the memory and which settings lower it.

  Args:
    error: see `is_shortage`.
    sizes: bytes by name; those of 0 are left out.
    step: the newest step that is known to be done; None before the first.
    checkpoints: steps that can be resumed.
  """
  asked = re.search(r"(?:allocate|allocating|allocation of)\s+([\d.]+ ?\w+)", str(error))
  wanted = f" (it asked for {asked[1]})" if asked else ""
  found = sorted(((size, name) for name, size in sizes.items() if size), reverse=True)
  table = "\n".join(f"  {size / _MIB:10.1f} MiB  {name}" for size, name in found)
  remedies = [flag for key, flag in _REMEDIES if any(key in name for _, name in found)]
  kept = f"checkpoints {checkpoints} are as they were" if checkpoints else "there is no checkpoint yet"
  when = "before the first step" if step is None else f"after step {step}"
  return UserError(
    f"the device ran out of memory {when}{wanted}; {kept}. What takes most, some of it estimated:\n{table}\n"
    f"Lower one of: {', '.join((*remedies, *_ALWAYS))}. All but --config.loop.resident need another --output_dir."
  )
