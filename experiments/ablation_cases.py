"""What `ablate_physics` compares: each case is the base recipe with some keys changed, on a film, driven with some noise."""

import dataclasses
from typing import Any, NamedTuple

from silky_jax import cli
from silky_jax.training.experiment import ExperimentConfig

__all__ = ["CASES", "Case", "experiment_of"]

_BOTH = ("physics", "transport")
_NOISES = (0.5, 1.0, 2.0)


class Case(NamedTuple):
  """One setting."""

  film: str = "studio"  # or demo
  noise: float = 1.0  # level of the studio's tracker-like errors
  terms: tuple[str, ...] = _BOTH  # of physics and transport
  changes: dict[str, Any] = {}  # noqa: RUF012 - never written to: dotted keys of the config -> values
  drivers: str = "tracked"  # of WAYS: how the film is driven that is trained on
  swept: bool = False  # whether held-out frames are driven in every one of WAYS
  filmed: str = ""  # of WAYS: how it is driven for the page's video; not filmed where empty


def _cases() -> dict[str, Case]:
  both = lambda **changes: Case(changes={key.replace("__", "."): value for key, value in changes.items()})
  none = lambda **changes: both(**changes)._replace(terms=())
  ladder = {"none": (), "physics": ("physics",), "transport": ("transport",), "both": _BOTH}
  free = {f"losses__regularizers__{name}__weight": 0.0 for name in ("motion", "smoothness")}
  ends = {"none": "tracked", "both": "calm"}
  told = lambda name, film: {"terms": ladder[name], "swept": name in ends, "filmed": ends.get(name, "") if film in (1.0, "demo") else ""}
  return {
    **{f"{name}, noise {noise:g}": Case(noise=noise, **told(name, noise)) for noise in _NOISES for name in ladder},
    **{f"{name}, demo": Case(film="demo", noise=0.0, **told(name, "demo")) for name in ladder},
    # Controls: what a cheap trick would do.
    "control: no network": none(model__residual="none"),
    "control: motion penalty x 10": none(losses__regularizers__motion__weight=1e-2),
    "control: motion penalty x 100": none(losses__regularizers__motion__weight=1e-1),
    "control: low-passed film": none()._replace(drivers="one pole 0.5"),
    # Remedies against what the tracker says of the head.
    "calm film": both()._replace(drivers="calm"),
    "smooth film": both()._replace(drivers="smooth"),
    "smooth film, none": none()._replace(drivers="smooth"),
    "smooth film, no corrections": both(corrections__enabled=False)._replace(drivers="smooth"),
    "smooth film, demo": both()._replace(drivers="smooth", film="demo", noise=0.0),
    "none, no corrections": none(corrections__enabled=False),
    "both, no corrections": both(corrections__enabled=False),
    "both, corrections by inertia": both(corrections__inertia=True),
    "none, corrections by inertia": none(corrections__inertia=True),
    "both, corrections by inertia x 10": both(corrections__inertia=True, corrections__prior=1e-1),
    "both, corrections by inertia, demo": both(corrections__inertia=True)._replace(film="demo", noise=0.0),
    "both, no corrections, demo": both(corrections__enabled=False)._replace(film="demo", noise=0.0),
    # Physics, part by part.
    "means of order 1": both(model__physics__order=1),
    **{f"covariances by {name}": both(model__physics__predictor=name) for name in ("mesh", "airm1", "logeuclid2", "bures1")},
    "absolute": both(model__physics__mode="absolute"),
    "world": both(model__physics__mode="world"),
    "world, jerks and all": both(model__physics__mode="world", model__physics__jerk_scale=1e3),
    "world, jerks and all, x 10": both(
      model__physics__mode="world", model__physics__jerk_scale=1e3, losses__regularizers__physics__weight=1.0
    ),
    "absolute x 10": both(model__physics__mode="absolute", losses__regularizers__physics__weight=1.0),
    "two-sided": both(model__physics__sided="both"),
    **{f"physics x {share:g}": both(losses__regularizers__physics__weight=0.1 * share) for share in (10.0, 100.0)},
    "physics x 10, demo": both(losses__regularizers__physics__weight=1.0)._replace(film="demo", noise=0.0),
    # Transport, part by part.
    **{f"weights {name}": both(model__transport__weight_family=name) for name in ("sech", "rational", "constant")},
    "without E2": both(model__transport__stiffness_rate=0.0),
    "without E3": both(model__transport__border=0.0),
    "groups face-parsing": both(model__transport__landmark_groups="face-parsing"),
    "groups one": both(model__transport__landmark_groups="one", model__transport__atoms=128, model__transport__levels=(1,)),
    **{f"transport x {share:g}": both(losses__regularizers__transport__weight=share) for share in (0.1, 0.3, 10.0)},
    "transport against the mesh": both(model__transport__reference="mesh"),
    "transport against the mesh, demo": both(model__transport__reference="mesh")._replace(film="demo", noise=0.0),
    "transport against the mesh x 0.1": both(model__transport__reference="mesh", losses__regularizers__transport__weight=0.1),
    "transport against the mesh x 0.1, demo": both(
      model__transport__reference="mesh", losses__regularizers__transport__weight=0.1
    )._replace(film="demo", noise=0.0),
    "transport x 10, demo": both(losses__regularizers__transport__weight=10.0)._replace(film="demo", noise=0.0),
    # Where nothing else holds a network back, does transport?
    "free network, none": none(**free),
    "free network, physics": none(**free)._replace(terms=("physics",)),
    "free network, transport": none(**free)._replace(terms=("transport",)),
    "free network, both": both(**free),
    "free network, transport against the mesh": none(**free, model__transport__reference="mesh")._replace(terms=("transport",)),
    # The UV splatter image.
    "uv, none": none(model__residual="uv"),
    "uv, both": both(model__residual="uv"),
    "uv, demo": both(model__residual="uv")._replace(film="demo", noise=0.0),
    "uv, none, demo": none(model__residual="uv")._replace(film="demo", noise=0.0),
    "no network, demo": none(model__residual="none")._replace(film="demo", noise=0.0),
  }  # fmt: skip


CASES = _cases()


def experiment_of(case: Case, *, steps: int, uv_size: int, width: int) -> ExperimentConfig:
  """The demo's recipe, smaller, with corrections of what was tracked, without the terms that a case leaves out.

  Args:
    case: which.
    steps: of the run.
    uv_size: texels per side of the atlas.
    width: hidden units.
  """
  config = cli.load_config("configs/silky.py:demo")
  config.steps, config.model.uv_size, config.model.width = steps, uv_size, width
  config.corrections.enabled = True
  for name in _BOTH:
    if name not in case.terms:
      config.losses.regularizers[name].weight = 0.0
  for key, value in case.changes.items():
    *path, last = key.split(".")
    place = config
    for part in path:
      place = place[part]
    place[last] = value
  experiment = ExperimentConfig.from_dict(config.to_dict())
  return dataclasses.replace(
    experiment, loop=dataclasses.replace(experiment.loop, sample_every=0, shares_every=0, checkpoint_every=steps, resident="yes")
  )
