"""Exact products: asked for while tracing, wherever the code says nothing of its own."""

import inspect

import jax
import jax.numpy as jnp

from silky_jax.math.precision import exact

_HIGHEST = "precision = [HIGHEST, HIGHEST]"


def test_products_and_their_gradients_are_exact():
  product = exact(lambda a, b: jnp.sum((a @ b) ** 2))
  text = jax.jit(jax.grad(product)).lower(jnp.ones((3, 4)), jnp.ones((4, 2))).as_text()
  assert text.count("dot_general") == text.count(_HIGHEST) == 2


def test_a_product_that_says_its_own_keeps_it():
  product = exact(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.DEFAULT))
  assert _HIGHEST not in jax.jit(product).lower(jnp.ones((3, 3))).as_text()


def test_the_setting_ends_with_the_function():
  before = jax.config.jax_default_matmul_precision
  exact(lambda: None)()
  assert jax.config.jax_default_matmul_precision == before


def test_the_signature_stays():
  def some(a: int, *, b: int = 2) -> int:
    return a + b

  assert inspect.signature(exact(some)) == inspect.signature(some) and exact(some)(1, b=3) == 4
