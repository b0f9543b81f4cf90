"""Every config in configs/ builds, and default.py says what the dataclasses say."""

from pathlib import Path

import pytest

from silky_jax import cli
from silky_jax.config import ConfigError, differences
from silky_jax.training.experiment import ExperimentConfig, build

FILES = {
  "default": [""],
  "silky": ["", ":mlp", ":coarse", ":demo", ":paper"],
  "smoke": [""],
}
NAMES = [f"configs/{name}.py{variant}" for name, variants in FILES.items() for variant in variants]


def test_every_file_is_listed_here():
  assert set(FILES) == {path.stem for path in (Path(cli.__file__).parents[1] / "configs").glob("*.py")}


@pytest.mark.parametrize("name", NAMES)
def test_builds(name):
  config = ExperimentConfig.from_dict(cli.load_config(name).to_dict())
  assert len(build(config).stages) <= 3
  assert ExperimentConfig.from_dict(config.to_dict()) == config


def test_default_equals_the_dataclasses():
  config = ExperimentConfig.from_dict(cli.load_config("configs/default.py").to_dict())
  # The loop measures how many tile pairs a run needs, so a file asks for no more than the least.
  assert differences(ExperimentConfig().to_dict(), config.to_dict()) == [f"render.capacity: {ExperimentConfig().render.capacity} -> 1024"]


def test_a_slip_is_refused_with_its_path():
  config = cli.load_config("configs/default.py").to_dict()
  config["model"]["widht"] = 3
  with pytest.raises(ConfigError, match=r"model\.widht.*did you mean 'width'"):
    ExperimentConfig.from_dict(config)
  del config["model"]["widht"], config["losses"]["ssim"]
  with pytest.raises(ConfigError, match=r"losses\.ssim"):
    ExperimentConfig.from_dict(config)
  with pytest.raises(ConfigError, match="no avatar family 'silk'; did you mean 'silky'"):
    ExperimentConfig.from_dict({**config, "family": "silk"})
