"""Layers that move the time axis: into the batch and back, or into the channels.

They hold no weights. With `FoldTime` a 2D network sees all frames of all clips as one batch, which
is one call instead of T.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kvideo.errors import UsageError

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvideo")
class FoldTime(keras.Layer):
    """Folds time into the batch.

    Input shape:
        `(B, T, ...)`.

    Output shape:
        `(B*T, ...)`; the frames of a clip stay together.
    """

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B*T, ...)."""
        return ops.reshape(inputs, (-1, *ops.shape(inputs)[2:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B*T, ...), or (None, ...) where B or T is unknown."""
        batch, frames = input_shape[:2]
        return (None if batch is None or frames is None else batch * frames, *input_shape[2:])


class _OfFrames(keras.Layer):
    """A layer that is told a number of frames, at least 1."""

    def __init__(self, num_frames: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_frames < 1:
            raise UsageError(f"num_frames must be at least 1, not {num_frames}.")
        self.num_frames = num_frames

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "num_frames": self.num_frames}


@keras.saving.register_keras_serializable("kvideo")
class UnfoldTime(_OfFrames):
    """The inverse of `FoldTime`.

    Args:
        num_frames: T, at least 1.

    Input shape:
        `(B*T, ...)`.

    Output shape:
        `(B, T, ...)`.

    Raises:
        UsageError: `num_frames` is less than 1.
    """

    def call(self, inputs: Any) -> Any:
        """(B*T, ...) -> (B, T, ...)."""
        return ops.reshape(inputs, (-1, self.num_frames, *ops.shape(inputs)[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, T, ...)."""
        folded = input_shape[0]
        batch = None if folded is None else folded // self.num_frames
        return (batch, self.num_frames, *input_shape[1:])


@keras.saving.register_keras_serializable("kvideo")
class FoldWindows(_OfFrames):
    """Cuts a clip into windows that follow each other, and folds these into the batch.

    `UnfoldTime(T // num_frames)` lays what comes of the windows in a row again.

    Args:
        num_frames: in a window, at least 1.

    Input shape:
        `(B, T, ...)`, T a multiple of `num_frames`.

    Output shape:
        `(B*(T // num_frames), num_frames, ...)`.

    Raises:
        UsageError: `num_frames` is less than 1, or does not divide T.
    """

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B*n, num_frames, ...)."""
        self.compute_output_shape(inputs.shape)
        return ops.reshape(inputs, (-1, self.num_frames, *ops.shape(inputs)[2:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B*n, num_frames, ...)."""
        batch, frames = input_shape[:2]
        if frames is not None and frames % self.num_frames:
            raise UsageError(
                f"a clip of {frames} frames cannot be cut into windows of {self.num_frames}."
            )
        known = batch is not None and frames is not None
        folded = batch * (frames // self.num_frames) if known else None  # type: ignore[operator]
        return (folded, self.num_frames, *input_shape[2:])


@keras.saving.register_keras_serializable("kvideo")
class RepeatFrames(keras.Layer):
    """Repeats each step of a sequence, so that what was said of a window stands at its frames.

    Args:
        count: how often, at least 1.

    Input shape:
        `(B, T, ...)`.

    Output shape:
        `(B, T*count, ...)`.

    Raises:
        UsageError: `count` is less than 1.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if count < 1:
            raise UsageError(f"count must be at least 1, not {count}.")
        self.count = count

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B, T*count, ...)."""
        return ops.repeat(inputs, self.count, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, T*count, ...)."""
        frames = input_shape[1]
        return (input_shape[0], frames and frames * self.count, *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable("kvideo")
class SpatialPooling(keras.Layer):
    """The means of each frame's map over the cells of a grid, side by side.

    Args:
        grid: cells along the height and along the width; 1 takes the mean of the whole map. Where
            the map's size is no multiple of it, neighbouring cells share a row or column.

    Input shape:
        `(B, T, H, W, C)`; H and W known and at least `grid` where that is not 1.

    Output shape:
        `(B, T, grid*grid*C)`.

    Raises:
        UsageError: `grid` is less than 1, or more than the map has rows or columns.
    """

    def __init__(self, grid: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if grid < 1:
            raise UsageError(f"grid must be at least 1, not {grid}.")
        self.grid = grid

    def build(self, input_shape: Shape) -> None:
        """Checks that the map has as many rows and columns as the grid."""
        known = [size for size in input_shape[2:4] if size is not None]
        if self.grid > 1 and known and min(known) < self.grid:
            raise UsageError(
                f"grid must be at most {min(known)}, the side of the frames' maps, not {self.grid}."
            )

    def call(self, inputs: Any) -> Any:
        """(B, T, H, W, C) -> (B, T, grid*grid*C)."""
        if self.grid == 1:
            return ops.mean(inputs, axis=(2, 3))
        down, right = (ops.cast(self._cells(size), inputs.dtype) for size in inputs.shape[2:4])
        rows = ops.einsum("bthwc,gh->btgwc", inputs, down)
        cells = ops.einsum("btgwc,kw->btgkc", rows, right)
        return ops.reshape(cells, (-1, ops.shape(inputs)[1], self.grid**2 * inputs.shape[-1]))

    def _cells(self, size: int) -> np.ndarray:
        """(grid, size): the weight of each row (or column) in each cell."""
        weights = np.zeros((self.grid, size))
        for cell in range(self.grid):
            first, last = cell * size // self.grid, -(-(cell + 1) * size // self.grid)
            weights[cell, first:last] = 1 / (last - first)
        return weights

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, T, grid*grid*C)."""
        channels = input_shape[-1]
        return (*input_shape[:2], channels and self.grid**2 * channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "grid": self.grid}


@keras.saving.register_keras_serializable("kvideo")
class LastFrame(keras.Layer):
    """The last step of a sequence: what a recurrent network knows at the clip's end.

    Input shape:
        `(B, T, ...)`.

    Output shape:
        `(B, ...)`.
    """

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B, ...)."""
        return inputs[:, -1]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, ...)."""
        return (input_shape[0], *input_shape[2:])


@keras.saving.register_keras_serializable("kvideo")
class MiddleFrame(keras.Layer):
    """The frame in the middle of a clip, number `T // 2`.

    Input shape:
        `(B, T, ...)`, T known.

    Output shape:
        `(B, 1, ...)`.
    """

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B, 1, ...)."""
        middle = inputs.shape[1] // 2
        return inputs[:, middle : middle + 1]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, 1, ...)."""
        return (input_shape[0], 1, *input_shape[2:])


