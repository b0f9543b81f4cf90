"""Sinkhorn divergences by a loop in NumPy, float64: the judge of the solver. Cost |x - y|^2 / 2."""

import numpy as np


def _softmin(eps, cost, potential, log_weight):
  exponent = log_weight[None, :] + (potential[None, :] - cost) / eps
  top = exponent.max(axis=1, keepdims=True)
  return -eps * (top[:, 0] + np.log(np.exp(exponent - top).sum(axis=1)))


def _transport(x, a, y, b, eps, rho, steps):
  """Dual value of entropic transport at its optimum; rho = inf: balanced."""
  cost = 0.5 * np.sum((x[:, None] - y[None]) ** 2, axis=-1)
  damping = 1.0 if np.isinf(rho) else 1 / (1 + eps / rho)
  f, g = np.zeros(len(x)), np.zeros(len(y))
  for _ in range(steps):
    f = damping * _softmin(eps, cost, g, np.log(b))
    g = damping * _softmin(eps, cost.T, f, np.log(a))
  plan = np.exp((f[:, None] + g[None] - cost) / eps) * a[:, None] * b[None]
  entropy = -eps * (plan.sum() - 1)
  if np.isinf(rho):
    return a @ f + b @ g + entropy
  return -rho * (a @ (np.exp(-f / rho) - 1)) - rho * (b @ (np.exp(-g / rho) - 1)) + entropy


def divergence(x, a, y, b, *, blur, reach=None, steps=3000):
  """S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2; masses sum to 1."""
  keep_x, keep_y = a > 0, b > 0
  x, a, y, b = x[keep_x].astype(float), a[keep_x] / a.sum(), y[keep_y].astype(float), b[keep_y] / b.sum()
  eps, rho = blur**2, np.inf if reach is None else reach**2
  both = lambda *given: _transport(*given, eps, rho, steps)
  return both(x, a, y, b) - 0.5 * both(x, a, x, a) - 0.5 * both(y, b, y, b)
