"""Layers of kvideo. Importing this package registers them, so that saved models can be loaded."""

from kvideo.layers.conv import Norm, batch_norm, conv_unit, depthwise_unit_2d, max_pool
from kvideo.layers.conv3d import Conv3D, ZeroPadding3D
from kvideo.layers.conv_rnn import ConvGRU2D, ConvRNN, ConvRNN2D
from kvideo.layers.conv_rnn_cells import ConvGRU2DCell, ConvRNN2DCell, ConvRNNCell
from kvideo.layers.depthwise import DepthwiseConv3D
from kvideo.layers.dropout import Dropout, DropPath
from kvideo.layers.flow import FlowNormalization
from kvideo.layers.frames import (
    FoldTime,
    FoldWindows,
    FramesToChannels,
    LastFrame,
    MiddleFrame,
    RepeatFrames,
    SlowFrames,
    SpatialPooling,
    TakeChannels,
    UnfoldTime,
)
from kvideo.layers.inflation import (
    EdgeConv3D,
    EdgeDepthwiseConv3D,
    FramePadding,
    FramePooling,
    GroupedConv3D,
    PerFrame,
)
from kvideo.layers.mean_cube import MeanCubeSubtraction
from kvideo.layers.nonlocal_block import NonLocalBlock3D
from kvideo.layers.normalization import BatchNorm, ReLU
from kvideo.layers.pixels import PixelNormalization
from kvideo.layers.roi import RoIAlign
from kvideo.layers.scene import ActorSceneBlock
from kvideo.layers.score_fusion import WeightedMean
from kvideo.layers.segment_pool import SegmentPool

__all__ = [
    "ActorSceneBlock",
    "BatchNorm",
    "Conv3D",
    "ConvGRU2D",
    "ConvGRU2DCell",
    "ConvRNN",
    "ConvRNN2D",
    "ConvRNN2DCell",
    "ConvRNNCell",
    "DepthwiseConv3D",
    "DropPath",
    "Dropout",
    "EdgeConv3D",
    "EdgeDepthwiseConv3D",
    "FlowNormalization",
    "FoldTime",
    "FoldWindows",
    "FramePadding",
    "FramePooling",
    "FramesToChannels",
    "GroupedConv3D",
    "LastFrame",
    "MeanCubeSubtraction",
    "MiddleFrame",
    "NonLocalBlock3D",
    "Norm",
    "PerFrame",
    "PixelNormalization",
    "ReLU",
    "RepeatFrames",
    "RoIAlign",
    "SegmentPool",
    "SlowFrames",
    "SpatialPooling",
    "TakeChannels",
    "UnfoldTime",
    "WeightedMean",
    "ZeroPadding3D",
    "batch_norm",
    "conv_unit",
    "depthwise_unit_2d",
    "max_pool",
]