@keras.saving.register_keras_serializable("kvideo")
class TakeChannels(keras.Layer):
    """Some neighbouring channels, such as the flow of a clip of pictures and flow.

    Args:
        first: number of the first one, at least 0.
        count: how many, at least 1.

    Input shape:
        `(..., C)`, C at least `first + count`.

    Output shape:
        `(..., count)`.

    Raises:
        UsageError: an argument is out of its range, or there are fewer channels.
    """

    def __init__(self, first: int, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if first < 0 or count < 1:
            raise UsageError(f"channels {first} to {first + count} cannot be taken.")
        self.first, self.count = first, count

    def build(self, input_shape: Shape) -> None:
        """Checks that there are so many channels."""
        if input_shape[-1] is not None and input_shape[-1] < self.first + self.count:
            raise UsageError(
                f"channels {self.first} to {self.first + self.count - 1} cannot be taken from "
                f"{input_shape[-1]}."
            )

    def call(self, inputs: Any) -> Any:
        """(..., C) -> (..., count)."""
        return inputs[..., self.first : self.first + self.count]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(..., count)."""
        return (*input_shape[:-1], self.count)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "first": self.first, "count": self.count}


@keras.saving.register_keras_serializable("kvideo")
class FramesToChannels(keras.Layer):
    """Lays the frames of a clip side by side as channels, as early fusion does.

    Channel `t * C + c` of the output is channel `c` of frame `t`.

    Input shape:
        `(B, T, H, W, C)`.

    Output shape:
        `(B, H, W, T*C)`.
    """

    def call(self, inputs: Any) -> Any:
        """(B, T, H, W, C) -> (B, H, W, T*C)."""
        frames, height, width, channels = inputs.shape[1:]
        moved = ops.transpose(inputs, (0, 2, 3, 1, 4))  # (B, H, W, T, C)
        return ops.reshape(moved, (-1, height, width, frames * channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, H, W, T*C)."""
        batch, frames, height, width, channels = input_shape
        merged = None if frames is None or channels is None else frames * channels
        return (batch, height, width, merged)


def slow_indices(num_frames: int, alpha: int) -> list[int]:
    """Which of `num_frames` frames form the slow pathway's clip.

    `floor(linspace(0, T-1, T // alpha))`, both ends included, in float32 as PyTorch computes
    `linspace`: from both ends towards the middle. With exact numbers some clips of more than 90
    frames would get another frame than the published models were trained with.

    Raises:
        UsageError: there are fewer frames than `alpha`, or `alpha` is less than 1.
    """
    if alpha < 1 or num_frames < alpha:
        raise UsageError(f"alpha must be 1 to {num_frames} for {num_frames} frames, not {alpha}.")
    count = num_frames // alpha
    if count == 1:
        return [0]
    last = np.float32(num_frames - 1)
    step = last / np.float32(count - 1)
    steps = np.arange(count, dtype="float32")
    upwards, downwards = step * steps, last - step * steps[::-1]
    return np.where(steps < count // 2, upwards, downwards).astype(int).tolist()


@keras.saving.register_keras_serializable("kvideo")
class SlowFrames(keras.Layer):
    """Picks the slow pathway's frames from the fast pathway's clip; see `slow_indices`.

    Args:
        alpha: the fast pathway's frames for one of the slow one.

    Input shape:
        `(B, T, ...)`, T known and at least `alpha`.

    Output shape:
        `(B, T // alpha, ...)`.

    References:
        Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition", section 3.
    """

    def __init__(self, alpha: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if alpha < 1:
            raise UsageError(f"alpha must be at least 1, not {alpha}.")
        self.alpha = alpha

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B, T // alpha, ...)."""
        return ops.take(inputs, slow_indices(inputs.shape[1], self.alpha), axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, T // alpha, ...)."""
        frames = input_shape[1]
        if frames is None:
            raise UsageError("SlowFrames must know the number of frames.")
        return (input_shape[0], frames // self.alpha, *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "alpha": self.alpha}
