"""Set an avatar's face by hand: named expressions, jaw, gaze, lids, head and camera -> a picture.

editor = AvatarEditor("runs/demo/train")
image = editor.interactive_edit(expression="surprise", jaw_openness=0.7, output_path="surprise.png")
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from silky_jax.apps.figures import write_sheet
from silky_jax.apps.player import Player, head_box, open_avatar, stand
from silky_jax.config import UserError, closest
from silky_jax.data.images import put_text, write_image
from silky_jax.evaluation.playback import bytes_of
from silky_jax.evaluation.views import orbit
from silky_jax.flame import open_head
from silky_jax.math.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from silky_jax.types import Camera, Frame

__all__ = ["EXPRESSIONS", "AvatarEditor"]

# ARKit weights by name. `neutral` is the person's usual face, on top of which the others come.
EXPRESSIONS: dict[str, dict[str, float]] = {
  "neutral": {},
  "happy": {
    **{"mouthSmileLeft": 0.85, "mouthSmileRight": 0.85, "cheekSquintLeft": 0.6, "cheekSquintRight": 0.6},
    **{"mouthDimpleLeft": 0.2, "mouthDimpleRight": 0.2, "eyeSquintLeft": 0.25, "eyeSquintRight": 0.25},
  },
  "sad": {
    **{"browInnerUp": 0.8, "mouthFrownLeft": 0.7, "mouthFrownRight": 0.7, "mouthShrugLower": 0.4},
    **{"eyeLookDownLeft": 0.35, "eyeLookDownRight": 0.35},
  },
  "surprise": {
    **{"browInnerUp": 0.9, "browOuterUpLeft": 0.85, "browOuterUpRight": 0.85, "eyeWideLeft": 0.8, "eyeWideRight": 0.8, "jawOpen": 0.45},
  },
  "angry": {
    **{"browDownLeft": 0.9, "browDownRight": 0.9, "noseSneerLeft": 0.4, "noseSneerRight": 0.4, "eyeSquintLeft": 0.3, "eyeSquintRight": 0.3},
    **{"mouthPressLeft": 0.5, "mouthPressRight": 0.5},
  },
  "disgust": {
    **{"noseSneerLeft": 0.9, "noseSneerRight": 0.9, "mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5, "browDownLeft": 0.45},
    **{"browDownRight": 0.45, "mouthFrownLeft": 0.3, "mouthFrownRight": 0.3},
  },
  "fear": {
    **{"browInnerUp": 0.9, "browOuterUpLeft": 0.4, "browOuterUpRight": 0.4, "eyeWideLeft": 0.9, "eyeWideRight": 0.9},
    **{"mouthStretchLeft": 0.6, "mouthStretchRight": 0.6, "jawOpen": 0.15},
  },
  "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
  "wink": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.35},
  "pucker": {"mouthPucker": 0.9, "mouthFunnel": 0.15},
}
_LIMITS = {"gaze": 35.0, "head_pose": 60.0, "camera": 180.0}  # degrees either way
_DEFAULT_SIZE = 512  # px


class AvatarEditor:
  """A trained avatar with handles."""

  def __init__(self, checkpoint: Path | str | Player):
    """Args:
      checkpoint: the --output_dir of `train`, or an avatar that is open already.

    Raises:
      UserError: no readable run, or an avatar on a rig that has no named expressions.
    """
    self.player = checkpoint if isinstance(checkpoint, Player) else open_avatar(checkpoint)
    if self.player.rig.name != "open_head":
      raise UserError(f"{checkpoint}: wanted an avatar on the open head, whose expressions have names, found rig {self.player.rig.name!r}")

  def interactive_edit(
    self,
    expression: str = "neutral",
    jaw_openness: float | None = None,
    *,
    intensity: float = 1.0,
    gaze: Sequence[float] = (0.0, 0.0),
    eyelids: float | None = None,
    head_pose: Sequence[float] = (0.0, 0.0, 0.0),
    camera: Sequence[float] = (0.0, 0.0),
    resolution: int = _DEFAULT_SIZE,
    output_path: Path | str | None = None,
  ) -> UInt8[np.ndarray, "h w 3"]:
    """One picture of the avatar.

    Args:
      expression: a name of EXPRESSIONS.
      jaw_openness: 0 closed to 1 wide open; the expression's own when None.
      intensity: scales the expression; 1 is full, 0 neutral.
      gaze: yaw towards the person's left and pitch up, degrees.
      eyelids: 0 open to 1 closed, both; the expression's own when None.
      head_pose: pitch (down is positive), yaw (towards the person's left) and roll, degrees.
      camera: yaw and pitch of the camera around the head, degrees.
      resolution: px, width and height.
      output_path: a `.png` or `.jpg` to write; none when None.

    Returns:
      The picture.

    Raises:
      UserError: an unknown expression (with the nearest name), a number outside its range, a path that cannot be written.
    """
    frame = self.frame(expression, jaw_openness, intensity, gaze, eyelids, head_pose, camera, resolution)
    image, _ = self.player.render(frame)
    picture = bytes_of(image)[0]
    if output_path is not None:
      _write(Path(output_path), lambda path: write_image(path, picture))
    return picture

  def contact_sheet(self, output_path: Path | str, *, resolution: int = 256, columns: int = 5) -> Path:
    """Every named expression with its name.

    Args:
      output_path: a `.png` or `.jpg`.
      resolution: px, side of one picture.
      columns: pictures per row.
    """
    pictures = []
    for name in EXPRESSIONS:
      picture = self.interactive_edit(name, resolution=resolution).copy()
      put_text(picture, name, (6, resolution - 8))
      pictures.append(picture)
    return _write(Path(output_path), lambda path: write_sheet(path, pictures, columns))

  def frame(
    self,
    expression: str = "neutral",
    jaw_openness: float | None = None,
    intensity: float = 1.0,
    gaze: Sequence[float] = (0.0, 0.0),
    eyelids: float | None = None,
    head_pose: Sequence[float] = (0.0, 0.0, 0.0),
    camera: Sequence[float] = (0.0, 0.0),
    resolution: int = _DEFAULT_SIZE,
  ) -> Frame:
    """What drives the avatar into a face, batch [1]; arguments and errors as `interactive_edit`."""
    if expression not in EXPRESSIONS:
      raise UserError(f"expression: no {expression!r}{closest(expression, EXPRESSIONS)}; there are: {', '.join(EXPRESSIONS)}")
    for name, value, low, high in (
      ("intensity", intensity, 0.0, 1.5),
      ("jaw_openness", jaw_openness, 0.0, 1.0),
      ("eyelids", eyelids, 0.0, 1.0),
      ("resolution", resolution, 32, 2048),
    ):
      if value is not None and not low <= value <= high:
        raise UserError(f"{name}: wanted {low:g} to {high:g}, found {value}")
    angles = {"gaze": (gaze, 2), "head_pose": (head_pose, 3), "camera": (camera, 2)}
    for name, (value, length) in angles.items():
      if len(value) != length or not all(np.isfinite(v) and abs(v) <= _LIMITS[name] for v in value):
        raise UserError(f"{name}: wanted {length} angles of at most {_LIMITS[name]:g} degrees, found {list(value)}")
    weights = {name: intensity * value for name, value in EXPRESSIONS[expression].items()}
    if jaw_openness is not None:
      weights["jawOpen"] = jaw_openness
    if eyelids is not None:
      weights |= {"eyeBlinkLeft": eyelids, "eyeBlinkRight": eyelids}
    for name, value in _look(np.radians(gaze)).items():
      weights[name] = weights.get(name, 0.0) + value
    controls = open_head.arkit_to_rig(weights)
    pose = np.asarray(controls.pose()).copy()
    pitch, yaw, roll = np.radians(head_pose)
    turns = [np.asarray(matrix_from_axis_angle(jnp.asarray(v, jnp.float32))) for v in ([0, yaw, 0], [pitch, 0, 0], [0, 0, roll])]
    pose[1] = np.asarray(axis_angle_from_matrix(jnp.asarray(turns[0] @ turns[1] @ turns[2])))
    usual = np.asarray(self.player.restored.state.variables.buffers["mean_expression"])
    face = np.clip(usual + np.asarray(controls.expression), 0.0, 1.2)
    still = _moment(usual, np.zeros((5, 3), np.float32), np.zeros(2, np.float32))
    where = stand(*head_box(self.player, still), distance=self._distance())
    around = orbit(
      where.centre,
      np.array([float(camera[0])]),
      np.array([float(camera[1])]),
      distance=where.distance,
      focal=where.focal * resolution,
      size=int(resolution),
    )
    return _moment(face, pose, np.clip(np.asarray(controls.eyelids), 0, 1), around)

  def _distance(self) -> float:
    """As far away as the camera of the video was from the origin."""
    return float(np.linalg.norm(np.asarray(self.player.restored.camera.world_to_camera)[..., :3, 3].reshape(-1, 3)[0]))


def _look(gaze: np.ndarray) -> dict[str, float]:
  """`eyeLook` weights of a gaze (yaw, pitch up; radians), for lids and eyes."""
  turn = np.array([-gaze[1], gaze[0]])  # axis-angle about +x looks down
  return {name: max(0.0, float(angles[:2] @ turn / (angles @ angles))) for name, angles in open_head.eye_look().items()}


def _moment(expression: np.ndarray, pose: np.ndarray, eyelids: np.ndarray, camera: Camera | None = None) -> Frame:
  """A batch of one frame without pictures."""
  one = lambda x, kind=np.float32: np.asarray(x, kind)[None]
  zero = np.zeros(1, np.int32)
  return Frame(
    index=zero,
    time=np.zeros(1, np.float32),
    shot=zero,
    timestep=zero,
    view=zero,
    camera=jax.tree.map(np.asarray, camera),
    expression=one(expression),
    pose=one(pose),
    eyelids=one(eyelids),
    translation=np.zeros((1, 3), np.float32),
    image=None,
    mask=None,
    parts=None,
    landmarks=None,
    valid=np.ones(1, bool),
  )


def _write(path: Path, write) -> Path:
  if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
    raise UserError(f"--output_path {path}: wanted a name that ends in .png or .jpg, found {path.suffix or 'no ending'!r}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
  except OSError as error:
    raise UserError(f"--output_path {path} cannot be written: {error.strerror or error}; choose another place") from error
  return path
