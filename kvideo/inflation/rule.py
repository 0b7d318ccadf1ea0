"""What a rule of `kvideo.inflate` sees of a 2D layer, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kvideo.errors import UsageError
from kvideo.layers.inflation import PerFrame

Weights = list[np.ndarray]
Config = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One call of a 2D layer, as a rule sees it.

    Attributes:
        layer: the 2D layer.
        name: of the 3D layer.
        inputs: the 5D tensors that the 3D layer will take (of squeezed maps fewer axes).
        kernel_t: frames that the layer's kernel is to span.
        stride_t: by how many frames its output advances.
        edge: whether time is padded by repeating frames rather than by zeros.
        centre: whether the kernel starts as zeros but for its central frame.
        to_clip: for a layer that squeezes pictures, whether it also squeezes time.
    """

    layer: keras.Layer
    name: str
    inputs: list[Any]
    kernel_t: int
    stride_t: int
    edge: bool
    centre: bool
    to_clip: bool

    @property
    def frames(self) -> int:
        """The length of the clip here."""
        return self.inputs[0].shape[1]

    def config(self, **changes: Any) -> Config:
        """The 2D layer's configuration under the new name, with changes."""
        return {**self.layer.get_config(), "name": self.name, **changes}


@dataclass(frozen=True)
class Inflated:
    """What a 2D layer becomes.

    Attributes:
        layers: called one after another.
        weights: from the 2D layer's weights to those of each of `layers`; None: the last takes
            them as they are.
    """

    layers: Sequence[keras.Layer]
    weights: Callable[[Weights], Sequence[Weights]] | None = None


Rule = Callable[[Call], Inflated]


def refuse(layer: Any, rule: str) -> UsageError:
    """The error for a layer or operation that cannot be inflated."""
    kind = type(layer).__name__
    what = "layer" if isinstance(layer, keras.Layer) else "operation"
    return UsageError(f'{what} "{layer.name}" ({kind}) cannot be inflated: {rule}')


def shifted_axes(axes: Any, rank: int) -> Any:
    """Where an axis of a picture's tensor (or several, or None) is in the clip's.

    A single last axis stays -1.
    """
    if axes is None:
        return None
    if not isinstance(axes, int):
        return [axis % rank + (axis % rank > 0) for axis in axes]
    return -1 if axes % rank == rank - 1 else axes % rank + (axes % rank > 0)


def per_frame(call: Call) -> Inflated:
    """The 2D layer itself, on each frame."""
    if len(call.inputs) != 1:
        raise refuse(call.layer, "it takes several tensors, and frame by frame works with one.")
    inner = type(call.layer).from_config(call.config())
    return Inflated([PerFrame(inner, name=call.name, dtype=call.layer.dtype_policy)])


def made(kind: type[keras.Layer], config: Config) -> Inflated:
    """One layer from a configuration; it takes the 2D layer's weights as they are."""
    return Inflated([kind.from_config(config)])


def check_channels(call: Call) -> None:
    """Raises UsageError for channels that do not come last."""
    if getattr(call.layer, "data_format", "channels_last") == "channels_first":
        raise refuse(call.layer, 'data_format="channels_first" is not supported.')
