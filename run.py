"""`python run.py COMMAND --flags`; without a command, the list of them."""

import sys

from silky_jax.cli import main

if __name__ == "__main__":
  sys.exit(main())
