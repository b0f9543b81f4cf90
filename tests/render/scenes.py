"""Small scenes that each hold one difficulty."""

import numpy as np

from tests.render.dense_oracle import Scene, View


def view(width=45, height=34, *, angle=0.3, distance=0.5):
  """A head-distance view with an off-centre principal point and different focal lengths."""
  c, s = np.cos(angle), np.sin(angle)
  pose = np.eye(4)
  # OpenCV axes: y and z of the world turn by half a circle about x.
  pose[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.diag([1.0, -1.0, -1.0])
  pose[2, 3] = distance
  intrinsics = np.array([[1.5 * width, 0, 0.44 * width], [0, 1.9 * height, 0.57 * height], [0, 0, 1]])
  return View(pose, intrinsics, width, height)


def shell(n=100, channels=3, seed=0):
  """Gaussians on a head-sized ellipsoid shell, with unnormalised quaternions."""
  rng = np.random.default_rng(seed)
  directions = rng.normal(size=(n, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  return Scene(
    means=directions * np.array([0.075, 0.1, 0.085]) + rng.normal(size=(n, 3)) * 0.003,
    quaternions=rng.normal(size=(n, 4)) * rng.uniform(0.5, 2.0, size=(n, 1)),
    deviations=0.25 / np.sqrt(n) * np.exp(rng.normal(size=(n, 3)) * 0.5),
    opacities=1 / (1 + np.exp(-(rng.normal(size=n) * 1.5 + 1.0))),
    colours=rng.uniform(size=(n, channels)),
    background=rng.uniform(size=channels),
  )


def opaque():
  """Opacities at, above and just below the clamp of alpha."""
  scene = shell(seed=1)
  opacities = np.where(np.arange(100) % 3 == 0, 0.9999, np.where(np.arange(100) % 3 == 1, 1.0, 0.9985))
  return scene._replace(opacities=opacities)


def giant():
  """One Gaussian that covers every tile, among small ones."""
  scene = shell(seed=2)
  scene.deviations[7] = 0.5
  scene.opacities[7] = 0.6
  return scene


def corner():
  """A cluster in one corner: most tiles are empty."""
  scene = shell(seed=3)
  return scene._replace(means=scene.means * 0.2 + np.array([-0.13, 0.06, 0.0]), deviations=scene.deviations * 0.2)


def around_the_camera():
  """Gaussians behind the camera, on its plane, just past the near distance, and beside the picture where the Jacobian is clamped."""
  scene = shell(seed=4)
  # In the frame of view(angle=0, distance=0.5) the camera sits at z = 0.5 and looks along -z.
  scene.means[:5] = [[0.01, 0, 0.7], [0, 0.01, 0.52], [0, 0, 0.5], [0.002, 0, 0.489], [0, 0.001, 0.48]]
  scene.deviations[:5] = 0.004
  # Right, left, below, above: 15 px outside at a depth of 0.1, and wide enough to reach in.
  scene.means[5:9] = [[0.06, 0, 0.4], [-0.05, 0, 0.4], [0, -0.042, 0.4], [0, 0.048, 0.4]]
  scene.deviations[5:9] = [0.01, 0.015, 0.02]
  return scene


# Scenes of one size, number and channel count share a compiled program.
SCENES = {
  "shell": (shell(), view()),
  "opaque": (opaque(), view()),
  "giant": (giant(), view()),
  "corner": (corner(), view()),
  "around_the_camera": (around_the_camera(), view(angle=0.0)),
  "tall_four_channels": (shell(60, 4, seed=7), view(24, 40)),
  "wide_32_channels": (shell(50, 32, seed=8), view(64, 16)),
}
