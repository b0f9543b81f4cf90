"""The silky family. `--config=configs/silky.py:VARIANT`.

mlp     (the default) residual network, LPIPS in the second half
coarse  no network: mesh-bound Gaussians alone, the baseline that the network must beat
demo    what `run.py demo` trains on two CPU cores
"""

from configs import default
from silky_jax.config import ConfigError, closest


def get_config(variant="mlp"):
  """The config of a variant."""
  c = default.get_config()
  c.losses.huber = default.term(10.0)  # half a squared error is small: this puts it beside the others
  c.losses.ssim = default.term(0.2)
  c.losses.perceptual = default.term(0.05, start=0.5)
  c.losses.alpha = default.term(0.05)
  c.losses.part_weights = {"mouth_interior": 4.0, "upper_lip": 4.0, "lower_lip": 4.0, "left_eye": 4.0, "right_eye": 4.0}
  c.losses.regularizers = {
    "motion": default.term(1e-3),
    "offset": default.term(1e-3),
    "smoothness": default.term(1e-3),
    "size": default.term(1.0),
  }
  if variant == "mlp":
    c.steps = 30000
  elif variant == "coarse":
    c.steps = 10000
    c.model.residual = "none"
  elif variant == "demo":
    c.steps = 2500
    c.model.width = 64
  else:
    raise ConfigError(f"configs/silky.py: no variant {variant!r}{closest(variant, ('mlp', 'coarse', 'demo'))}")
  return c
