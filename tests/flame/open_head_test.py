"""The bundled head: its file, its anatomy, its landmarks, and people drawn from its prior."""

from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import open_head, regions
from silky_jax.flame.model import flame_vertices, joints, landmarks, shaped
from silky_jax.geometry.mesh import edge_faces, vertex_normals

# Contours of MediaPipe's mesh, corners left out: upper and lower points that face each other.
_LIPS = ((191, 80, 81, 82, 13, 312, 311, 310, 415), (95, 88, 178, 87, 14, 317, 402, 318, 324))
_LEFT_LIDS = ((398, 384, 385, 386, 387, 388, 466), (382, 381, 380, 374, 373, 390, 249))
_RIGHT_LIDS = ((246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155))


@pytest.fixture(scope="module")
def head():
  return open_head.load()


@pytest.fixture(scope="module")
def neutral(head):
  rig, dense, _ = head
  run = jax.jit(
    lambda shape, lids: landmarks(
      flame_vertices(rig, shape, jnp.zeros(0), jnp.zeros((5, 3)), eyelids=lids)[0],
      rig.faces,
      dense,
    )
  )
  return lambda shape, lids=0.0: np.asarray(run(shape, jnp.full(2, lids))) * 1e3


def test_the_file_is_small_and_holds_no_pickle():
  path = resources.files("silky_jax.flame").joinpath("data/open_head.npz")
  assert len(path.read_bytes()) <= 6_000_000
  with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
    assert all(data[name].dtype != object for name in data.files)


def test_shapes_and_sums(head):
  rig, dense, ibug = head
  count = len(rig.template)
  assert 5000 < count < 6000 and len(rig.faces) > 10_000 and rig.shape_basis.shape == (count, 3, 80)
  assert len(rig.expression_names) == rig.expression_basis.shape[-1] == 49
  assert dense.barycentric.shape == (478, 3) and ibug.barycentric.shape == (68, 3)
  for weights in (rig.skinning, rig.joint_regressor, dense.barycentric, ibug.barycentric):
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
  assert set(rig.region_names) == set(regions.REGIONS) == set(regions.PART_OF_REGION)
  assert len(regions.PARTS) == 19 and set(regions.PART_OF_REGION.values()) <= set(regions.PARTS)


def test_axes_and_size(head):
  rig, dense, _ = head
  points = np.asarray(landmarks(rig.template, rig.faces, dense))
  assert points[1, 2] > points[10, 2] > 0 and points[10, 1] > points[152, 1]
  assert points[263, 0] > 0 > points[33, 0]
  assert 0.10 < points[10, 1] - points[152, 1] < 0.19
  places = np.asarray(joints(rig, jnp.zeros(0)))
  assert places[0, 1] < places[1, 1] < places[2, 1] < places[3, 1]
  np.testing.assert_allclose(places[3], places[4] * [-1, 1, 1], atol=1e-6)


def test_the_mesh_is_sound_and_symmetric(head):
  rig, _, _ = head
  faces, vertices = np.asarray(rig.faces), np.asarray(rig.template)
  edge_faces(faces)  # refuses an edge with three faces
  normals = np.asarray(vertex_normals(rig.template, rig.faces))
  scalp = np.asarray(regions.vertex_mask(rig, {"scalp", "forehead"}))
  assert ((vertices - [0, 0.03, 0]) * normals).sum(1)[scalp].min() > 0, "normals point outwards"
  mirror = open_head.mirror()
  np.testing.assert_allclose(vertices[mirror] * [-1, 1, 1], vertices, atol=2e-4)
  np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
  other = np.array([regions.REGIONS.index(_swap(name)) for name in rig.region_names])
  middle = np.abs(vertices[:, 0]) < 1e-5
  np.testing.assert_array_equal(np.where(middle, rig.regions, other[rig.regions])[mirror][~middle], np.asarray(rig.regions)[~middle])


def _swap(name: str) -> str:
  return name.replace("left_", "?").replace("right_", "left_").replace("?", "right_")


