"""Inflation: a network for pictures becomes one for clips, and keeps what it has learnt.

Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?", section 2.4.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from kvideo.errors import UsageError, check_choice
from kvideo.inflation.convolution_rules import CONVOLUTIONS
from kvideo.inflation.graph import Inflation, Settings, check_network, survey
from kvideo.inflation.layer_rules import STRIDED
from kvideo.layers.inflation import PADDINGS

INITIALIZATIONS = ("mean", "centre")
KernelT = int | Mapping[str, int] | Callable[[keras.Layer], int]


def inflate(
    model_2d: keras.Model,
    num_frames: int,
    kernel_t: KernelT = 3,
    temporal_padding: str = "zero",
    *,
    initialization: str = "mean",
    stride_t: Mapping[str, int] | None = None,
    per_frame: Sequence[str] = (),
    name: str | None = None,
) -> keras.Model:
    """A functional model for clips from one for pictures, with its weights.

    Every layer gets its form in three dimensions, under the same name. Kernels of convolutions are
    repeated `kernel_t` times along time and divided by `kernel_t`, so a clip that stands still
    gives, frame by frame, what its picture gives in the 2D model (where no padding is in reach, or
    with `temporal_padding="edge"`). Time keeps its length: nothing strides or pools over it unless
    `stride_t` says so. Two things do look at the whole clip: global pools at the end, and a
    `Flatten`, before which the frames are averaged. Global pools whose result meets a map again
    (squeeze-and-excitation) stay within their frame.

    Args:
        model_2d: any functional model, or sequential one of known input, of one picture
            (B, H, W, C); every model of `keras.applications` for one. It is left as it is.
        num_frames: T, the length of a clip.
        kernel_t: over how many frames convolutions look. A number is for every convolution that
            looks at more than one pixel; 1 makes a 2D network on each frame. A mapping gives the
            number by layer name or pattern (`{"block1[1-5]_*": 3}`; the first that fits counts, and
            what none fits gets 1). A function gets each 2D convolution and returns the number.
        temporal_padding: what convolutions see before and after the clip: `"zero"`, or `"edge"`,
            the first and last frame again, which costs about the same.
        initialization: `"mean"`: the copies divided by `kernel_t`, as published. `"centre"`: all
            weights are in the central frame, the others are zero; the model then begins as the 2D
            one on each frame, moving or not.
        stride_t: layer name or pattern to stride in time, of convolutions and pools (which then
            pool over as many frames). Branches that meet need the same.
        per_frame: names or patterns of layers to run on each frame by themselves: for classes that
            have no rule.
        name: of the model; by default the 2D model's and `_3d`.

    Returns:
        A functional model of (B, T, H, W, C). Its output has a time axis, unless something before
        pools over the clip.

    Raises:
        UsageError: an argument is out of its range, or a layer cannot be inflated; the message
            names it and the rule.

    References:
        Carreira & Zisserman 2017, section 2.4. Girdhar et al. 2018, "Detect-and-Track", for
        `"centre"`.
    """
    check_network(model_2d)
    picture = model_2d.inputs[0]
    clip_name = picture._keras_history.operation.name
    num_frames = _whole("num_frames", num_frames)
    shape = (num_frames, *picture.shape[1:])
    clip = keras.Input(shape, name=clip_name, dtype=picture.dtype)
    outputs = inflate_onto(
        model_2d,
        clip,
        kernel_t=kernel_t,
        temporal_padding=temporal_padding,
        initialization=initialization,
        stride_t=stride_t,
        per_frame=per_frame,
    )
    return keras.Model(clip, outputs, name=f"{model_2d.name}_3d" if name is None else name)


def inflate_onto(
    model_2d: keras.Model,
    clip: Any,
    *,
    kernel_t: KernelT = 3,
    temporal_padding: str = "zero",
    initialization: str = "mean",
    stride_t: Mapping[str, int] | None = None,
    per_frame: Sequence[str] = (),
) -> Any:
    """As `inflate`, on a Keras tensor (B, T, H, W, C) instead of an input.

    Returns:
        The Keras tensor or tensors that the 2D model's outputs became.
    """
    check_network(model_2d)
    for argument, value, known in (
        ("temporal_padding", temporal_padding, PADDINGS),
        ("initialization", initialization, INITIALIZATIONS),
    ):
        check_choice(argument, value, known)
    if stride_t is not None and not isinstance(stride_t, Mapping):
        raise UsageError(
            f'stride_t must be a mapping from layer names to numbers, such as {{"pool1": 2}}, not '
            f"{stride_t!r}."
        )
    found = survey(model_2d)
    convolutions = [layer for layer in found.layers if _of(layer, CONVOLUTIONS)]
    strided = [layer for layer in found.layers if _of(layer, STRIDED)]
    settings = Settings(
        kernel_t=_kernel_sizes(kernel_t, convolutions),
        stride_t=_by_name("stride_t", stride_t or {}, strided, "convolution or pool"),
        per_frame=frozenset(
            _by_name("per_frame", dict.fromkeys(per_frame, 1), found.layers, "layer")
        ),
        edge=temporal_padding == "edge",
        centre=initialization == "centre",
    )
    walk = Inflation(
        settings, found.squeezing - found.per_frame, taken=(clip._keras_history.operation.name,)
    )
    return walk.run(model_2d, clip)


def _of(layer: keras.Layer, kinds: Iterable[type]) -> bool:
    return type(layer) in tuple(kinds)


def _whole(argument: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise UsageError(f"{argument} must be a whole number of at least 1, not {value!r}.")
    return int(value)


def _kernel_sizes(kernel_t: KernelT, convolutions: list[keras.Layer]) -> dict[int, int]:
    """From a convolution's id to the frames that it spans."""
    if isinstance(kernel_t, Mapping):
        return _by_name("kernel_t", kernel_t, convolutions, "convolution")
    if callable(kernel_t):
        return {
            id(layer): _whole(f'kernel_t of layer "{layer.name}"', kernel_t(layer))
            for layer in convolutions
        }
    frames = _whole("kernel_t", kernel_t)
    spatial = [layer for layer in convolutions if max(layer.kernel_size) > 1]
    return {id(layer): frames for layer in spatial}


def _by_name(
    argument: str,
    wanted: Mapping[str, int],
    layers: list[keras.Layer],
    kind: str,
) -> dict[int, int]:
    """From the id of a layer that a name or pattern fits to that pattern's number.

    Raises:
        UsageError: a pattern fits no layer; suggests a near name.
    """
    numbers = {pattern: _whole(f'{argument} of "{pattern}"', n) for pattern, n in wanted.items()}
    found: dict[int, int] = {}
    for pattern, number in numbers.items():
        fitting = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not fitting:
            near = difflib.get_close_matches(pattern, [layer.name for layer in layers], n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise UsageError(f'{argument}: no {kind} is named "{pattern}".{hint}')
        for layer in fitting:
            found.setdefault(id(layer), number)
    return found
