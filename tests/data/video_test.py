"""Video round trips: colours, odd sizes, the browser's needs, and files that are no video."""

import os
import struct

import numpy as np
import pytest

from silky_jax.config import UserError
from silky_jax.data.video import VideoWriter, iter_frames, probe_video, read_video, write_video
from tests.data import odd_videos


def _ramp(count: int, height: int, width: int) -> np.ndarray:
  y, x = np.mgrid[0:height, 0:width]
  frames = [np.stack([255 * x / width, 255 * y / height, np.full_like(x, 20 * t + 40, dtype=float)], -1) for t in range(count)]
  return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_round_trip(tmp_path, size):
  frames = _ramp(6, *size)
  path = write_video(tmp_path / "sub" / "a.mp4", frames, 25.0, crf=4)
  info, times, read = read_video(path)
  even = tuple(n + n % 2 for n in size)
  assert (info.height, info.width) == even
  assert (info.frames, info.fps, info.codec) == (6, 25.0, "h264")
  np.testing.assert_allclose(times, np.arange(6) / 25, atol=1e-6)
  error = np.abs(read[:, : size[0], : size[1]].astype(float) - frames)
  assert error.mean() < 3.0  # bytes; 4:2:0 chroma is the loss


def test_flat_colours_keep_their_value(tmp_path):
  for colour in ((255, 0, 0), (0, 200, 40), (10, 20, 250), (128, 128, 128)):
    frames = np.broadcast_to(np.array(colour, np.uint8), (3, 32, 32, 3))
    read = read_video(write_video(tmp_path / "c.mp4", frames, 10, crf=4))[2]
    assert np.abs(read.astype(int) - frames).max() <= 4, colour


def _boxes(data: bytes) -> list[str]:
  at, names = 0, []
  while at < len(data):
    size, name = struct.unpack(">I4s", data[at : at + 8])
    names.append(name.decode())
    at += size
  return names


def test_browsers_can_stream_it(tmp_path):
  data = write_video(tmp_path / "a.mp4", _ramp(4, 32, 32), 29.97).read_bytes()
  names = _boxes(data)
  assert names.index("moov") < names.index("mdat"), names
  assert b"avc1" in data
  assert probe_video(tmp_path / "a.mp4").fps == pytest.approx(29.97, abs=1e-3)
  assert os.listdir(tmp_path) == ["a.mp4"]


def test_an_interrupted_writer_leaves_the_old_video(tmp_path):
  path = write_video(tmp_path / "a.mp4", _ramp(4, 32, 32), 25)
  before = path.read_bytes()
  with pytest.raises(RuntimeError), VideoWriter(path, 25) as writer:
    writer.add(_ramp(1, 32, 32)[0])
    raise RuntimeError("stop")
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == ["a.mp4"]


def test_writer_refuses_wrong_frames(tmp_path):
  with pytest.raises(ValueError, match="uint8"):
    write_video(tmp_path / "a.mp4", np.zeros((2, 8, 8, 3), np.float32), 25)
  with pytest.raises(ValueError, match="at least one frame"):
    write_video(tmp_path / "a.mp4", np.zeros((0, 8, 8, 3), np.uint8), 25)
  with pytest.raises(ValueError, match="like the first frame"):
    write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], 25)
  with pytest.raises(ValueError, match="fps"):
    write_video(tmp_path / "a.mp4", _ramp(1, 8, 8), 0)
  (tmp_path / "file").write_text("x")
  with pytest.raises(UserError, match="cannot be written"):
    write_video(tmp_path / "file" / "a.mp4", _ramp(1, 8, 8), 25)
  assert os.listdir(tmp_path) == ["file"]


def test_broken_inputs_name_the_thing(tmp_path):
  with pytest.raises(UserError, match=r"not found: .*none\.mp4"):
    probe_video(tmp_path / "none.mp4")
  with pytest.raises(UserError, match="is a folder"):
    probe_video(tmp_path)
  (tmp_path / "empty.mp4").write_bytes(b"")
  with pytest.raises(UserError, match="empty"):
    next(iter_frames(tmp_path / "empty.mp4"))
  (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
  with pytest.raises(UserError, match="not a readable video"):
    read_video(tmp_path / "text.mp4")
  whole = write_video(tmp_path / "whole.mp4", _ramp(30, 64, 64), 25).read_bytes()
  (tmp_path / "cut.mp4").write_bytes(whole[:600])
  with pytest.raises(UserError, match=r"cut\.mp4"):
    list(iter_frames(tmp_path / "cut.mp4"))


def test_sound_alone_is_no_video(tmp_path):
  import wave

  with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
    sound.setparams((1, 2, 8000, 0, "NONE", ""))
    sound.writeframes(bytes(16000))
  with pytest.raises(UserError, match="no picture track"):
    probe_video(tmp_path / "a.wav")


def test_a_cut_recording_gives_its_beginning(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
  whole = write_video(tmp_path / "whole.mp4", noise, 25).read_bytes()
  (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
  count = len(list(iter_frames(tmp_path / "cut.mp4")))
  assert 0 < count < 20


def test_a_phone_recording_comes_upright(tmp_path):
  frames = np.zeros((3, 32, 64, 3), np.uint8)
  frames[:, :, :32, 0] = 255  # red on the left as stored
  data = bytearray(write_video(tmp_path / "a.mp4", frames, 25).read_bytes())
  at = data.find(b"tkhd") + 4 + 4 + 20 + 16  # ISO/IEC 14496-12, 8.3.2: the track's display matrix
  data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
  (tmp_path / "turned.mp4").write_bytes(data)
  info, _, read = read_video(tmp_path / "turned.mp4")
  assert (info.height, info.width) == (64, 32) == read.shape[1:3]
  assert read[0, 4, 16, 0] > 200 and read[0, -4, 16, 0] < 50  # clockwise: left goes to the top


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_phone_held_sideways(tmp_path, clockwise):
  frames = _ramp(3, 48, 64)
  path = odd_videos.turned(tmp_path / "a.mp4", frames, clockwise)
  info, _, read = read_video(path)
  assert (info.height, info.width) == (48, 64)
  assert np.abs(read.astype(float) - frames).mean() < 3.0


def test_uneven_times_and_odd_sizes_are_kept(tmp_path):
  times = [0, 30, 50, 130, 140, 260]
  frames = _ramp(6, 33, 47)
  info, read_times, read = read_video(odd_videos.uneven(tmp_path / "a.mkv", frames, times))
  assert (info.height, info.width, info.frames) == (33, 47, 6)
  np.testing.assert_array_equal(read, frames)
  np.testing.assert_allclose(read_times, np.array(times) / 1000, atol=1e-6)
