"""The silky avatar's frame and training step in PyTorch and gsplat, written from `silky_jax/models/silky`: what ours is compared with.

    python experiments/torch_avatar.py FOLDER

reads FOLDER/avatar.npz (`experiments.bench_avatar.export`), writes FOLDER/peer.npz (Gaussians of the first moment; on a GPU the pictures of
all) and FOLDER/peer.json (figures, on a GPU). Imports nothing of ours. Favours speed where the numbers stay the same: the person at rest
and the rest joints are made once, blendshapes and pose correctives are one product, gsplat evaluates the harmonics, Adam is fused. No step
before the rasterizer waits for the device.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

_WARM, _SINGLE, _MANY = 8, 60, 200  # frames
_TRAINED = ("offset", "rotation", "scale", "opacity", "harmonics")
_RATES = {"offset": 2e-4, "rotation": 1e-3, "scale": 5e-3, "opacity": 5e-2, "harmonics": 2.5e-3}


class Deformed(NamedTuple):
  """Gaussians in the world."""

  means: torch.Tensor  # [n, 3]
  quats: torch.Tensor  # [n, 4] wxyz
  scales: torch.Tensor  # [n, 3]
  opacities: torch.Tensor  # [n]
  colors: torch.Tensor  # [n, 3]


# ---- rotations -------------------------------------------------------------------------------------------------------------------


def quaternion_multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
  """Hamilton product, wxyz."""
  aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
  real = aw * bw - (av * bv).sum(-1, keepdim=True)
  return torch.cat([real, aw * bv + bw * av + torch.linalg.cross(av, bv.expand_as(av))], -1)


def rotate(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
  """R(q) v of unit quaternions."""
  twice = 2 * torch.linalg.cross(q[..., 1:], v)
  return v + q[..., :1] * twice + torch.linalg.cross(q[..., 1:], twice)


def quaternion_from_axes(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
  """Unit quaternions of matrices with the columns x, y, z: of the four rows of q q^T, the one with the largest diagonal."""
  (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = x.unbind(-1), y.unbind(-1), z.unbind(-1)
  squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], -1)
  wx, wy, wz, ab, ac, bc = zy - yz, xz - zx, yx - xy, xy + yx, xz + zx, yz + zy
  w2, x2, y2, z2 = squares.unbind(-1)
  table = torch.stack([w2, wx, wy, wz, wx, x2, ab, ac, wy, ab, y2, bc, wz, ac, bc, z2], -1).unflatten(-1, (4, 4))
  return F.normalize(table.gather(-2, squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4))[..., 0, :], dim=-1)


def matrix_from_axis_angle(vector: torch.Tensor) -> torch.Tensor:
  """Rodrigues; [j, 3] -> [j, 3, 3]."""
  angle = vector.norm(dim=-1).clamp_min(1e-8)[:, None, None]
  x, y, z = vector.unbind(-1)
  zero = torch.zeros_like(x)
  cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
  half = torch.sin(angle / 2) / angle
  return torch.eye(3, device=vector.device) + torch.sin(angle) / angle * cross + 2 * half * half * (cross @ cross)


def harmonics(degree: int, directions: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
  """Real harmonics with the signs of 3D Gaussian splatting, where gsplat's kernel cannot run (no GPU); degree 0 to 3."""
  x, y, z = F.normalize(directions, dim=-1).unbind(-1)
  pi = math.pi
  c1, c2, c3 = math.sqrt(3 / (4 * pi)), math.sqrt(15 / (4 * pi)), math.sqrt(105 / (4 * pi))
  d2, d3, e3, f3 = math.sqrt(5 / (16 * pi)), math.sqrt(35 / (32 * pi)), math.sqrt(21 / (32 * pi)), math.sqrt(7 / (16 * pi))
  xx, yy, zz = x * x, y * y, z * z
  values = [torch.full_like(x, 0.5 / math.sqrt(pi)), -c1 * y, c1 * z, -c1 * x]
  values += [c2 * x * y, -c2 * y * z, d2 * (2 * zz - xx - yy), -c2 * x * z, 0.5 * c2 * (xx - yy)]
  values += [-d3 * y * (3 * xx - yy), c3 * x * y * z, -e3 * y * (4 * zz - xx - yy), f3 * z * (2 * zz - 3 * xx - 3 * yy)]
  values += [-e3 * x * (4 * zz - xx - yy), 0.5 * c3 * z * (xx - yy), -d3 * x * (xx - 3 * yy)]
  return torch.einsum("nk,nkc->nc", torch.stack(values[: (degree + 1) ** 2], -1), coefficients)


