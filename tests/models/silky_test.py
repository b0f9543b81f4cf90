"""The silky family: where its Gaussians are, how they turn, and what its limits hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.config import ConfigError
from silky_jax.flame.model import flame_vertices
from silky_jax.flame.regions import PARTS, vertex_mask
from silky_jax.geometry.mesh import face_normals, face_pieces
from silky_jax.math.rotation import matrix_from_axis_angle, matrix_from_quaternion, quaternion_multiply
from silky_jax.models.silky import SilkyConfig, make
from silky_jax.ot.groups import PARSING
from silky_jax.ot.term import TransportConfig
from silky_jax.physics.term import PhysicsConfig
from silky_jax.types import Prediction

CONFIG = SilkyConfig(uv_size=24, width=8, depth=2, frequencies=2)


@pytest.fixture(scope="module")
def avatar():
  whole = make(CONFIG)
  return whole._replace(deform=jax.jit(whole.deform), paint=jax.jit(whole.paint))


@pytest.fixture(scope="module")
def start(avatar, rig, subject):
  return avatar.init(jax.random.key(0), rig, subject)


@pytest.fixture(scope="module")
def trained(start):
  leaves, tree = jax.tree.flatten(start.params)
  keys = jax.random.split(jax.random.key(3), len(leaves))
  return start.replace(params=tree.unflatten([x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]))


def _with(variables, **changes):
  """Variables with some Gaussian parameters replaced."""
  return variables.replace(params={**variables.params, "gaussians": {**variables.params["gaussians"], **changes}})


def test_zero_network_gives_exactly_the_coarse_avatar(start, rig, make_frame):
  fine, coarse = make(CONFIG), make(dataclasses.replace(CONFIG, residual="none"))
  moved = _with(start, offset=start.params["gaussians"]["offset"] + 0.003, scale=start.params["gaussians"]["scale"] - 0.2)
  without = moved.replace(params={"gaussians": moved.params["gaussians"]})
  for seed in range(3):
    # Without jit: two compiled programs may round differently.
    both = fine.deform(moved, rig, make_frame(seed))[0], coarse.deform(without, rig, make_frame(seed))[0]
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_starts_on_the_posed_surface(avatar, start, rig, subject, make_frame):
  frame = make_frame(4)
  gaussians, aux = avatar.deform(start, rig, frame)
  vertices, _ = flame_vertices(rig, subject.shape, frame.expression, frame.pose, eyelids=frame.eyelids)
  corners = np.asarray(vertices + frame.translation)[np.asarray(rig.faces)[start.buffers["faces"]]]
  expected = np.einsum("nk,nkc->nc", start.buffers["barycentric"], corners)
  np.testing.assert_allclose(gaussians.means, expected, atol=1e-6)
  np.testing.assert_allclose(aux["anchors"], expected, atol=1e-6)
  np.testing.assert_array_equal(aux["local"], 0.0)


def test_thin_axis_follows_the_triangle_normal(avatar, start, rig, subject, make_frame):
  frame = make_frame(5)
  gaussians, aux = avatar.deform(start, rig, frame)
  vertices, _ = flame_vertices(rig, subject.shape, frame.expression, frame.pose, eyelids=frame.eyelids)
  normals = np.asarray(face_normals(vertices, rig.faces))[start.buffers["faces"]]
  values, axes = np.linalg.eigh(np.asarray(gaussians.covariances, np.float64))
  assert np.abs(np.sum(axes[:, :, 0] * normals, axis=1)).min() > 0.999
  # Standard deviations, not variances: 0.3 and 0.7 of the spacing.
  spacing = np.asarray(start.buffers["spacing"])
  np.testing.assert_allclose(np.sqrt(values), spacing[:, None] * [0.3, 0.7, 0.7], rtol=1e-3)
  turned = matrix_from_quaternion(quaternion_multiply(aux["carried"], aux["quaternions"]))[:, :, 1]
  assert np.sum(turned * normals, axis=1).min() > 0.999


def test_head_rotation_moves_everything_rigidly(avatar, trained, rig, make_frame):
  """A rotated head seen by a camera rotated along: the same colours, rotated means and covariances."""
  frame = make_frame(6)
  frame = frame.replace(pose=frame.pose.at[0].set(0.0))
  turn = jnp.asarray([0.3, -0.5, 0.2])
  rotation = matrix_from_axis_angle(turn)
  # The root joint is not at the origin: rotating about it adds a shift.
  pivot = flame_vertices(rig, trained.buffers["shape"], frame.expression, frame.pose.at[0].set(turn))[1][0, :3, 3]
  rigid = jnp.eye(4).at[:3, :3].set(rotation).at[:3, 3].set(pivot - rotation @ frame.translation + frame.translation)
  camera = frame.camera.replace(world_to_camera=frame.camera.world_to_camera @ jnp.linalg.inv(rigid))
  before = avatar.deform(trained, rig, frame)[0]
  after = avatar.deform(trained, rig, frame.replace(pose=frame.pose.at[0].set(turn), camera=camera))[0]
  np.testing.assert_allclose(after.means, before.means @ rotation.T + rigid[:3, 3], atol=2e-6)
  np.testing.assert_allclose(after.covariances, rotation @ before.covariances @ rotation.T, atol=1e-9, rtol=1e-3)
  np.testing.assert_allclose(after.features, before.features, atol=1e-5)
  np.testing.assert_allclose(after.opacities, before.opacities, atol=1e-6)


def test_offsets_ride_with_the_head(avatar, start, rig, make_frame):
  """A static offset is a constant in the carried frame."""
  offset = 0.004 * jax.random.normal(jax.random.key(0), start.params["gaussians"]["offset"].shape)
  for seed in (1, 2):
    gaussians, aux = avatar.deform(_with(start, offset=offset), rig, make_frame(seed))
    carried = np.asarray(matrix_from_quaternion(aux["carried"]))
    local = np.einsum("nji,nj->ni", carried, np.asarray(gaussians.means - aux["anchors"]))
    np.testing.assert_allclose(local, aux["offset"], atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(carried), 1.0, atol=1e-5)


def test_limits_hold_for_absurd_parameters(avatar, start, rig, make_frame):
  wild = jax.tree.map(lambda leaf: leaf + 50.0 * jax.random.normal(jax.random.key(0), leaf.shape), start)
  gaussians, aux = avatar.deform(start.replace(params=wild.params), rig, make_frame())
  lengths = np.linalg.norm(aux["offset"], axis=1)
  assert (lengths <= np.asarray(start.buffers["offset_limit"]) * (1 + 1e-5)).all() and lengths.max() > 0.9 * CONFIG.offset_limit
  assert np.linalg.norm(aux["motion"], axis=1).max() <= CONFIG.motion_limit * (1 + 1e-5)
  deviations = np.exp(np.asarray(aux["log_deviations"]))
  assert deviations.min() >= 0.999 * CONFIG.smallest_deviation and deviations.max() <= 1.001 * CONFIG.largest_deviation
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gaussians))


def test_regions_decide_where_gaussians_are_and_how_far_they_go(rig, start):
  faces = np.asarray(rig.faces)[start.buffers["faces"]]
  assert not np.asarray(vertex_mask(rig, ("torso", "eye_socket")))[faces].any()
  scalp = np.asarray(vertex_mask(rig, ("scalp",)))[faces].all(axis=1)
  limit = np.asarray(start.buffers["offset_limit"])
  np.testing.assert_allclose(limit[scalp], 0.040)
  np.testing.assert_allclose(limit[~scalp], 0.010)
  assert 0 < scalp.sum() < len(scalp)


def test_no_gaussian_of_the_eyes_and_mouth_is_forgotten(rig, subject):
  variables = make(SilkyConfig(uv_size=96, residual="none", harmonics_degree=0)).init(jax.random.key(0), rig, subject)
  regions = {rig.region_names[i] for i in np.asarray(variables.buffers["regions"])}
  assert {"left_eyeball", "right_eyeball", "upper_teeth", "lower_teeth", "tongue", "mouth_interior"} & set(rig.region_names) <= regions


def test_paint_takes_the_colour_of_what_is_seen(avatar, start, rig, make_frame):
  frame = make_frame(strength=0.0)
  image = jnp.where(jnp.arange(48)[None, :, None] < 24, jnp.asarray([0.9, 0.1, 0.1]), jnp.asarray([0.1, 0.1, 0.9]))
  frames = jax.tree.map(lambda leaf: leaf[None], frame.replace(image=jnp.broadcast_to(image, (48, 48, 3))))
  gaussians, aux = avatar.deform(avatar.paint(start, rig, frames), rig, frame)
  middle = float(jnp.mean(rig.template[:, 0]))
  front = np.asarray(aux["anchors"])[:, 2] > np.quantile(np.asarray(aux["anchors"])[:, 2], 0.8)
  left, right = (front & (side * (np.asarray(aux["anchors"])[:, 0] - middle) > 0.03) for side in (-1, 1))
  # The subject's left is on the right of the picture.
  assert jnp.median(gaussians.features[left, 0]) > 0.8 and jnp.median(gaussians.features[right, 2]) > 0.8


def test_paint_goes_on_where_nothing_is_seen(avatar, start, rig, make_frame):
  frame = make_frame(strength=0.0)
  red, blue = jnp.asarray([0.9, 0.1, 0.1]), jnp.asarray([0.1, 0.1, 0.9])
  image = jnp.broadcast_to(jnp.where(jnp.arange(48)[None, :, None] < 24, red, blue), (48, 48, 3))
  # The upper half of the picture shows the head, the lower half counts as outside of it.
  frame = frame.replace(image=image, mask=(jnp.arange(48)[:, None] < 24) * jnp.ones((48, 48)))
  painted = avatar.paint(start, rig, jax.tree.map(lambda leaf: leaf[None], frame))
  anchors = np.asarray(avatar.deform(start, rig, frame)[1]["anchors"])
  skin = np.asarray(rig.region_names)[np.asarray(start.buffers["regions"])] == "face"
  unseen = skin & (anchors[:, 1] < np.quantile(anchors[skin, 1], 0.3))
  colors = 0.5 + 0.28209479 * np.asarray(painted.params["gaussians"]["color"])
  # The subject's right cheek goes on below in the colour it has above, not in the mean of both.
  for side, channel in ((-1, 0), (1, 2)):
    cheek = unseen & (side * anchors[:, 0] > 0.03)
    assert cheek.sum() > 3
    assert np.median(colors[cheek, channel]) - np.median(colors[cheek, 2 - channel]) > 0.25


def test_neighbours_lie_on_the_same_surface(rig, subject):
  variables = make(SilkyConfig(uv_size=64, residual="none", harmonics_degree=0)).init(jax.random.key(0), rig, subject)
  buffers = {name: np.asarray(value) for name, value in variables.buffers.items()}
  piece = face_pieces(np.asarray(rig.faces))[buffers["faces"]]
  assert len(np.unique(piece)) > 1
  hair = np.asarray(vertex_mask(rig, ("scalp",)))[np.asarray(rig.faces)[buffers["faces"]]].all(axis=1)
  assert (hair[buffers["neighbours"]] == hair[:, None]).all()
  assert (piece[buffers["neighbours"]] == piece[:, None]).all()
  normals = np.asarray(matrix_from_quaternion(variables.buffers["axes"]))[:, :, 1]
  assert (np.einsum("nc,nkc->nk", normals, normals[buffers["neighbours"]]) > 0).all()
  own = buffers["neighbours"] == np.arange(len(piece))[:, None]
  assert 0 < own.mean() < 0.5


def test_exposure_scales_colours_and_nothing_else(avatar, trained, rig, make_frame):
  frame = make_frame()
  plain, bright = (avatar.deform(trained, rig, f)[0] for f in (frame, frame.replace(exposure=jnp.asarray([1.1, 1.0, 0.9]))))
  np.testing.assert_allclose(bright.features, plain.features * jnp.asarray([1.1, 1.0, 0.9]), rtol=1e-6)
  np.testing.assert_array_equal(bright.means, plain.means)


def test_terms(avatar, start, rig, make_frame):
  def terms(variables):
    frame = make_frame()
    aux = jax.tree.map(lambda x: x[None, None], avatar.deform(variables, rig, frame)[1])
    found = avatar.regularize(variables, rig, frame, Prediction(None, None, None, aux))
    return {name: term for name, term in found.items() if not callable(term)}

  zero = terms(start)
  np.testing.assert_allclose(zero.pop("transparency"), 1 - CONFIG.initial_opacity, rtol=1e-5)
  assert set(zero) == {"motion", "offset", "smoothness", "size", "color_change", "color_smoothness", "view_dependence"}
  np.testing.assert_allclose(list(zero.values()), 0.0, atol=1e-12)
  # One Gaussian of another colour: it differs from its neighbours, and those that have it as one differ from it.
  neighbours = np.asarray(start.buffers["neighbours"])
  lone = start.params["gaussians"]["color"].at[0].set(jnp.asarray([1.0, 0.0, 0.0]) / 0.28209479)
  pairs = (neighbours[0] != 0).sum() + (neighbours[1:] == 0).sum()
  np.testing.assert_allclose(terms(_with(start, color=lone))["color_smoothness"], pairs / neighbours.size, rtol=1e-4)
  np.testing.assert_allclose(terms(_with(start, harmonics=start.params["gaussians"]["harmonics"] + 2.0))["view_dependence"], 4.0)
  # All Gaussians 1 mm off along x: as far as neighbours can tell, nothing happened.
  shifted = terms(_with(start, offset=jnp.zeros_like(start.params["gaussians"]["offset"]).at[:, 0].set(1e-3)))
  assert shifted["offset"] > 0 and shifted["smoothness"] < 1e-4 and shifted["motion"] == 0
  # Deviations e times as long as twice the spacing.
  close = start.replace(buffers={**start.buffers, "spacing": jnp.full_like(start.buffers["spacing"], 1e-3)})
  wide = jnp.full_like(start.params["gaussians"]["scale"], np.log(2e-3) + 1)
  np.testing.assert_allclose(terms(_with(close, scale=wide))["size"], 1.0, rtol=1e-4)


def _clip(make_frame, frames=4):
  """Expressions that come and go, one every 40 ms."""
  clip = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *(make_frame(seed) for seed in range(frames)))
  return clip.replace(time=0.04 * jnp.arange(frames, dtype=jnp.float32)[None], shot=jnp.zeros((1, frames), jnp.int32))


def test_physics_hears_the_network_alone(start, trained, rig, make_frame):
  """The coarse avatar rides on the mesh: no cost, however the mesh moves. A wild network costs, and every part of it hears of it."""
  clip = _clip(make_frame)
  prediction = Prediction(None, None, None, make(CONFIG).deform(start, rig, jax.tree.map(lambda leaf: leaf[0, 0], clip))[1])

  def term(config):
    family = make(dataclasses.replace(CONFIG, physics=config))
    loss = lambda params: family.regularize(trained.replace(params=params), rig, clip, prediction)["physics"]().value
    return jax.jit(jax.value_and_grad(loss))

  anchored = term(PhysicsConfig(sample=50))
  for loss in (anchored, term(PhysicsConfig(mode="absolute", predictor="airm1", order=1))):
    value, gradient = loss(trained.params)
    assert 1e-4 < value < 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["residual"]))
  still, _ = anchored(start.params)
  assert abs(still) < 1e-5


def test_physics_in_the_world_hears_where_the_head_is(start, rig, make_frame):
  """A head that stands still, put elsewhere in one frame: in its own axes nothing moves, in the world's everything does."""
  clip = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, :1], 4, axis=1), _clip(make_frame)).replace(time=_clip(make_frame).time)
  prediction = Prediction(None, None, None, make(CONFIG).deform(start, rig, make_frame())[1])

  def term(mode):
    family = make(dataclasses.replace(CONFIG, physics=PhysicsConfig(sample=50, mode=mode, predictor="airm1")))
    loss = lambda translation: family.regularize(start, rig, clip.replace(translation=translation), prediction)["physics"]().value
    return jax.jit(jax.value_and_grad(loss))

  jerked = clip.translation.at[:, 2].add(jnp.asarray([0.004, 0.0, 0.0]))
  world = term("world")
  assert abs(term("absolute")(jerked)[0]) < 1e-5 and abs(world(clip.translation)[0]) < 1e-5
  value, gradient = world(jerked)
  assert value > 1e-3 and np.isfinite(gradient).all() and gradient[0, 2, 0] > 0


