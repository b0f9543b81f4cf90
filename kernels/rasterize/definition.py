"""What rasterize_tiles means, in the fewest lines: every tile against every pair, gradients by autodiff.

This is the judge of the fast versions. It is quadratic in memory per tile and has no shortcut: use it on small cases.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["LARGEST_ALPHA", "SMALLEST_ALPHA", "STOP_TRANSMITTANCE", "rasterize"]

LARGEST_ALPHA = 0.999  # keeps 1 / (1 - alpha) in the gradient below 1e3
SMALLEST_ALPHA = 1 / 255  # one step of an 8-bit picture: 3D Gaussian splatting (Kerbl et al. 2023), appendix C
STOP_TRANSMITTANCE = 1e-4  # the same place: compositing ends before the transmittance would fall to this


def rasterize(
  means2d: Float[Array, "n 2"],
  conics: Float[Array, "n 3"],
  features: Float[Array, "n c"],
  opacities: Float[Array, "n"],
  depths: Float[Array, "n"],
  pairs: Int[Array, "p"],
  tile_starts: Int[Array, "q"],
  background: Float[Array, "c"],
  width: int,
  height: int,
  tile: int,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"], Float[Array, "h w"]]:
  """See `api.rasterize_tiles`; returns (image, alpha, depth)."""
  columns, rows = -(-width // tile), -(-height // tile)
  slots = jnp.arange(pairs.shape[0])
  carried = jnp.concatenate([features, jnp.ones_like(depths)[:, None], depths[:, None]], axis=1)[pairs]
  means2d, conics, opacities = means2d[pairs], conics[pairs], opacities[pairs]

  def one_tile(index: Int[Array, ""]) -> Float[Array, "y x f"]:
    x = (index % columns) * tile + jnp.arange(tile)[None, :, None] + 0.5 - means2d[:, 0]
    y = (index // columns) * tile + jnp.arange(tile)[:, None, None] + 0.5 - means2d[:, 1]
    power = -0.5 * (conics[:, 0] * x * x + conics[:, 2] * y * y) - conics[:, 1] * x * y
    inside = (slots >= tile_starts[index]) & (slots < tile_starts[index + 1])
    alpha = jnp.minimum(opacities * jnp.exp(jnp.minimum(power, 0)), LARGEST_ALPHA)
    alpha = jnp.where(inside & (power <= 0) & (alpha >= SMALLEST_ALPHA), alpha, 0)
    behind = jnp.cumprod(1 - alpha, axis=2)
    before = jnp.concatenate([jnp.ones_like(behind[..., :1]), behind[..., :-1]], axis=2)
    weights = jnp.where(behind > STOP_TRANSMITTANCE, alpha * before, 0)
    return weights @ carried

  tiles = jax.lax.map(one_tile, jnp.arange(columns * rows))
  whole = tiles.reshape(rows, columns, tile, tile, -1).transpose(0, 2, 1, 3, 4).reshape(rows * tile, columns * tile, -1)
  image, alpha, depth = whole[:height, :width, :-2], whole[:height, :width, -2], whole[:height, :width, -1]
  return image + (1 - alpha)[..., None] * background, alpha, depth
