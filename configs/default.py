"""Every key of a training run, with its meaning. Families start from here; `tests/configs_test.py` holds it equal to the dataclasses.

Override on the command line: `--config.steps=2000`, `--config.losses.ssim.weight=0.1`, `--config.background='(0.0, 0.0, 0.0)'`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def term(weight=0.0, start=0.0, ramp=0.0):
  """A term of the loss: its weight (0 removes it), the share of the run after which it joins, at most three different ones, and the share
  over which its weight then grows."""
  return ConfigDict({"weight": weight, "start": start, "ramp": ramp})


def get_config():
  """The silky family at its defaults."""
  c = ConfigDict()
  c.family = "silky"  # a name of FAMILIES in silky_jax/models/avatar.py
  c.seed = 0  # of everything random
  c.steps = 4000
  c.background = (1.0, 1.0, 1.0)  # behind the head, in samples and scores
  c.random_background = True  # in training, a new colour every step
  c.paint_frames = 16  # training frames that start colours are taken from; 0 starts grey

  c.model = ConfigDict()
  c.model.uv_size = 128  # texels per side of the atlas; one Gaussian per covered texel
  c.model.drop_regions = ("torso", "eye_socket")  # no Gaussians there
  c.model.offset_limit = 0.010  # metres a Gaussian may sit off its anchor
  c.model.region_offset_limits = ConfigDict({"scalp": 0.040})  # hair needs room
  c.model.harmonics_degree = 1  # of the view-dependent colour, 0 to 3
  c.model.initial_opacity = 0.7
  c.model.initial_width = 0.7  # standard deviation along the surface, in distances between neighbours
  c.model.initial_thickness = 0.3  # along the normal
  c.model.smallest_deviation = 5e-5  # metres
  c.model.largest_deviation = 0.020
  c.model.residual = "mlp"  # or "none": the coarse avatar; or "uv": a U-Net over the atlas
  c.model.width = 128  # hidden units
  c.model.depth = 4  # hidden layers
  c.model.uv_width = 16  # of residual "uv": channels of the U-Net's finest level, which the next three double
  c.model.precision = "float32"  # of the network's products; "tf32" and "bfloat16" are faster on a GPU
  c.model.frequencies = 6  # octaves of the position encoding
  c.model.encoding_scale = 10.0  # 1/m, before the encoding
  c.model.condition_limit = 3.0  # standardised expression saturates here
  c.model.condition_on_place = False  # whether the network sees where the head is: for light that falls from one side
  c.model.motion_limit = 0.020  # metres, of the network's motion
  c.model.stretch_limit = 0.7  # of the network's change of log deviations
  c.model.residual_color = True  # whether the network also changes colour and opacity
  c.model.color_limit = 0.5  # of the network's change of colour

  c.model.physics = ConfigDict()
  c.model.physics.mode = "anchor"  # what rides on the mesh moves by inertia; or "absolute", "world": the motion in those axes does
  c.model.physics.order = 2  # 1 keeps the velocity, 2 the acceleration too
  c.model.physics.damping = 1.0  # 0 predicts that all stands still
  c.model.physics.predictor = "airm2"  # of covariances; or mesh, airm1, logeuclid2, bures1
  c.model.physics.sided = "past"  # predicted from the frames before; "both": from the one before and the one after
  c.model.physics.measure = "hellinger"  # or bhattacharyya, airm, w2
  c.model.physics.blur_gain = 1.0  # in units of a region's root mean square residual
  c.model.physics.least_blur = 0.5  # mm
  c.model.physics.blur_memory = 0.9  # share of the running residual that a step keeps
  c.model.physics.jerk_scale = 1.0  # mm per frame^3, modes "absolute" and "world"
  c.model.physics.sample = 1024  # Gaussians per step; 0 takes all

  c.model.transport = ConfigDict()
  c.model.transport.landmark_groups = "flame"  # groups by landmarks of the rig; "face-parsing": by labels seen in training frames; "one"
  c.model.transport.levels = (0, 1)  # 0: layout of the groups, 1: within each group, 2: within the cell of each landmark
  c.model.transport.atoms = 64  # Gaussians per group and step; time grows with the square
  c.model.transport.frames = 1  # rendered frames of a clip, at most
  c.model.transport.blur = 3.0  # mm, below which shapes are not told apart
  c.model.transport.reference = "mesh"  # where mass belongs; "rest": where each Gaussian rests beside it, so that motion alone counts
  c.model.transport.semi_reach = 30.0  # mm, further than which mass is rather lost than carried; rigid groups have no such limit
  c.model.transport.mobile_reach = 10.0
  c.model.transport.weight_family = "tanh"  # of a group's weight over its mobility; or sech, rational, constant
  c.model.transport.weight_gain = 1.0
  c.model.transport.least_weight = 0.05
  c.model.transport.stiffness_rate = 0.1  # drift of the weights towards equal stress; 0 keeps them
  c.model.transport.stiffness_every = 100  # steps
  c.model.transport.layout = 1.0  # weight of level 0
  c.model.transport.border = 0.1  # weight of cracks between groups
  c.model.transport.balance = 0.0  # weight of unequal stress, as a loss
  c.model.transport.threshold = 1e-2  # of a solve: error of its marginals
  c.model.transport.max_iterations = 100  # of a solve; one that has not converged by then adds nothing, and is counted
  c.model.transport.solver = "auto"  # of a solve: a kernel on GPUs, else OTT; or ott, pallas

  c.clips = ConfigDict()
  c.clips.clips = 1  # per step
  c.clips.length = 1  # consecutive training frames per clip
  c.clips.rendered = 1  # frames of a clip that are rendered
  c.clips.max_gap = 0.2  # seconds; training frames further apart share no clip

  c.render = ConfigDict()
  c.render.tile = 8  # px
  c.render.capacity = 1024  # tile pairs, at least; the loop measures what is needed and grows
  c.render.near = 0.01  # metres
  c.render.low_pass = 0.3  # px^2
  c.render.backend = placeholder(str)  # None: the best available

  c.losses = ConfigDict()
  c.losses.huber = term(1.0)
  c.losses.l1 = term()
  c.losses.ssim = term()  # 1 - SSIM
  c.losses.perceptual = term()  # LPIPS
  c.losses.alpha = term()  # L1 between alpha and mask
  c.losses.perceptual_net = "alexnet"  # or "vgg16", 20 times slower
  c.losses.perceptual_precision = "float32"  # of its convolutions; tf32 and bfloat16 are faster on a GPU
  c.losses.cache_targets = False  # keep what it sees in each training picture on the device; needs a background that is not random
  c.losses.part_weights = ConfigDict()  # label of PARTS -> extra weight of its pixels in huber and l1
  c.losses.outline = 2  # px on either side of the mask's edge that are unmixed from the background; 0 leaves the photograph as it is
  c.losses.ignored_parts = ("cloth",)  # labels whose pixels say nothing about the head
  c.losses.regularizers = ConfigDict()  # the family's terms by name

  c.optimizer = ConfigDict()
  # Path prefix of the parameters -> learning rate at the first and at the last step.
  c.optimizer.rates = ConfigDict()
  c.optimizer.rates["gaussians/offset"] = (5e-5, 5e-6)
  c.optimizer.rates["gaussians/rotation"] = (1e-3, 1e-4)
  c.optimizer.rates["gaussians/scale"] = (5e-3, 5e-4)
  c.optimizer.rates["gaussians/opacity"] = (5e-2, 5e-3)
  c.optimizer.rates["gaussians/color"] = (2.5e-3, 2.5e-4)
  c.optimizer.rates["gaussians/harmonics"] = (1.25e-4, 1.25e-5)
  c.optimizer.rates["residual"] = (1e-3, 1e-5)
  c.optimizer.warmup = 0  # steps
  c.optimizer.beta1 = 0.9
  c.optimizer.beta2 = 0.999
  c.optimizer.epsilon = 1e-15

  c.corrections = ConfigDict()  # of what the tracker said of the training frames; sizes are its usual errors
  c.corrections.enabled = False
  c.corrections.camera = False  # each view's camera too: for several cameras
  c.corrections.start = 0.1  # share of the run after which they are learnt
  c.corrections.rate = (0.3, 0.03)  # of a size, per look at a frame; first and last
  c.corrections.prior = 1e-2  # weight of what holds them back: their mean square, in sizes
  c.corrections.inertia = False  # the prior is what the track says of its own noise and inertia; wants clips.length of 3 or more
  c.corrections.head = 0.5  # degrees
  c.corrections.translation = 0.002  # metres
  c.corrections.jaw = 1.0  # degrees
  c.corrections.gaze = 2.0  # degrees
  c.corrections.eyelids = 0.05
  c.corrections.expression = 0.03
  c.corrections.camera_rotation = 0.2  # degrees
  c.corrections.camera_translation = 0.002  # metres
  c.corrections.focal = 0.005  # relative
  c.corrections.pivot = (0.0, 0.10, 0.0)  # metres, from the root joint

  c.loop = ConfigDict()
  c.loop.log_every = 50  # steps between metrics lines
  c.loop.sample_every = 500  # steps between pictures; 0 writes none
  c.loop.checkpoint_every = 500
  c.loop.shares_every = 500  # steps between looks at each term's share of the gradient; 0 never looks
  c.loop.keep = 2  # checkpoints
  c.loop.prefetch = 2  # batches read ahead
  c.loop.resident = "auto"  # training pictures stay on the device: yes, no, or where a GPU has room
  c.loop.resident_gib = 32.0  # of "auto": the most they may take
  return c