def test_covariances_predicted_by_the_mesh_hear_it_stretch(start, trained, rig, make_frame):
  """Gaussians turn with the surface and do not stretch with it, so it costs where the mesh stretches, and not where the head turns."""
  family = make(dataclasses.replace(CONFIG, physics=PhysicsConfig(sample=40, predictor="mesh")))
  prediction = Prediction(None, None, None, make(CONFIG).deform(start, rig, make_frame())[1])
  run = jax.jit(
    jax.value_and_grad(lambda params, clip: family.regularize(trained.replace(params=params), rig, clip, prediction)["physics"]().value)
  )
  moving = _clip(make_frame)
  value, gradient = run(start.params, moving)
  assert value > 1e-5 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  turning = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, :1], 4, axis=1), moving).replace(
    time=moving.time, pose=moving.pose.at[:, :, 1:].set(0.0)
  )
  turning = turning.replace(expression=jnp.zeros_like(turning.expression), eyelids=jnp.zeros_like(turning.eyelids))
  assert abs(run(start.params, turning)[0]) < 1e-6


def test_physics_wants_a_window(start, rig, make_frame):
  clip = _clip(make_frame, frames=3)
  prediction = Prediction(None, None, None, make(CONFIG).deform(start, rig, make_frame())[1])
  with pytest.raises(ConfigError, match=r"clips.length: the term physics wants at least 4 frames, got 3"):
    make(CONFIG).regularize(start, rig, clip, prediction)["physics"]()


