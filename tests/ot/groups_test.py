"""Which group a Gaussian belongs to, on heads where it can be said by hand; groups as bodies; samples of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.flame import open_head
from silky_jax.flame.model import landmarks
from silky_jax.flame.regions import PARTS
from silky_jax.flame.synthetic import synthetic_rig
from silky_jax.ot import groups as g


def _vertices(rig):
  marks = landmarks(rig.template, rig.faces, rig.landmarks)
  member, cells = g.landmark_groups(rig.template, rig.regions, rig.region_names, marks)
  return np.asarray(member), np.asarray(cells), np.asarray(marks)


@pytest.fixture(scope="module")
def head():
  rig = open_head.load()[0]
  return rig, *_vertices(rig)


def test_the_table_is_the_specs():
  """Every iBUG point belongs to one group; ids as in the spec's table (5.1)."""
  owners = [[group.name for group in g._FLAME_GROUPS if i in group.landmarks] for i in range(68)]
  assert all(len(owner) == 1 for owner in owners)
  assert [owners[i][0] for i in (0, 16, 17, 21, 22, 27, 30, 31, 36, 41, 42, 47)] == [
    *("jaw_contour", "jaw_contour", "right_brow", "right_brow", "left_brow", "nose_bridge", "nose_bridge", "nose_base"),
    *("right_eye", "right_eye", "left_eye", "left_eye"),
  ]
  assert [owners[i][0] for i in (51, 57, 62, 66)] == ["upper_lip", "lower_lip", "upper_lip", "lower_lip"]
  assert set(g.FLAME.mobility) == {"rigid", "semi", "mobile"}


def test_points_near_a_landmark_are_its_groups(head):
  rig, member, cells, marks = head
  names = np.asarray(g.FLAME.names)
  distance = np.linalg.norm(np.asarray(rig.template)[:, None] - marks[None], axis=-1)
  near, region = distance.min(axis=1) <= 0.015, np.asarray(rig.region_names)[np.asarray(rig.regions)]
  whole = np.isin(
    region, ["upper_lip", "lower_lip", "left_eyeball", "right_eyeball", "mouth_interior", "upper_teeth", "lower_teeth", "tongue"]
  )
  group_of = {i: group.name for group in g._FLAME_GROUPS for i in group.landmarks}
  nearest = np.asarray([group_of[i] for i in distance.argmin(axis=1)])
  np.testing.assert_array_equal(names[member][near & ~whole], nearest[near & ~whole])
  np.testing.assert_array_equal(cells[near & ~whole], distance.argmin(axis=1)[near & ~whole])
  assert (cells[~near] == -1).all()
  assert set(names[member][region == "tongue"]) == {"mouth_interior"}
  assert set(names[member][region == "lower_lip"]) == {"lower_lip"}
  assert set(names[member][(region == "scalp") & ~near]) == {"scalp"}


def test_left_is_at_positive_x_and_mirrors_right(head):
  rig, member, _, _ = head
  x, names = np.asarray(rig.template)[:, 0], np.asarray(g.FLAME.names)
  for part in ("brow", "eye", "eyeball", "ear"):
    left, right = (names[member] == f"{side}_{part}" for side in ("left", "right"))
    assert (x[left] > -1e-6).all() and (x[right] < 1e-6).all()
    assert 0.9 < left.sum() / right.sum() < 1.1


def test_every_rig_has_every_group_it_can_have():
  rig, _ = synthetic_rig()
  member, _, _ = _vertices(rig)
  found = {g.FLAME.names[k] for k in member}
  assert {"jaw_contour", "upper_lip", "lower_lip", "left_eyeball", "scalp", "neck", "cheeks"} <= found


