"""silky_jax: one talking-head video in, an animatable 3D Gaussian head avatar out."""

import os
from importlib import metadata, util

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


def _start_soon_on_gpus() -> None:
  """Leave matrix products on GPUs to cuBLAS: XLA's own kernels for them are chosen by compiling and timing dozens of each.

  On an H200 a training step compiles in 11 s instead of 65 s and is no slower (docs/gpu.md). A flag of the user's stays.
  """
  flag = "--xla_gpu_enable_triton_gemm="
  installed = any(util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))
  if installed and flag not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}false".strip()


_keep_sums_right()
_start_soon_on_gpus()