_TRANSPORT = TransportConfig(atoms=8, levels=(1,), stiffness_every=1)


def test_transport_hears_what_leaves_the_mesh_and_lets_hair_be(start, trained, rig, make_frame):
  """On the mesh nothing costs; hair that stands off the scalp costs nothing either; skin that drifts does."""
  family = make(dataclasses.replace(CONFIG, transport=_TRANSPORT))
  frame = make_frame()

  @jax.jit
  def run(variables):
    def loss(params):
      own = variables.replace(params=params)
      clip = jax.tree.map(lambda leaf: leaf[None, None], family.deform(own, rig, frame))
      found = family.regularize(own, rig, frame, Prediction(clip[0], None, None, clip[1]))["transport"]()
      return found.value, found

    return jax.value_and_grad(loss, has_aux=True)(variables.params)

  (still, found), _ = run(start)
  assert abs(still) < 1e-5 and found.report["unsolved"] == 0
  count = len(start.buffers["alive"])
  hair = np.asarray([name == "scalp" for name in rig.region_names])[np.asarray(start.buffers["regions"])]
  drift = jnp.zeros((count, 3)).at[:, 2].set(0.004)
  assert abs(run(_with(start, offset=jnp.where(hair[:, None], drift, 0.0)))[0][0]) < 1e-5
  (moved, found), gradient = run(_with(start, offset=jnp.where(hair[:, None], 0.0, drift)))
  assert moved > 1e-3
  assert (np.asarray(gradient["gaussians"]["offset"])[~hair, 2].sum()) > 0  # back the way it came
  (wild, found), gradient = run(trained)
  assert wild > 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["residual"]))
  before = trained.buffers["memory"]["transport"]
  assert found.memory["transport"]["looks"] == 1 and found.memory["transport"]["stress"].any()
  assert not np.allclose(found.memory["transport"]["stiffness"], before["stiffness"])
  assert jax.tree.map(lambda x: (x.shape, x.dtype), found.memory["transport"]) == jax.tree.map(lambda x: (x.shape, x.dtype), before)


