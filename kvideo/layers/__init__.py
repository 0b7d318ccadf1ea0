"""Layers of kvideo. Importing this package registers them, so that saved models can be loaded."""

from kvideo.layers.conv import Norm, batch_norm, conv_unit, depthwise_unit_2d
from kvideo.layers.frames import FoldTime, FramesToChannels, UnfoldTime
from kvideo.layers.normalization import BatchNorm
from kvideo.layers.pixels import PixelNormalization

__all__ = [
    "BatchNorm",
    "FoldTime",
    "FramesToChannels",
    "Norm",
    "PixelNormalization",
    "UnfoldTime",
    "batch_norm",
    "conv_unit",
    "depthwise_unit_2d",
]
