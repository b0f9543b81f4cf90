"""`python -m silky_kernels.splat`: compile the CPU kernel now instead of at its first use, and say what it is."""

import sys

from silky_kernels.splat import cpu

reason = cpu.why_not()
print(f"the compiled CPU rasterizer: {cpu.best_simd() if reason is None else 'none; plain JAX serves, about 10 times slower: ' + reason}")
sys.exit(0)