def test_regions_are_where_they_should_be(head):
  rig, _, _ = head
  vertices = np.asarray(rig.template)
  assert (vertices[np.asarray(regions.vertex_mask(rig, {"left_ear", "left_brow", "left_eyeball"})), 0] > 0).all()
  nose, chin = (vertices[np.asarray(regions.vertex_mask(rig, {name}))] for name in ("nose", "lower_lip"))
  assert nose[:, 2].max() == vertices[:, 2].max() and nose[:, 1].mean() > chin[:, 1].mean()
  parts = np.asarray(regions.face_parts(rig))
  counts = {regions.PARTS[part]: int((parts == part).sum()) for part in np.unique(parts)}
  assert {"skin", "hair", "nose", "neck", "cloth", "upper_lip", "lower_lip", "left_eye", "right_brow", "mouth_interior"} <= set(counts)
  with pytest.raises(ValueError, match=r"got \['beard'\]"):
    regions.vertex_mask(rig, {"beard"})


def test_landmarks_are_symmetric_and_on_their_own_parts(head):
  rig, dense, ibug = head
  points = np.asarray(landmarks(rig.template, rig.faces, dense)) * 1e3
  for left, right in ((263, 33), (291, 61), (454, 234), (473, 468), (334, 105), (386, 159)):
    np.testing.assert_allclose(points[left] * [-1, 1, 1], points[right], atol=0.3)
  names = np.array(rig.region_names)[np.asarray(rig.regions)][np.asarray(rig.faces)[np.asarray(dense.face_indices)]]

  def held_by(indices, allowed):
    return [
      number for number in indices if not (np.isin(names[number], list(allowed)) | (np.asarray(dense.barycentric[number]) < 0.05)).all()
    ]

  assert not held_by(_LIPS[0], {"upper_lip", "mouth_interior"})
  assert not held_by(_LIPS[1], {"lower_lip", "mouth_interior"})
  assert not held_by((*_LEFT_LIDS[0], *_LEFT_LIDS[1]), {"left_eye_region", "eye_socket"})
  assert not held_by(range(468, 473), {"right_eyeball"}) and not held_by(range(473, 478), {"left_eyeball"})
  sixty_eight = np.asarray(landmarks(rig.template, rig.faces, ibug)) * 1e3
  assert sixty_eight[0, 0] < sixty_eight[16, 0] and sixty_eight[8, 1] == sixty_eight[:, 1].min()
  assert (np.diff(sixty_eight[:17, 0]) > 0).all()
  np.testing.assert_allclose(sixty_eight[[36, 45, 48, 54, 30]], points[[33, 263, 61, 291, 4]])


def test_lids_and_lips_part_where_they_open(head, neutral):
  rig, dense, _ = head
  rest, closed = neutral(jnp.zeros(80)), neutral(jnp.zeros(80), 1.0)
  for upper, lower in (_LEFT_LIDS, _RIGHT_LIDS):
    middle = slice(2, -2)
    assert (rest[upper, 1] - rest[lower, 1])[middle].min() > 5
    assert np.abs(closed[upper, 1] - closed[lower, 1])[middle].max() < 1.0
  opened, _ = flame_vertices(rig, jnp.zeros(0), jnp.zeros(0), jnp.zeros((5, 3)).at[2, 0].set(0.2))
  points = np.asarray(landmarks(opened, rig.faces, dense)) * 1e3
  assert (points[_LIPS[0], 1] - points[_LIPS[1], 1])[2:-2].min() > 10
  assert np.abs(rest[_LIPS[0], 1] - rest[_LIPS[1], 1]).max() < 1.5


def test_a_hundred_people_neither_cross_their_lids_nor_their_lips(neutral):
  shapes = jax.random.normal(jax.random.key(11), (100, 80))
  for shape in shapes:
    points = neutral(shape)
    for upper, lower in (_LEFT_LIDS, _RIGHT_LIDS):
      assert (points[upper, 1] - points[lower, 1]).min() > 0
    assert (points[_LIPS[0], 1] - points[_LIPS[1], 1]).min() > -2.0  # lips press into each other, they do not pass


