"""Names of Inception-I3D's and S3D's weights: DeepMind's, pytorch-i3d's, torchvision's."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from kvideo.weights.families import HEAD, Dialect, Family, NameMap

_WIDTH = 64  # of the first convolution
FLOW_CLIP = (64, 224, 224, 2)

_CONVOLUTION = re.compile(r"(?P<unit>conv\d[a-c])(?P<half>_xy|_t)?(?P<bn>_bn)?")
_BRANCH = re.compile(r"mixed(?P<block>\d[a-f])_(?P<unit>b\d[ab]?)(?P<half>_xy|_t)?(?P<bn>_bn)?")
_END_POINTS = {"conv1a": "Conv3d_1a_7x7", "conv2b": "Conv3d_2b_1x1", "conv2c": "Conv3d_2c_3x3"}

_TF_BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}
# All published checkpoints have this one name that does not fit the pattern.
_TF_EXCEPTIONS = {("5b", "b2b"): "Branch_2/Conv3d_0a_3x3"}

# torchvision numbers the steps of the network, pools included.
_S3D_STEPS = {
    "conv1a": 0, "conv2b": 2, "conv2c": 3, "3b": 5, "3c": 6,
    "4b": 8, "4c": 9, "4d": 10, "4e": 11, "4f": 12, "5b": 14, "5c": 15,
}  # fmt: skip
_S3D_BRANCHES = {
    "b0": "branch0",
    "b1a": "branch1.0",
    "b1b": "branch1.1",
    "b2a": "branch2.0",
    "b2b": "branch2.1",
    "b3b": "branch3.1",
}
_S3D_HALVES = {None: "", "_xy": ".0", "_t": ".1"}


def pytorch_i3d(layers: Collection[str]) -> NameMap:
    """pytorch-i3d's module names."""

    def module(layer: str) -> str | None:
        if layer == HEAD:
            return "logits.conv3d"
        if match := _CONVOLUTION.fullmatch(layer):
            unit = _END_POINTS.get(match["unit"])
        elif match := _BRANCH.fullmatch(layer):
            unit = f"Mixed_{match['block']}.{match['unit']}"
        else:
            return None
        return f"{unit}.{'bn' if match['bn'] else 'conv3d'}" if unit and not match["half"] else None

    return module


def deepmind(layers: Collection[str]) -> NameMap:
    """Names of DeepMind's TensorFlow 1 checkpoints."""

    def module(layer: str) -> str | None:
        if layer == HEAD:
            return "Logits/Conv3d_0c_1x1/conv_3d"
        if match := _CONVOLUTION.fullmatch(layer):
            unit = _END_POINTS.get(match["unit"])
        elif match := _BRANCH.fullmatch(layer):
            block, branch = match["block"], match["unit"]
            found = _TF_EXCEPTIONS.get((block, branch)) or _TF_BRANCHES.get(branch)
            unit = found and f"Mixed_{block}/{found}"
        else:
            return None
        kind = "batch_norm" if match["bn"] else "conv_3d"
        return f"{unit}/{kind}" if unit and not match["half"] else None

    return module


def torchvision_s3d(layers: Collection[str]) -> NameMap:
    """Module names of torchvision's S3D."""

    def module(layer: str) -> str | None:
        if layer == HEAD:
            return "classifier.1"
        if match := _CONVOLUTION.fullmatch(layer):
            place = f"features.{_S3D_STEPS.get(match['unit'])}"
        elif match := _BRANCH.fullmatch(layer):
            branch = _S3D_BRANCHES.get(match["unit"])
            place = f"features.{_S3D_STEPS.get(match['block'])}.{branch}"
        else:
            return None
        return f"{place}{_S3D_HALVES[match['half']]}.{int(bool(match['bn']))}"

    return module


def _look_at(key: str, axes: tuple[int, int]) -> Callable[..., dict[str, Any]]:
    """What the first kernel tells: its width, and whether it is one for optical flow.

    Args:
        key: a regular expression for the kernel's name.
        axes: where its inputs and outputs are.
    """
    inputs, outputs = axes

    def options(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        kernel = next((tensor for name, tensor in tensors.items() if re.search(key, name)), None)
        if kernel is None or kernel.ndim != 5:
            return found
        if kernel.shape[outputs] != _WIDTH:
            found["width_multiplier"] = kernel.shape[outputs] / _WIDTH
        if kernel.shape[inputs] == FLOW_CLIP[-1]:
            found["input_shape"] = FLOW_CLIP
        return found

    return options


INCEPTION = Family(
    "Inception-I3D",
    (
        Dialect(
            "pytorch-i3d",
            r"^Conv3d_1a_7x7\.conv3d\.",
            pytorch_i3d,
            head=r"^logits\.conv3d\.bias$",
            options=_look_at(r"^Conv3d_1a_7x7\.conv3d\.weight$", (1, 0)),
        ),
        Dialect(
            "DeepMind",
            r"(^|/)Conv3d_1a_7x7/conv_3d/w$",
            deepmind,
            head=r"(^|/)Logits/Conv3d_0c_1x1/conv_3d/b$",
            naming="tf1",
            options=_look_at(r"(^|/)Conv3d_1a_7x7/conv_3d/w$", (-2, -1)),
            prefix=r"(?:\w+/)?inception_i3d/",
            ignored=r"/Momentum$|^global_step$",
        ),
        Dialect(
            "torchvision",
            r"^features\.0\.0\.0\.weight$",
            torchvision_s3d,
            head=r"^classifier\.1\.bias$",
            options=_look_at(r"^features\.0\.0\.0\.weight$", (1, 0)),
        ),
    ),
)
"""i3d and s3d."""
