"""`python -m silky_kernels`: compile the CPU backend now instead of at its first use, and say what it is."""

import sys

from silky_kernels import native

reason = native.why_not()
print(f"the compiled CPU renderer: {native.best_simd() if reason is None else 'none; plain JAX serves, about 10 times slower: ' + reason}")
sys.exit(0)