def test_transport_against_rest_lets_all_stand_off_and_hears_motion(start, trained, rig, make_frame):
  values = {}
  for reference in ("mesh", "rest"):
    family = make(dataclasses.replace(CONFIG, transport=dataclasses.replace(_TRANSPORT, reference=reference)))

    @jax.jit
    def run(variables, family=family):
      clip = jax.tree.map(lambda leaf: leaf[None, None], family.deform(variables, rig, make_frame()))
      return family.regularize(variables, rig, make_frame(), Prediction(clip[0], None, None, clip[1]))["transport"]().value

    drift = jnp.zeros((len(start.buffers["alive"]), 3)).at[:, 2].set(0.004)
    values[reference] = run(_with(start, offset=drift)), run(trained)
  assert values["mesh"][0] > 1e-3 and abs(values["rest"][0]) < 1e-5  # where it rests
  assert values["rest"][1] > 1e-5  # what the network moves


def test_a_rig_without_landmarks_is_told_what_to_do(start, rig, subject, make_frame):
  bare = rig.replace(landmarks=None)
  avatar = make(CONFIG)
  variables = avatar.init(jax.random.key(0), bare, subject)  # fine as long as nobody asks for the term
  with pytest.raises(ConfigError, match=r"68 iBUG landmarks.*landmark_embedding.npy.*face-parsing"):
    clip = jax.tree.map(lambda leaf: leaf[None, None], avatar.deform(variables, bare, make_frame()))
    avatar.regularize(variables, bare, make_frame(), Prediction(clip[0], None, None, clip[1]))["transport"]()
  with pytest.raises(ConfigError, match="landmark_groups: expected one of"):
    make(dataclasses.replace(CONFIG, transport=TransportConfig(landmark_groups="lips"))).init(jax.random.key(0), rig, subject)


