"""Every pytree that crosses a room, and the conventions they obey.

Conventions, once for the whole project:

* metres, radians, seconds; pixels where a name or comment says px.
* right-handed world, +y up, +z out of the face in the rig's rest pose, +x towards the subject's left.
* `world_to_camera` is 4x4 with OpenCV axes: +x right, +y down, +z forward.
* pixel centres lie at half integers; row 0 is the top; images are `[h, w, c]`, display-coded sRGB scaled to [0, 1].
* quaternions are `wxyz`; poses are axis-angle.
* shape letters: `*b` batch, `t` time, `s` subject, `n` Gaussians, `v` vertices, `f` faces, `j` joints, `k` identity,
  `e` expression, `c` channels, `h w` image, `l` landmarks.

Shapes are comments here and jaxtyping annotations on the functions: a checked pytree could not pass through `tree.map`.
"""

from typing import Any

import flax.struct

Array = Any  # jax on a device, numpy on the host; shapes in the comments
PyTree = Any


def static() -> Any:
  """A field that is part of the type, not an array: a new value is a new compile."""
  return flax.struct.field(pytree_node=False)


class Gaussians(flax.struct.PyTreeNode):
  """World-space, activated 3D Gaussians; a dead slot has opacity 0."""

  means: Array  # [*b, n, 3] metres
  covariances: Array  # [*b, n, 3, 3] metres^2
  opacities: Array  # [*b, n] in 0..1
  features: Array  # [*b, n, c] colours (harmonics already evaluated) or any channels


class Camera(flax.struct.PyTreeNode):
  """Pinhole camera without distortion. Size is static: a new size is a new compile."""

  world_to_camera: Array  # [*b, 4, 4] OpenCV axes
  intrinsics: Array  # [*b, 3, 3] px: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
  width: int = static()
  height: int = static()


class Frame(flax.struct.PyTreeNode):
  """One moment of one subject: what drives an avatar, and what it should look like."""

  index: Array  # [*b] int32, frame number in the source video
  time: Array  # [*b] float32 seconds
  shot: Array  # [*b] int32, counts cuts
  timestep: Array  # [*b] int32
  view: Array  # [*b] int32
  camera: Camera
  expression: Array  # [*b, e]
  pose: Array  # [*b, 5, 3] axis-angle: global, neck, jaw, left eye, right eye
  eyelids: Array  # [*b, 2] left, right: 0 open, 1 closed
  translation: Array  # [*b, 3] metres, added after the posed rig
  image: Array  # [*b, h, w, 3] float32 0..1
  mask: Array  # [*b, h, w] float32 0..1, head and neck
  parts: Array  # [*b, h, w] uint8, the 19 labels of `flame.regions.PARTS`
  landmarks: Array  # [*b, l, 2] px in the image, NaN where not found
  valid: Array  # [*b] bool
  exposure: Array | None = None  # [*b, 3] gain of the camera per channel against the clip's mean; None is 1


class FlameRig(flax.struct.PyTreeNode):
  """A FLAME-shaped head: shared by all subjects, always an argument, never closed over."""

  template: Array  # [v, 3] metres
  shape_basis: Array  # [v, 3, k]; coefficient 1 = one standard deviation
  expression_basis: Array  # [v, 3, e]
  pose_basis: Array  # [q, v, 3] per entry of (R_1..R_{j-1} - I) flattened row-major, q = 9 (j - 1)
  joint_regressor: Array  # [j, v]
  skinning: Array  # [v, j]
  eyelid_basis: Array  # [2, v, 3] left, right; added after skinning in the head's frame
  faces: Array  # [f, 3] int32
  uv: Array  # [u, 2] in 0..1, v up
  uv_faces: Array  # [f, 3] int32
  regions: Array  # [v] int32 into `region_names`
  parents: tuple[int, ...] = static()
  name: str = static()
  region_names: tuple[str, ...] = static()
  expression_names: tuple[str, ...] = static()
  landmarks: Any = None  # LandmarkEmbedding of the 68 iBUG points; None where the rig's files have none


class LandmarkEmbedding(flax.struct.PyTreeNode):
  """Landmarks as points on a rig's surface."""

  face_indices: Array  # [l] int32
  barycentric: Array  # [l, 3], rows sum to 1


class Subject(flax.struct.PyTreeNode):
  """What an avatar's init is told of one person."""

  shape: Array  # [k]
  offset: Array  # [v, 3] metres, personal displacement of the template
  mean_expression: Array  # [e], over training frames
  expression_variance: Array  # [e], over training frames


class Splats(flax.struct.PyTreeNode):
  """Projected Gaussians, between projection and rasterization only."""

  means2d: Array  # [*b, n, 2] px
  conics: Array  # [*b, n, 3] px^-2: inverse 2D covariance (xx, xy, yy)
  depths: Array  # [*b, n] metres along the camera axis
  radii: Array  # [*b, n] px, 0 = culled
  opacities: Array  # [*b, n]
  features: Array  # [*b, n, c]


class Render(flax.struct.PyTreeNode):
  """A picture. `overflow` counts tile pairs that the static capacity dropped: never hide it."""

  image: Array  # [*b, h, w, c] background composited
  alpha: Array  # [*b, h, w]
  depth: Array  # [*b, h, w] metres, sum of weight * depth (divide by alpha for the expected depth)
  radii: Array  # [*b, n] px
  overflow: Array  # [*b] int32
  pairs: Array  # [*b] int32, tile pairs wanted (kept + dropped)


class Variables(flax.struct.PyTreeNode):
  """An avatar's arrays: plain nested dicts, so that paths are stable names."""

  params: dict[str, Any]  # trained
  buffers: dict[str, Any]  # not trained: subject shape, bindings, alive, statistics


class Prediction(flax.struct.PyTreeNode):
  """What `regularize` sees of a clip."""

  gaussians: Gaussians  # [b, t, ...]
  render: Render | None
  image: Array | None  # [b, r, h, w, 3], r rendered frames
  aux: dict[str, Any]  # [b, t, ...]


class TrainState(flax.struct.PyTreeNode):
  """Everything a training run carries from step to step."""

  step: Array  # [] int32
  variables: Variables
  opt_state: PyTree
  stats: dict[str, Array]
  key: Array  # [] typed PRNG key data, uint32