def test_identity_spread_is_that_of_people(head):
  rig, dense, _ = head
  embedding = jax.tree.map(lambda leaf: leaf[:468], dense)
  shapes = jax.random.normal(jax.random.key(0), (200, 80))
  points = np.asarray(jax.lax.map(lambda shape: landmarks(shaped(rig, shape), rig.faces, embedding), shapes)) * 1e3
  points -= points.mean(1, keepdims=True)
  mean = points.mean(0)
  left, values, right = np.linalg.svd(np.einsum("nlc,ld->ncd", points, mean))
  aligned = np.einsum("nlc,nck,nkd->nld", points, left, right) * (values.sum(1) / np.square(points).sum((1, 2)))[:, None, None]
  spread = np.sqrt(np.square(aligned - aligned.mean(0)).sum(-1).mean())
  assert 3.0 < spread < 5.0


def test_arkit_units_come_back(head):
  rig, _, _ = head
  zero = jnp.zeros(80)
  assert len(open_head.ARKIT_NAMES) == len(set(open_head.ARKIT_NAMES)) == 52 and list(open_head.ARKIT_NAMES) == sorted(
    open_head.ARKIT_NAMES
  )
  assert set(open_head.ARKIT_NAMES) - set(rig.expression_names) == {"jawOpen", "eyeBlinkLeft", "eyeBlinkRight"}
  controls = open_head.arkit_to_rig({"jawOpen": 0.5, "eyeBlinkRight": 0.25, "mouthPucker": 0.75, "eyeLookUpLeft": 1.0})
  assert abs(float(controls.jaw_pose[0]) - open_head.jaw_open_angle() / 2) < 1e-6
  np.testing.assert_allclose(controls.eyelids, [0, 0.25])
  assert float(controls.left_eye_pose[0]) < -0.1 and not np.any(controls.right_eye_pose)
  assert float(controls.expression[rig.expression_names.index("mouthPucker")]) == 0.75
  by_array = open_head.arkit_to_rig(jnp.asarray([0.5 if n == "jawOpen" else 0.0 for n in open_head.ARKIT_NAMES]))
  np.testing.assert_allclose(by_array.jaw_pose, controls.jaw_pose)
  vertices, _ = flame_vertices(rig, zero, controls.expression, controls.pose(), eyelids=controls.eyelids)
  assert np.isfinite(vertices).all()
  with pytest.raises(ValueError, match=r"got \['jawopen'\]"):
    open_head.arkit_to_rig({"jawopen": 1.0})
  with pytest.raises(ValueError, match=r"expected \[52\], got \(51,\)"):
    open_head.arkit_to_rig(jnp.zeros(51))


def test_teeth_and_eyes_are_rigid(head):
  rig, _, _ = head
  upper, lower = (np.asarray(regions.vertex_mask(rig, {name})) for name in ("upper_teeth", "lower_teeth"))
  units = np.asarray(rig.expression_basis)
  assert np.ptp(units[upper], axis=0).max() < 2e-5 and np.ptp(units[lower], axis=0).max() < 2e-5
  opened, _ = flame_vertices(rig, jnp.zeros(0), jnp.zeros(0), jnp.zeros((5, 3)).at[2, 0].set(0.3))
  moved, rest = np.asarray(opened), np.asarray(rig.template)
  np.testing.assert_allclose(moved[upper], rest[upper], atol=1e-6)
  for part in (lower, np.asarray(regions.vertex_mask(rig, {"tongue"}))):
    before, after = (np.linalg.norm(x[part][:, None] - x[part][None, :1], axis=-1) for x in (rest, moved))
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_expression_leaves_the_joints(head):
  rig, _, _ = head
  moved = np.einsum("jv,vce->jec", np.asarray(rig.joint_regressor), np.asarray(rig.expression_basis))
  assert np.linalg.norm(moved, axis=-1).max() < 1.5e-4