def test_the_label_of_most_frames_decides():
  votes = np.zeros((5, 19), np.float32)
  votes[0, PARTS.index("upper_lip")], votes[0, PARTS.index("skin")] = 3, 2
  votes[1, PARTS.index("hair")], votes[1, PARTS.index("background")] = 1, 9  # background says nothing
  votes[2, PARTS.index("cloth")] = 4  # neither does cloth: never seen as anything, so what the rig says
  votes[3, PARTS.index("left_ear")] = votes[3, PARTS.index("earring")] = 2
  votes[3, PARTS.index("skin")] = 3  # two labels of one group count together
  fallback = jnp.asarray([PARTS.index(name) for name in ("nose", "nose", "nose", "nose", "cloth")])
  found = [g.PARSING.names[k] for k in np.asarray(g.parsing_groups(jnp.asarray(votes), fallback))]
  assert found == ["lips", "hair", "nose", "ears", "skin"]


def test_a_parsing_map_without_a_class_leaves_its_group_empty():
  votes = np.zeros((6, 19), np.float32)
  votes[:, PARTS.index("skin")] = 1
  member = g.parsing_groups(jnp.asarray(votes), jnp.full(6, PARTS.index("skin")))
  points = jax.random.normal(jax.random.key(0), (6, 3))
  bodies = g.bodies_of(points, member, jnp.arange(6)[:, None], jnp.ones(6, bool), len(g.PARSING.names))
  skin = g.PARSING.names.index("skin")
  assert bodies.counts[skin] == 6 and bodies.counts.sum() == 6
  assert np.isfinite(bodies.sizes).all() and (np.asarray(bodies.sizes) > 0).all() and not np.asarray(bodies.border).any()
  _, there = g.sample(bodies, 4, jnp.zeros(()))
  assert there[skin].all() and there.sum() == 4


def _row():
  """Twelve points 1 m apart in a row: groups 0 (5), 1 (6) and none (1); the last of group 0 is dead; each neighbours the next."""
  points = jnp.stack([jnp.arange(12.0), jnp.zeros(12), jnp.zeros(12)], axis=1)
  member = jnp.asarray([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1])
  alive = jnp.ones(12, bool).at[4].set(False)
  neighbours = jnp.minimum(jnp.arange(12) + 1, 11)[:, None]
  return g.bodies_of(points, member, neighbours, alive, 3)


def test_bodies_by_hand():
  bodies = _row()
  np.testing.assert_array_equal(bodies.counts, [4, 6, 0])
  np.testing.assert_array_equal(bodies.order[:4], [0, 1, 2, 3])
  np.testing.assert_array_equal(bodies.order[4:10], [5, 6, 7, 8, 9, 10])
  assert bodies.groups[4] == -1
  distances = [[abs(i - j) for i in range(n) for j in range(n) if i != j] for n in (4, 6)]
  np.testing.assert_allclose(bodies.sizes, [np.percentile(distances[0], 95), np.percentile(distances[1], 95), 1.0], rtol=1e-6)
  assert not np.asarray(bodies.border).any()  # the dead point parted them
  joined = g.bodies_of(jnp.zeros((3, 3)), jnp.asarray([0, 1, 2]), jnp.asarray([[1], [2], [2]]), jnp.ones(3, bool), 3)
  np.testing.assert_allclose(joined.border, 0.5 * np.asarray([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))


def test_samples_cover_their_group_and_change_with_the_phase():
  bodies = _row()
  chosen, there = g.sample(bodies, 3, jnp.zeros(()))
  np.testing.assert_array_equal(chosen[1], [5, 7, 9])
  later, _ = g.sample(bodies, 3, jnp.asarray(0.6))
  np.testing.assert_array_equal(later[1], [6, 8, 10])
  assert there[:2].all() and not there[2].any()
  all_of_it, there = g.sample(bodies, 8, jnp.asarray(0.4))
  np.testing.assert_array_equal(all_of_it[0][there[0]], [0, 1, 2, 3])  # fewer members than atoms: each once
  assert there.sum() == 10


def test_mobility_is_a_root_mean_square():
  displacement = jnp.zeros((2, 3, 3)).at[0, 0, 0].set(4.0).at[1, 2, 1].set(2.0)
  np.testing.assert_allclose(g.mobility_of(displacement, jnp.asarray([0, 0, 1]), 3), [np.sqrt(16 / 4), np.sqrt(4 / 2), 0.0], rtol=1e-6)
