"""silky_kernels: the hot operations of splatting as functions of arrays. See README.md for the table of ops and backends."""

from silky_kernels.backend import Backend, available_backends
from silky_kernels.bin_tiles.api import TileBins, bin_tiles
from silky_kernels.eigen3.api import eigen3
from silky_kernels.project.api import ProjectOutput, project
from silky_kernels.rasterize.api import RasterOutput, rasterize_tiles
from silky_kernels.sinkhorn.api import Potentials, sinkhorn
from silky_kernels.splat.api import SplatOutput, splat

__all__ = [
  "Backend",
  "Potentials",
  "ProjectOutput",
  "RasterOutput",
  "SplatOutput",
  "TileBins",
  "available_backends",
  "bin_tiles",
  "eigen3",
  "project",
  "rasterize_tiles",
  "sinkhorn",
  "splat",
]
