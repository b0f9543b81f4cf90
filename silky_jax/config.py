"""Frozen dataclasses from and to plain dicts, and the error that a user can act on."""


class UserError(Exception):
  """Something a user can mend: the message names the thing, what was wanted, what was found, and the next step.

  The command line prints it without a traceback and exits with status 2.
  """