# ---- the avatar ------------------------------------------------------------------------------------------------------------------


class Avatar:
  """The arrays of one avatar on a device, and its frame."""

  def __init__(self, arrays: dict[str, np.ndarray], device: str):
    """Args:
    arrays: of `experiments.bench_avatar.export`.
    device: "cpu" or "cuda".
    """
    put = lambda value: torch.as_tensor(np.ascontiguousarray(value), device=device)
    self.set = {key.removeprefix("set_"): value.item() for key, value in arrays.items() if key.startswith("set_")}
    a = {key: put(value) for key, value in arrays.items() if not key.startswith("set_")}
    self.a, self.device = a, device
    self.count, self.expressions = len(arrays["offset"]), arrays["expression_basis"].shape[-1]
    rest = a["template"] + a["shape_basis"] @ a["shape"] + a["vertex_offset"]
    self.rest = rest.reshape(-1)
    # One row per expression coefficient and per entry of the pose feature.
    self.blend = torch.cat([a["expression_basis"].flatten(0, 1).T, a["pose_basis"].flatten(1)]).contiguous()
    self.rest_joints = a["joint_regressor"] @ rest
    self.joint_blend = torch.einsum("jv,vce->jce", a["joint_regressor"], a["expression_basis"]).flatten(0, 1).contiguous()
    self.lids = a["eyelid_basis"].flatten(1)
    self.corners = a["faces"][a["site_faces"].long()].long()
    self.eye3 = torch.eye(3, device=device)
    self.bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], device=device).expand(len(arrays["parents"]), 1, 4)
    self.parents = [int(p) for p in arrays["parents"]]
    self.centre = -(a["world_to_camera"][:3, :3].T @ a["world_to_camera"][:3, 3])
    self.axes_back = a["axes"] * put(np.array([1, -1, -1, -1], np.float32))
    self.alive = a["alive"].float()
    self.params = {name: a[name].clone() for name in _TRAINED} | {key: a[key].clone() for key in a if key.startswith("net_")}
    self.on_gpu = device == "cuda"

  def posed(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices of the rig in the world [v, 3], and the rotation of the skull [3, 3], of one row of motion."""
    e, a = self.expressions, self.a
    rotations = matrix_from_axis_angle(row[e : e + 15].view(5, 3))
    feature = torch.cat([row[:e], (rotations[1:] - self.eye3).reshape(-1)])
    vertices = torch.addmv(self.rest, self.blend.T, feature).view(-1, 3)
    joints = self.rest_joints + (self.joint_blend @ row[:e]).view(-1, 3)
    places = joints - (rotations @ joints[:, :, None])[..., 0]
    local = torch.cat([torch.cat([rotations, places[..., None]], -1), self.bottom], -2)
    world = [local[0]]
    for joint, parent in enumerate(self.parents[1:], 1):
      world.append(world[parent] @ local[joint])
    blended = (a["skinning"] @ torch.stack(world)[:, :3].flatten(1)).view(-1, 3, 4)
    vertices = (blended[..., :3] * vertices[:, None]).sum(-1) + blended[..., 3]
    head = world[1][:3, :3]
    closing = (row[e + 15 : e + 17] @ self.lids).view(-1, 3)
    return vertices + closing @ head.T + row[e + 17 :], head

  def network(self, row: torch.Tensor) -> torch.Tensor:
    """What it adds, before its bounds: [n, 9 or 13]."""
    e, a, p, s = self.expressions, self.a, self.params, self.set
    parts = [(row[:e] - a["mean_expression"]) / a["expression_scale"]]
    if s["condition_on_place"]:
      parts += [row[e : e + 3] / 0.2, row[e + 17 :] / 0.1]
    limit = s["condition_limit"]
    shared = torch.cat([limit * torch.tanh(torch.cat(parts) / limit), row[e + 3 : e + 15] / 0.2, row[e + 15 : e + 17]])
    x = torch.addmm(shared @ p["net_condition_kernel"] + p["net_condition_bias"], a["encoding"], p["net_point_kernel"])
    for name in [f"hidden_{k}" for k in range(1, s["depth"])] + ["output"]:
      x = torch.addmm(p[f"net_{name}_bias"], F.relu(x), p[f"net_{name}_kernel"])
    return x

  def deform(self, row: torch.Tensor) -> Deformed:
    """The Gaussians of one row of motion (expression, pose, eyelids, translation)."""
    a, p, s = self.a, self.params, self.set
    vertices, head = self.posed(row)
    corners = vertices[self.corners]
    anchors = (a["barycentric"][..., None] * corners).sum(1)
    edge, side = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    along = F.normalize(edge, dim=-1)
    normal = F.normalize(torch.linalg.cross(along, side), dim=-1)
    axes = quaternion_from_axes(along, normal, -torch.linalg.cross(normal, along))
    carried = quaternion_multiply(axes, self.axes_back)

    offset = p["offset"] * torch.rsqrt(1 + (p["offset"] ** 2).sum(-1, keepdim=True) / a["offset_limit"][:, None] ** 2)
    turn = quaternion_multiply(a["axes"], F.normalize(p["rotation"], dim=-1))
    scale, opacity, color = p["scale"], p["opacity"], 0.5
    if s["network"]:
      out = self.network(row)
      motion, limit = s["motion_limit"] * out[:, :3], s["motion_limit"]
      offset = offset + motion * torch.rsqrt(1 + (motion**2).sum(-1, keepdim=True) / limit**2)
      turn = quaternion_multiply(F.normalize(F.pad(0.5 * out[:, 3:6], (1, 0), value=1.0), dim=-1), turn)
      scale = scale + s["stretch_limit"] * torch.tanh(out[:, 6:9])
      if out.shape[1] > 9:
        color, opacity = 0.5 + s["color_limit"] * torch.tanh(out[:, 9:12]), opacity + out[:, 12]
    means = anchors + rotate(carried, offset)
    low, high, sharp = math.log(s["smallest_deviation"]), math.log(s["largest_deviation"]), 16.0
    # No threshold: the default one turns a softplus into a line above 20.
    bend = lambda x: torch.logaddexp(x, torch.zeros_like(x))
    scales = torch.exp(low + (bend(sharp * (scale - low)) - bend(sharp * (scale - high))) / sharp)
    directions = (means - self.centre) @ head
    colors = torch.relu(color + self._harmonics(directions, p["harmonics"]))
    return Deformed(means, quaternion_multiply(carried, turn), scales, torch.sigmoid(opacity) * self.alive, colors)

  def _harmonics(self, directions: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    if not self.on_gpu:
      return harmonics(self.set["harmonics_degree"], directions, coefficients)
    import gsplat

    return gsplat.spherical_harmonics(self.set["harmonics_degree"], directions, coefficients)

  def rasterize(self, given: Deformed) -> torch.Tensor:
    """The picture [h, w, 3]."""
    import gsplat

    a, size = self.a, self.set["size"]
    image, _, _ = gsplat.rasterization(
      *given,
      a["world_to_camera"][None],
      a["intrinsics"][None],
      size,
      size,
      near_plane=self.set["near"],
      eps2d=self.set["low_pass"],
      backgrounds=a["background"][None],
      packed=False,
      tile_size=16,
    )
    return image[0]


# ---- what is measured ------------------------------------------------------------------------------------------------------------


def _clock(call: Callable[[int], Any]) -> dict[str, float]:
  """Median milliseconds of a call that starts on an idle GPU, by events and by the clock; calls a second issued back to back."""
  for k in range(_WARM):
    call(k)
  torch.cuda.synchronize()
  events, walls = [], []
  for k in range(_SINGLE):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun = time.perf_counter()
    begin.record()
    call(k)
    end.record()
    torch.cuda.synchronize()
    walls.append(1e3 * (time.perf_counter() - begun))
    events.append(begin.elapsed_time(end))
  begun = time.perf_counter()
  for k in range(_MANY):
    call(k)
  torch.cuda.synchronize()
  rate = _MANY / (time.perf_counter() - begun)
  return {"ms_latency": statistics.median(events), "ms_latency_clock": statistics.median(walls), "per_second": rate}


def _frames(avatar: Avatar, rows: torch.Tensor, tf32: bool, graph: bool) -> tuple[dict[str, Any], torch.Tensor]:
  """A row of figures and the pictures of all moments."""
  torch.backends.cuda.matmul.allow_tf32 = tf32
  torch.cuda.reset_peak_memory_stats()
  given = torch.empty(rows.shape[1], device="cuda")
  deform: Callable[[], Deformed] = lambda: avatar.deform(given)
  if graph:
    made, replay = _captured(deform)
    deform = lambda: (replay(), made)[1]

  @torch.no_grad()
  def frame(k: int) -> torch.Tensor:
    given.copy_(rows[k % len(rows)], non_blocking=True)  # from pinned memory of the host
    return avatar.rasterize(deform())

  found = _clock(frame)
  images = torch.stack([frame(k).clone() for k in range(len(rows))])
  mode = "deform in a CUDA graph, rasterizer eager" if graph else "eager"
  row = {"what": "frame", "mode": mode, "precision": "tf32" if tf32 else "float32", "ms_latency": found["ms_latency"]}
  row |= {"ms_latency_clock": found["ms_latency_clock"], "frames_per_second": found["per_second"]}
  return row | {"peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20)}, images


def _captured(function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
  """What a function makes, in place, and what makes it again."""
  with torch.no_grad():
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
      for _ in range(3):
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
      made = function()
  return made, graph.replay


def _whole_capture(avatar: Avatar, row: torch.Tensor) -> str:
  """Whether the rasterizer too goes into a CUDA graph: "yes", or why not. Last of all: a failed capture may leave the device unusable."""
  given = row.cuda()
  try:
    _captured(lambda: avatar.rasterize(avatar.deform(given)))
    torch.cuda.synchronize()
  except Exception as error:  # whatever CUDA or the extension make of it
    return f"no: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
  return "yes"


def ssim(a: torch.Tensor, b: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
  """SSIM of two pictures [h, w, 3] where an 11 px window (sigma 1.5) fits whole; four blurs as one grouped convolution each way."""
  a, b = a.permute(2, 0, 1), b.permute(2, 0, 1)
  maps = torch.cat([a, b, a * a + b * b, a * b])[None]
  kernel = window.expand(12, 1, -1)
  blurred = F.conv2d(F.conv2d(maps, kernel[..., None], groups=12), kernel[:, :, None], groups=12)[0]
  mean_a, mean_b, squares, product = blurred.split(3)
  variances, covariance = squares - mean_a * mean_a - mean_b * mean_b, product - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  return ((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * (2 * covariance + c2) / (variances + c2)).mean()


def _training(avatar: Avatar, rows: torch.Tensor, targets: torch.Tensor, tf32: bool) -> dict[str, Any]:
  torch.backends.cuda.matmul.allow_tf32 = tf32
  torch.backends.cudnn.allow_tf32 = False  # SSIM subtracts what is nearly equal
  torch.cuda.reset_peak_memory_stats()
  taps = torch.exp(-0.5 * ((torch.arange(11, device="cuda") - 5) / 1.5) ** 2)
  window, rows = taps / taps.sum(), rows.cuda()
  before = {name: value.clone() for name, value in avatar.params.items()}
  for value in avatar.params.values():
    value.requires_grad_(True)
  groups = [{"params": [value], "lr": _RATES.get(name, 2e-3)} for name, value in avatar.params.items()]
  optimizer = torch.optim.Adam(groups, eps=1e-15, fused=True)

  def step(k: int) -> torch.Tensor:
    image, target = avatar.rasterize(avatar.deform(rows[k % len(rows)])), targets[k % len(rows)]
    loss = (image - target).abs().mean() + 0.2 * (1 - ssim(image, target, window))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()

  found = _clock(step)
  last = float(step(0))
  avatar.params.update(before)
  row = {"what": "training step", "mode": "eager", "precision": "tf32" if tf32 else "float32", "terms": ["l1", "ssim"], "loss": last}
  row |= {"ms_latency": found["ms_latency"], "ms_latency_clock": found["ms_latency_clock"], "steps_per_second": found["per_second"]}
  return row | {"peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20)}


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", type=Path)
  folder = parser.parse_args().folder
  arrays = dict(np.load(folder / "avatar.npz"))
  motion, film = torch.tensor(arrays.pop("motion")), torch.tensor(arrays.pop("film"))
  torch.backends.cuda.matmul.allow_tf32 = False
  avatar = Avatar(arrays, "cuda" if torch.cuda.is_available() else "cpu")
  with torch.no_grad():
    made = avatar.deform(motion[0].to(avatar.device))
  found = {name: value.cpu().numpy() for name, value in made._asdict().items()}
  rows: list[dict[str, Any]] = []
  content: dict[str, Any] = {"torch": torch.__version__, "rows": rows}
  if avatar.on_gpu:
    import gsplat

    motion = motion.pin_memory()
    content |= {"gsplat": gsplat.__version__}
    for tf32, graph in ((False, False), (True, False), (False, True), (True, True)):
      row, images = _frames(avatar, motion, tf32, graph)
      found[f"pictures_{len(rows)}"] = images.cpu().numpy()
      rows.append(row)
      print(json.dumps(row), flush=True)
    for tf32 in (False, True):
      rows.append(_training(avatar, motion, film.cuda(), tf32))
      print(json.dumps(rows[-1]), flush=True)
    content["whole_frame_in_a_graph"] = _whole_capture(avatar, motion[0])
  np.savez(folder / "peer.npz", **found)
  (folder / "peer.json").write_text(json.dumps(content))


if __name__ == "__main__":
  main()
