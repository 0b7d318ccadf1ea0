"""What first layers look for: their kernels as small clips."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from kvideo.analysis.fields import HEIGHT, TIME, WIDTH, Field
from kvideo.analysis.receptive_fields import Tracker
from kvideo.errors import UnknownNameError, UsageError
from kvideo.graphs import clip_tensor, trace
from kvideo.report.films import gif_bytes
from kvideo.text import enumerate_words
from kvideo.visualization.sheets import png_of

_TILE = 44  # pixels of the longer side of a kernel, at least
_GAP = 4
_WIDEST = 1400  # pixels of a sheet, or so
_WHITE = 255


@dataclasses.dataclass(frozen=True, eq=False)
class Filters:
    """The kernels of one layer.

    Attributes:
        layer: its name.
        kernels: (F, T, H, W, C) float32, C the channels of the clip that the layer sees: 3, or 2 of
            optical flow.
    """

    layer: str
    kernels: np.ndarray

    def clips(self) -> np.ndarray:
        """(F, T, H, W, 3) uint8: grey is 0; each kernel's largest weight is as far as it goes.

        Kernels over flow are shown as flow is: hue is direction.
        """
        kernels = self.kernels
        if kernels.shape[-1] == 2:
            from kvideo.flow.colors import flow_to_rgb

            longest = np.linalg.norm(kernels, axis=-1).max(axis=(1, 2, 3))
            return np.stack([
                np.stack([flow_to_rgb(flow, max(float(most), 1e-12)) for flow in kernel])
                for kernel, most in zip(kernels, longest, strict=True)
            ])  # fmt: skip
        if kernels.shape[-1] == 1:
            kernels = np.repeat(kernels, 3, axis=-1)
        largest = np.abs(kernels).max(axis=(1, 2, 3, 4), keepdims=True)
        return np.clip(127.5 + 127.5 * kernels / np.maximum(largest, 1e-12), 0, 255).astype(
            np.uint8
        )

    def sheet(self) -> np.ndarray:
        """(H, W, 3) uint8: a strip for each kernel, its frames side by side."""
        tiles = _enlarged(self.clips())  # (F, T, h, w, 3)
        strips = [np.concatenate(list(tile), axis=1) for tile in _spaced(tiles, 1)]
        columns = max(1, min(len(strips), _WIDEST // (strips[0].shape[1] + 3 * _GAP)))
        return _grid(np.stack(strips), columns, 3 * _GAP)

    def film(self) -> np.ndarray:
        """(T, H, W, 3) uint8: all kernels beside each other, moving."""
        tiles = _enlarged(self.clips())
        columns = math.ceil(math.sqrt(1.6 * len(tiles)))
        return np.stack([_grid(tiles[:, t], columns, _GAP) for t in range(tiles.shape[1])])

    def gif(self, frame_rate: float = 4.0) -> bytes:
        """`film` as an animated GIF."""
        return gif_bytes(self.film(), frame_rate, largest=_WIDEST)

    def png(self) -> bytes:
        """`sheet` as a PNG file."""
        return png_of(self.sheet())


def first_filters(model: keras.Model, layer: str | None = None) -> list[Filters]:
    """The kernels of the convolutions that see the clip itself.

    A convolution that sees the frames side by side as channels, as in early fusion, is shown with
    these frames; a 2D convolution on single frames has kernels of one frame.

    Args:
        model: a functional model of one clip.
        layer: one of these convolutions; None: all of them, such as those of both pathways.

    Raises:
        UnknownNameError: there is no such convolution.
        UsageError: the model has none, or is not functional.
    """
    clip = clip_tensor(model)
    tracker = Tracker(clip, model.name)
    found: dict[str, Filters] = {}

    def visit(name: str, operation: Any, given: list[Any], outputs: Any) -> None:
        seen = [tracker.of(each) for each in given]
        tracker.follow(operation, given, outputs)
        if not seen or seen[0] is None:
            return
        if max(seen[0].spans[HEIGHT].size, seen[0].spans[WIDTH].size) > 1:
            return
        for kernel in _kernels(operation):
            clips = _as_clips(np.asarray(kernel, np.float32), seen[0], given[0].shape[-1])
            if clips is not None:
                found.setdefault(name, Filters(name, clips))

    trace(model, clip, visit)
    if not found:
        raise UsageError(f'"{model.name}" has no convolution that sees the clip itself.')
    if layer is None:
        return list(found.values())
    if layer not in found:
        raise UnknownNameError(
            f'"{layer}" is no convolution of "{model.name}" that sees the clip itself; these are '
            f"{enumerate_words(list(found))}."
        )
    return [found[layer]]


def _kernels(operation: Any) -> list[Any]:
    """Of a convolution, or of those inside of a layer that is made of others."""
    inside = operation._flatten_layers() if isinstance(operation, keras.Layer) else []
    kernels = [getattr(layer, "kernel", None) for layer in inside]
    return [kernel for kernel in kernels if kernel is not None and len(kernel.shape) in (4, 5)]


def _as_clips(kernel: np.ndarray, seen: Field, channels: int) -> np.ndarray | None:
    """(F, T, H, W, C) of a kernel ([T,] H, W, I, F); None if its inputs are no colours or flow."""
    if kernel.shape[-2] != channels:
        return None  # depthwise, in groups
    if kernel.ndim == 4:
        frames = seen.spans[TIME].size if TIME not in seen.layout else 1
        if channels % frames:
            return None
        height, width, _, filters = kernel.shape
        # Channel t * C + c of what it sees is channel c of frame t.
        kernel = kernel.reshape(height, width, frames, channels // frames, filters)
        kernel = kernel.transpose(2, 0, 1, 3, 4)
    return kernel.transpose(4, 0, 1, 2, 3) if kernel.shape[-2] in (1, 2, 3) else None


def _enlarged(clips: np.ndarray) -> np.ndarray:
    factor = max(1, math.ceil(_TILE / max(clips.shape[2:4])))
    return clips.repeat(factor, axis=2).repeat(factor, axis=3)


def _spaced(tiles: np.ndarray, gap: int) -> np.ndarray:
    """(F, T, h, w, 3) with white lines between the frames."""
    pad = ((0, 0), (0, 0), (0, 0), (0, gap), (0, 0))
    return np.pad(tiles, pad, constant_values=_WHITE)


def _grid(tiles: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """(n, h, w, 3) pictures in rows, on white."""
    count, height, width, _ = tiles.shape
    rows = math.ceil(count / columns)
    sheet = np.full(
        (gap + rows * (height + gap), gap + columns * (width + gap), 3), _WHITE, np.uint8
    )
    for number, tile in enumerate(tiles):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet
