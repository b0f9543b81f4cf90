"""silky_jax: one talking-head video in, an animatable 3D Gaussian head avatar out."""

__version__ = "0.1.0"
