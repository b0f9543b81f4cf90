"""What CI and a newcomer run first: the synthetic head at 64 x 64, 20 steps. About a minute on two CPU cores, most of it compiling.

python run.py train --config=configs/smoke.py --data_dir=synthetic --output_dir=runs/smoke
"""

from configs import default


def get_config():
  """The config."""
  c = default.get_config()
  c.steps = 20
  c.paint_frames = 4
  c.model.uv_size = 40
  c.model.width = 32
  c.model.depth = 2
  c.losses.ssim = default.term(0.2)
  c.loop.log_every = 5
  c.loop.sample_every = 20
  c.loop.checkpoint_every = 10
  return c
