"""Names of C3D's weights: mmaction2's, c3d-pytorch's, and those of the published Keras file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from kvideo.weights.families import HEAD, Dialect, Family, NameMap

_CONVOLUTION = re.compile(r"conv\d[ab]")
_SINGLE = ("conv1a", "conv2a")  # stages of one convolution, which others call conv1 and conv2


def _modules(head: str, convolution: Callable[[str], str]) -> Callable[[Collection[str]], NameMap]:
    """Name maps that differ in the convolutions and the last layer."""

    def module(layer: str) -> str | None:
        if _CONVOLUTION.fullmatch(layer):
            return convolution(layer)
        return {"fc6": "fc6", "fc7": "fc7", HEAD: head}.get(layer)

    return lambda layers: module


def _mmaction2(layer: str) -> str:
    return f"{layer}.conv"


def _without_letter(layer: str) -> str:
    return layer[:-1] if layer in _SINGLE else layer


def rows_of_time_first(model: Any, kernel: np.ndarray) -> np.ndarray:
    """A kernel whose rows go over (C, T, H, W), for a model that flattens (T, H, W, C).

    Args:
        model: with a layer `flatten`.
        kernel: (C·T·H·W, units).
    """
    _, frames, height, width, channels = model.get_layer("flatten").input.shape
    blocks = kernel.reshape(channels, frames, height, width, -1)
    return blocks.transpose(1, 2, 3, 0, 4).reshape(kernel.shape)


_ROWS = {"fc6": rows_of_time_first}
# The publishers' code pads the last pool on both sides. Sports-1M's weights come from Caffe, which
# reads pictures as BGR.
_FINE_TUNED = {"preprocessing": "mmaction2", "pool5_padding": "both"}
_SPORTS_1M = {"preprocessing": "sports1m", "pool5_padding": "both"}

C3D = Family(
    "C3D",
    (
        Dialect(
            "mmaction2",
            r"^backbone\.conv1a\.conv\.",
            _modules("cls_head.fc_cls", _mmaction2),
            head=r"^cls_head\.fc_cls\.bias$",
            prefix=r"backbone\.",
            rows=_ROWS,
            options=lambda tensors: dict(_FINE_TUNED),
        ),
        Dialect(
            "mmaction2, backbone",
            r"^conv1a\.conv\.",
            _modules("fc8", _mmaction2),
            head=r"^fc8\.bias$",
            rows=_ROWS,
            options=lambda tensors: dict(_FINE_TUNED),
            headless=True,
        ),
        Dialect(
            "c3d-pytorch",
            r"^conv1\.weight$",
            _modules("fc8", _without_letter),
            head=r"^fc8\.bias$",
            rows=_ROWS,
            options=lambda tensors: dict(_SPORTS_1M),
        ),
        Dialect(
            "Sports-1M for Keras",
            r"^conv1/kernel$",
            _modules("fc8", _without_letter),
            head=r"^fc8/bias$",
            naming="keras",
            ignored=r"seed_generator",
            options=lambda tensors: dict(_SPORTS_1M),
        ),
    ),
)
"""c3d."""