def test_groups_by_parsing_are_what_frames_show(rig, subject, make_frame):
  """Before any frame they are what the rig's regions are seen as; then, where a Gaussian is seen, what its pixels are labelled."""
  config = dataclasses.replace(CONFIG, transport=TransportConfig(landmark_groups="face-parsing"))
  avatar = make(config)
  variables = avatar.init(jax.random.key(0), rig, subject)
  names = np.asarray(PARSING.names)
  groups = lambda v: names[np.asarray(v.buffers["transport"]["bodies"]["groups"])]
  region = np.asarray(rig.region_names)[np.asarray(variables.buffers["regions"])]
  assert set(groups(variables)[region == "upper_lip"]) == {"lips"} and set(groups(variables)[region == "scalp"]) == {"hair"}
  frames = [make_frame(seed, strength=0.5) for seed in range(2)]
  clip = jax.tree.map(lambda *leaves: jnp.stack(leaves), *frames)
  clip = clip.replace(parts=jnp.full_like(clip.parts, PARTS.index("glasses")))
  painted = jax.jit(avatar.paint)(variables, rig, clip)
  seen = groups(painted) == "glasses"
  front = np.isin(region, ["face", "forehead", "nose"])
  assert seen[front].mean() > 0.3 and not seen[region == "neck"].all()
  np.testing.assert_array_equal(groups(painted)[~seen], groups(variables)[~seen])
  weights = np.asarray(painted.buffers["memory"]["transport"]["stiffness"])
  assert ((weights >= 0.05) & (weights <= 1)).all() and weights[PARSING.names.index("lips")] < weights[PARSING.names.index("hair")]
  assert jax.tree.map(jnp.shape, painted) == jax.tree.map(jnp.shape, variables)


def test_motion_is_reported_in_square_millimetres(avatar, start, rig, make_frame):
  aux = jax.tree.map(lambda x: x[None, None], avatar.deform(start, rig, make_frame())[1])
  aux["motion"] = jnp.zeros_like(aux["motion"]).at[..., 1].set(2e-3)
  terms = avatar.regularize(start, rig, make_frame(), Prediction(None, None, None, aux))
  np.testing.assert_allclose(terms["motion"], 4.0, rtol=1e-5)


def test_refusals(rig, subject):
  for transport in (TransportConfig(levels=(0, 2), landmark_groups="face-parsing"), TransportConfig(levels=(3,))):
    with pytest.raises(ConfigError, match=r"transport\.levels: expected some of 0, 1 and"):
      make(SilkyConfig(transport=transport))
  with pytest.raises(ConfigError, match="0 to 3, got 4"):
    make(SilkyConfig(harmonics_degree=4))
  with pytest.raises(ConfigError, match=r"drop_regions: no region 'torzo'; did you mean 'torso'"):
    make(SilkyConfig(uv_size=8, drop_regions=("torzo",))).init(jax.random.key(0), rig, subject)
