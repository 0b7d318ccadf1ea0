"""Optical flow: from frames to displacement, its files, its colours. No TensorFlow.

A flow is (H, W, 2) float32: (dx, dy) in pixels per frame. A point at (x, y) of the first frame is
at (x + dx, y + dy) in the second; y points down.
"""

from kvideo.flow.colors import color_wheel, flow_to_rgb
from kvideo.flow.cuts import is_cut
from kvideo.flow.estimation import FlowEstimator
from kvideo.flow.files import read_flow, write_flow
from kvideo.flow.geometry import (
    UNKNOWN,
    end_point_error,
    flip_flow,
    known_flow,
    resize_flow,
    subtract_camera_motion,
    warp,
)
from kvideo.flow_settings import ESTIMATORS, FlowSettings

__all__ = [
    "ESTIMATORS",
    "UNKNOWN",
    "FlowEstimator",
    "FlowSettings",
    "color_wheel",
    "end_point_error",
    "flip_flow",
    "flow_to_rgb",
    "is_cut",
    "known_flow",
    "read_flow",
    "resize_flow",
    "subtract_camera_motion",
    "warp",
    "write_flow",
]
