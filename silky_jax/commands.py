"""The table of `python run.py`'s commands: their flags, and what they call. A command imports what it needs when it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from silky_jax.config import UserError

__all__ = ["COMMANDS", "Command"]


class Command(NamedTuple):
  """One row of the table."""

  summary: str
  define: Callable[[flags.FlagValues], None]
  run: Callable[[flags.FlagValues], None]
  config: str | None = None  # the file that --config reads when not given; None: the command has no --config


def _preprocess_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("video_path", None, "A video of one person, face visible.", required=True, flag_values=values)
  flags.DEFINE_string("output_dir", None, "Where the dataset goes; finished stages in it are kept.", required=True, flag_values=values)
  flags.DEFINE_integer("resolution", 512, "Side of the square head crop, px.", lower_bound=32, flag_values=values)
  text = "The `studio` folder that the video is from: quality.html then shows the errors against its truth."
  flags.DEFINE_string("truth_dir", None, text, flag_values=values)


def _preprocess(values: flags.FlagValues) -> None:
  from silky_jax.tracking.pipeline import preprocess

  known = None
  if values.truth_dir is not None:
    from silky_jax.apps.truth import known_truth

    known = known_truth(values.truth_dir)
  preprocess(values.video_path, values.output_dir, resolution=values.resolution, known=known)


def _studio_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("output_dir", None, "Where the dataset, the video and the truth go.", required=True, flag_values=values)
  flags.DEFINE_integer("seed", 0, "Of the person, the motion and the noise.", lower_bound=0, flag_values=values)
  flags.DEFINE_integer("frames", 300, "How many moments, 25 per second.", lower_bound=1, flag_values=values)
  flags.DEFINE_integer("cameras", 1, "Fixed cameras, side by side.", lower_bound=1, upper_bound=16, flag_values=values)
  flags.DEFINE_bool("moving_camera", False, "One camera that swings around the head instead.", flag_values=values)
  flags.DEFINE_integer("resolution", 256, "Side of the pictures, px.", lower_bound=16, flag_values=values)
  flags.DEFINE_float("noise", 0.0, "Tracker-like errors on the parameters: 1 is usual, 0 none.", lower_bound=0.0, flag_values=values)


def _studio(values: flags.FlagValues) -> None:
  from silky_jax.studio.dataset import StudioConfig, film
  from silky_jax.studio.scene import SceneConfig

  scene = SceneConfig(frames=values.frames, cameras=values.cameras, resolution=values.resolution, moving=values.moving_camera)
  print(f"wrote {film(values.output_dir, StudioConfig(seed=values.seed, scene=scene, noise_level=values.noise))}")


# Short names of config keys.
_SHORT = {
  "physics_weight": "losses.regularizers.physics.weight",
  "ot_weight": "losses.regularizers.transport.weight",
  "landmark_groups": "model.transport.landmark_groups",
}


def _short_flags(values: flags.FlagValues) -> None:
  text = "Weight of the physics of motion; 0 takes the term out of the step. Short for --config.losses.regularizers.physics.weight."
  flags.DEFINE_float("physics_weight", None, text, lower_bound=0.0, flag_values=values)
  text = "Weight of optimal transport over anatomical groups; 0 takes it out. Short for --config.losses.regularizers.transport.weight."
  flags.DEFINE_float("ot_weight", None, text, lower_bound=0.0, flag_values=values)
  text = "What groups go by: the rig's landmarks, labels seen in training, or nothing. Short for --config.model.transport.landmark_groups."
  flags.DEFINE_enum("landmark_groups", None, ["flame", "face-parsing", "one"], text, flag_values=values)


def _with_short_flags(values: flags.FlagValues) -> Any:
  """The config with the short flags in it."""
  given = config_flags.get_override_values(values["config"])
  for flag, key in _SHORT.items():
    value = getattr(values, flag)
    if value is None:
      continue
    if key in given and given[key] != value:
      raise UserError(f"--{flag}={value} and --config.{key}={given[key]} say two things; give one of them")
    place, _, last = key.rpartition(".")
    section = values.config
    for name in place.split("."):
      section = section.get(name, {})
    if last not in section:
      raise UserError(f"--{flag}: this config has no {key}; the family {values.config.family!r} does not know it")
    section[last] = value
  return values.config


def _train_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    "data_dir",
    None,
    "A dataset that `preprocess` wrote; or `synthetic`: a made-up person on the bundled head.",
    required=True,
    flag_values=values,
  )
  flags.DEFINE_string("output_dir", None, "Folder of the run. An unfinished run in it is resumed.", required=True, flag_values=values)
  flags.DEFINE_string("init_from", None, "Folder of another run whose variables a fresh run starts from.", flag_values=values)
  _short_flags(values)


def _train(values: flags.FlagValues) -> None:
  from silky_jax.apps.player import find_rig
  from silky_jax.data.formats import native
  from silky_jax.flame import open_head
  from silky_jax.training.experiment import ExperimentConfig
  from silky_jax.training.loop import train
  from silky_jax.training.synthetic import synthetic_sequence

  config = ExperimentConfig.from_dict(_with_short_flags(values).to_dict())
  sequence = synthetic_sequence(open_head.load()[0]) if values.data_dir == "synthetic" else native.read(values.data_dir)
  rig = find_rig(sequence.rig_name, sequence.rig_hash)
  train(config, sequence, rig, values.output_dir, init_from=values.init_from)


def _demo_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("clip", "bundled", "A video of one person, or `bundled`.", flag_values=values)
  flags.DEFINE_string("output_dir", "runs/demo", "Everything goes there; finished stages in it are kept.", flag_values=values)
  flags.DEFINE_integer("resolution", 256, "Side of the square head crop, px.", lower_bound=64, flag_values=values)
  _short_flags(values)


def _demo(values: flags.FlagValues) -> None:
  from silky_jax.apps.demo import DemoConfig, run_demo
  from silky_jax.training.experiment import ExperimentConfig

  config = DemoConfig(experiment=ExperimentConfig.from_dict(_with_short_flags(values).to_dict()), resolution=values.resolution)
  run_demo(values.clip, values.output_dir, config)


def _eval_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("checkpoint", None, "The --output_dir of `train`.", required=True, flag_values=values)
  flags.DEFINE_string("data_dir", None, "The dataset that it was trained on.", required=True, flag_values=values)
  flags.DEFINE_string("output_dir", None, "Where metrics.json goes; the --checkpoint folder if not given.", flag_values=values)
  flags.DEFINE_integer("resolution", 256, "Side of the pictures that are compared, px.", lower_bound=32, flag_values=values)


def _eval(values: flags.FlagValues) -> None:
  from silky_jax.apps import player, score
  from silky_jax.data.formats import native
  from silky_jax.evaluation.protocol import EvalConfig

  avatar = player.open_avatar(values.checkpoint)
  output = Path(values.output_dir or values.checkpoint)
  score.evaluate(avatar, native.read(values.data_dir), output, config=EvalConfig(resolution=values.resolution))
  print(f"wrote {output / 'metrics.json'}")


def _render_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("checkpoint", None, "The --output_dir of `train`.", required=True, flag_values=values)
  flags.DEFINE_string("flame_params", None, "What moves it: an .npz of named keys, or a dataset folder.", required=True, flag_values=values)
  flags.DEFINE_string("output_path", None, "The .mp4 to write.", required=True, flag_values=values)
  flags.DEFINE_integer("resolution", None, "Height of the video, px; that of the driver if not given.", flag_values=values)
  text = "Filter what moves it by the inertia that its own track shows: as if it came live, or looking ahead."
  flags.DEFINE_enum("calm", None, ["live", "whole"], text, flag_values=values)


def _render(values: flags.FlagValues) -> None:
  from silky_jax.apps import player, show

  avatar = player.open_avatar(values.checkpoint)
  made = show.render_driven(avatar, values.flame_params, values.output_path, resolution=values.resolution, calm=values.calm)
  print(f"wrote {made}")


def _edit_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("checkpoint", None, "The --output_dir of `train`.", required=True, flag_values=values)
  flags.DEFINE_string("expression", "neutral", "A name; `list` shows them all as one picture.", flag_values=values)
  flags.DEFINE_float("jaw_openness", None, "0 closed to 1 wide open; the expression's own if not given.", flag_values=values)
  flags.DEFINE_float("intensity", 1.0, "Scales the expression.", flag_values=values)
  flags.DEFINE_list("gaze", ["0", "0"], "Yaw towards the person's left and pitch up, degrees.", flag_values=values)
  flags.DEFINE_float("eyelids", None, "0 open to 1 closed; the expression's own if not given.", flag_values=values)
  flags.DEFINE_list("head_pose", ["0", "0", "0"], "Pitch (down), yaw (towards the person's left) and roll, degrees.", flag_values=values)
  flags.DEFINE_list("camera", ["0", "0"], "Yaw and pitch of the camera around the head, degrees.", flag_values=values)
  flags.DEFINE_integer("resolution", 512, "Side of the picture, px.", flag_values=values)
  flags.DEFINE_string("output_path", None, "The .png or .jpg to write.", required=True, flag_values=values)


def _edit(values: flags.FlagValues) -> None:
  from silky_jax.apps.editor import AvatarEditor

  editor = AvatarEditor(values.checkpoint)
  if values.expression == "list":
    print(f"wrote {editor.contact_sheet(values.output_path, resolution=min(values.resolution, 512) // 2)}")
    return
  editor.interactive_edit(
    values.expression,
    values.jaw_openness,
    intensity=values.intensity,
    gaze=_numbers("gaze", values.gaze),
    eyelids=values.eyelids,
    head_pose=_numbers("head_pose", values.head_pose),
    camera=_numbers("camera", values.camera),
    resolution=values.resolution,
    output_path=values.output_path,
  )
  print(f"wrote {values.output_path}")


def _numbers(name: str, words: list[str]) -> list[float]:
  try:
    return [float(word) for word in words]
  except ValueError as error:
    raise UserError(f"--{name}: wanted numbers with commas between, found {','.join(words)!r}") from error


def _export_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("checkpoint", None, "The --output_dir of `train`.", required=True, flag_values=values)
  flags.DEFINE_enum("format", "ply", ["ply", "ply_sequence"], "One moment, or a folder with one file per frame.", flag_values=values)
  text = "What moves it: an .npz of named keys, or a dataset folder. Without it, one .ply shows the usual face."
  flags.DEFINE_string("flame_params", None, text, flag_values=values)
  flags.DEFINE_integer("frame", 0, "Which frame of it one .ply shows, from 0.", flag_values=values)
  flags.DEFINE_string("output_path", None, "The .ply, or the folder, to write.", required=True, flag_values=values)


def _export(values: flags.FlagValues) -> None:
  from silky_jax.apps import editor, export, player

  if values.format == "ply_sequence" and values.flame_params is None:
    raise UserError("export: --format ply_sequence wants a motion; give it with --flame_params, a dataset folder or an .npz")
  avatar = player.open_avatar(values.checkpoint)
  if values.format == "ply_sequence":
    export.export_sequence(avatar, values.flame_params, values.output_path, say=print)
  elif values.flame_params is None:
    export.export_ply(avatar, editor.AvatarEditor(avatar).frame(), values.output_path, say=print)
  else:
    export.export_driven(avatar, values.flame_params, values.frame, values.output_path, say=print)


def _bench_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("backend", None, "cpu, pallas or xla; the best available if not given.", flag_values=values)
  flags.DEFINE_string("checkpoint", None, "A run whose avatar is measured beside the made-up heads.", flag_values=values)
  flags.DEFINE_list("sizes", None, "Made-up heads, like 14k_256; all if not given.", flag_values=values)
  flags.DEFINE_integer("repeats", 15, "Timed calls of each program.", lower_bound=1, flag_values=values)
  flags.DEFINE_string("json", None, "Where the rows go.", flag_values=values)


def _bench(values: flags.FlagValues) -> None:
  from silky_jax.apps import bench

  try:
    bench.bench_rasterize(
      backend=values.backend,
      checkpoint=values.checkpoint,
      sizes=values.sizes or tuple(bench.SIZES),
      repeats=values.repeats,
      json_path=values.json,
    )
  except (NotImplementedError, ValueError) as error:
    raise UserError(f"bench: {error}") from error


def _bench_avatar_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("checkpoint", None, "A run whose avatar is measured; a made-up one if not given.", flag_values=values)
  flags.DEFINE_string(
    "network", None, "WIDTHxDEPTH of the made-up avatar's network, like 256x6; the config's if not given.", flag_values=values
  )
  flags.DEFINE_integer("resolution", 512, "Side of the pictures, px.", lower_bound=16, flag_values=values)
  flags.DEFINE_multi_integer("batch", [1, 8, 32], "Frames per call; can be given more than once.", lower_bound=1, flag_values=values)
  flags.DEFINE_list("precisions", "float32,tf32,bfloat16", "Of the network's products.", flag_values=values)
  flags.DEFINE_bool("training", True, "Also time training steps, without and with LPIPS.", flag_values=values)
  flags.DEFINE_string("json", None, "Where the rows go.", flag_values=values)


def _bench_avatar(values: flags.FlagValues) -> None:
  from silky_jax.apps.bench_avatar import bench_avatar
  from silky_jax.training.experiment import ExperimentConfig

  bench_avatar(
    ExperimentConfig.from_dict(values.config.to_dict()),
    checkpoint=values.checkpoint,
    network=values.network,
    size=values.resolution,
    batches=values.batch,
    precisions=values.precisions,
    training=values.training,
    json_path=values.json,
  )


COMMANDS: dict[str, Command] = {
  "demo": Command("the bundled clip, or your video -> report.html, the whole way", _demo_flags, _demo, config="configs/silky.py:demo"),
  "preprocess": Command("video -> tracked dataset", _preprocess_flags, _preprocess),
  "studio": Command("a made-up person -> dataset with known truth, and a video", _studio_flags, _studio),
  "train": Command("dataset -> avatar", _train_flags, _train, config="configs/silky.py"),
  "eval": Command("avatar, dataset -> metrics.json: scores on held-out frames", _eval_flags, _eval),
  "render": Command("avatar, motion -> video", _render_flags, _render),
  "edit": Command("avatar, a face set by hand -> picture", _edit_flags, _edit),
  "export": Command("avatar, one frame of motion or all -> .ply", _export_flags, _export),
  "bench rasterize": Command("how long one view takes, forward and with all gradients", _bench_flags, _bench),
  "bench avatar": Command("frames and training steps per second", _bench_avatar_flags, _bench_avatar, config="configs/silky.py"),
}
