"""silky_jax: one talking-head video in, an animatable 3D Gaussian head avatar out."""

import os
from importlib import metadata

__version__ = "0.1.0"


def _keep_sums_right() -> None:
  """jaxlib 0.10.2 to 0.11 hand CPU reductions to a library that returns wrong sums (jax-ml/jax#39103) or crashes; ask them not to.

  Ours pins another version, but a user's environment may not. XLA reads the variable when jax first touches a device, so
  this works as long as silky_jax is imported before that.
  """
  version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:3] if part.isdigit())
  flag = "--xla_cpu_experimental_ynn_fusion_type="
  if (0, 10, 2) <= version < (0, 12) and flag not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}-reduce".strip()


_keep_sums_right()
