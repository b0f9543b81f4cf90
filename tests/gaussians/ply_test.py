"""PLY files: bytes where they belong, round trips, and what is said of broken files."""

import jax.numpy as jnp
import numpy as np
import pytest

from silky_jax.gaussians import ply
from silky_jax.gaussians.covariance import covariance_from_axes
from silky_jax.types import Gaussians

NAMES = (
  ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
  + [f"f_rest_{i}" for i in range(45)]
  + ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
)


def _raw(count=7, degrees=16):
  rng = np.random.default_rng(0)
  shapes = {"means": (count, 3), "harmonics": (count, degrees, 3), "opacity_logits": (count,)}
  shapes |= {"log_deviations": (count, 3), "quaternions": (count, 4)}
  return ply.RawGaussians(**{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


def test_layout_is_the_one_of_3d_gaussian_splatting(tmp_path):
  raw = _raw()
  ply.write(tmp_path / "a.ply", raw)
  content = (tmp_path / "a.ply").read_bytes()
  header, body = content.split(b"end_header\n", 1)
  assert header.decode().splitlines() == [
    "ply",
    "format binary_little_endian 1.0",
    "element vertex 7",
    *(f"property float {name}" for name in NAMES),
  ]
  table = dict(zip(NAMES, np.frombuffer(body, "<f4").reshape(7, 62).T, strict=True))
  np.testing.assert_array_equal(table["y"], raw.means[:, 1])
  np.testing.assert_array_equal(table["nx"], 0)
  np.testing.assert_array_equal(table["f_dc_2"], raw.harmonics[:, 0, 2])
  # Channel-major: the 15 higher harmonics of red, then of green, then of blue.
  np.testing.assert_array_equal(table["f_rest_0"], raw.harmonics[:, 1, 0])
  np.testing.assert_array_equal(table["f_rest_14"], raw.harmonics[:, 15, 0])
  np.testing.assert_array_equal(table["f_rest_15"], raw.harmonics[:, 1, 1])
  np.testing.assert_array_equal(table["f_rest_44"], raw.harmonics[:, 15, 2])
  np.testing.assert_array_equal(table["opacity"], raw.opacity_logits)
  np.testing.assert_array_equal(table["scale_1"], raw.log_deviations[:, 1])
  np.testing.assert_array_equal(table["rot_0"], raw.quaternions[:, 0])


@pytest.mark.parametrize("degrees", [1, 4, 9, 16])
def test_round_trip(tmp_path, degrees):
  raw = _raw(degrees=degrees)
  ply.write(tmp_path / "a.ply", raw)
  back = ply.read(tmp_path / "a.ply")
  np.testing.assert_array_equal(back.harmonics[:, :degrees], raw.harmonics)
  np.testing.assert_array_equal(back.harmonics[:, degrees:], 0)
  for name in ("means", "opacity_logits", "log_deviations", "quaternions"):
    np.testing.assert_array_equal(getattr(back, name), getattr(raw, name))
  assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_gaussians_survive_a_file_and_dead_slots_do_not(tmp_path):
  rng = np.random.default_rng(1)
  quaternions, deviations = rng.normal(size=(6, 4)), rng.uniform(0.001, 0.01, size=(6, 3))
  gaussians = Gaussians(
    means=jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
    covariances=covariance_from_axes(jnp.asarray(quaternions, jnp.float32), jnp.asarray(deviations, jnp.float32)),
    opacities=jnp.asarray([0.1, 0.5, 0.0, 0.9, 1.0, 0.3]),
    features=jnp.asarray(rng.uniform(size=(6, 3)), jnp.float32),
  )
  ply.write(tmp_path / "a.ply", ply.from_gaussians(gaussians))
  back, alive = ply.to_gaussians(ply.read(tmp_path / "a.ply")), np.array([0, 1, 3, 4, 5])
  np.testing.assert_array_equal(back.means, gaussians.means[alive])
  np.testing.assert_allclose(back.covariances, gaussians.covariances[alive], rtol=1e-3, atol=1e-10)
  np.testing.assert_allclose(back.opacities, gaussians.opacities[alive], atol=2e-6)
  np.testing.assert_allclose(back.features, gaussians.features[alive], atol=1e-6)


def test_reads_any_order_and_lower_degrees(tmp_path):
  names = ["opacity", *(f"rot_{i}" for i in range(4)), "extra", "x", "y", "z", "f_dc_2", "f_dc_1", "f_dc_0"]
  names += [f"scale_{i}" for i in range(3)] + [f"f_rest_{i}" for i in range(9)]
  table = np.arange(2 * len(names), dtype="<f8").reshape(2, -1)
  header = ["ply", "format binary_little_endian 1.0", "comment made elsewhere", "element vertex 2"]
  header += [f"property double {name}" for name in names] + ["element face 0", "property list uchar int vertex_index", "end_header", ""]
  (tmp_path / "a.ply").write_bytes("\n".join(header).encode() + table.tobytes())
  raw = ply.read(tmp_path / "a.ply")
  np.testing.assert_array_equal(raw.means[0], [6, 7, 8])
  np.testing.assert_array_equal(raw.harmonics[0, 0], [11, 10, 9])
  np.testing.assert_array_equal(raw.harmonics[0, 1:4, 0], [15, 16, 17])
  np.testing.assert_array_equal(raw.harmonics[0, 1:4, 2], [21, 22, 23])


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda c: b"hello", "not a PLY file"),
    (lambda c: c[:-5], "cut short"),
    (lambda c: c.replace(b"binary_little_endian", b"ascii"), "binary_little_endian"),
    (lambda c: c.replace(b"property float opacity", b"property float opatity"), "lacks opacity"),
    (lambda c: c.replace(b"f_rest_44", b"g_rest_44"), "45 properties"),
    (lambda c: c.replace(b"property float x", b"property real x"), "real x"),
    (lambda c: c.replace(b"element vertex 7", b"element vertex ?"), "element vertex"),
  ],
)
def test_broken_files_are_named(tmp_path, spoil, message):
  path = tmp_path / "a.ply"
  ply.write(path, _raw())
  path.write_bytes(spoil(path.read_bytes()))
  with pytest.raises(ply.PlyError, match=message):
    ply.read(path)


def test_wrong_shapes_are_named_and_leave_the_old_file(tmp_path):
  path = tmp_path / "a.ply"
  ply.write(path, _raw())
  before = path.read_bytes()
  with pytest.raises(ValueError, match="quaternions: expected"):
    ply.write(path, _raw()._replace(quaternions=np.zeros((7, 3), np.float32)))
  with pytest.raises(ValueError, match="1, 4, 9 or 16"):
    ply.write(path, _raw(degrees=5))
  assert path.read_bytes() == before
