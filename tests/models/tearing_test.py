"""What the ablation counts as tearing: neighbours across a border of groups that part in wide expressions."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import ablation_measures as measures
from silky_jax.models.silky import SilkyConfig, make
from silky_jax.models.silky.anatomy import anatomy_of


def test_what_tears_apart_in_wide_expressions_is_counted(rig, subject, make_frame):
  whole = make(SilkyConfig(uv_size=24, residual="none"))
  variables = whole.init(jax.random.key(0), rig, subject)
  variables = variables.replace(buffers=variables.buffers | {"mean_expression": jnp.zeros(rig.expression_basis.shape[-1])})
  groups = anatomy_of(variables.buffers)[0].groups
  largest = jnp.argmax(jnp.bincount(groups + 1, length=40)[1:])

  def film(strength):
    """Still but for two of twenty frames."""
    each = [make_frame(0) for _ in range(20)]
    wide = [strength if i >= 18 else 0.0 for i in range(20)]
    each = [frame.replace(expression=jnp.full_like(frame.expression, width)) for frame, width in zip(each, wide, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

  def torn(pull, strength):
    def deform(variables, rig, frame):
      gaussians, aux = whole.deform(variables, rig, frame)
      away = pull * jnp.abs(frame.expression).mean() * (groups == largest)[:, None] * jnp.asarray([0.0, 1.0, 0.0])
      return gaussians.replace(means=gaussians.means + away), aux

    avatar, frames = whole._replace(deform=deform), film(strength)
    return measures._torn(avatar, variables, rig, measures._track(avatar, variables, rig, frames, np.arange(20)), frames)

  held = torn(0.0, 0.2)
  assert held["tearing"] == held["tearing_doubled"] == held["crack"] == held["seam"] == 0.0
  little, much = torn(0.04, 0.2), torn(1.0, 0.2)  # 8 mm, 200 mm
  assert 0.0 <= little["tearing"] < little["tearing_doubled"] <= much["tearing"] <= 1.0 and much["tearing"] > 0.1
