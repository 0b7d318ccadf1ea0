"""What one clip is: frames, rate, size, modality; and how many views a video gives.

Everything that samples, decodes, evaluates or predicts takes its `ClipSpec` from the model.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvideo.errors import UsageError, check_choice
from kvideo.flow_settings import FlowSettings

MODALITIES = {"rgb": 3, "flow": 2, "rgb+flow": 5}  # name to channels
FRAMINGS = ("crop", "letterbox", "stretch")
DEFAULT_FRAME_RATE = 8.0


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """One clip, as a model takes it.

    Args:
        num_frames: frames in a clip, T.
        frame_rate: frames per second *of the clip* (not of the file). Frames are chosen by their
            presentation time, so files of any and of mixed frame rates give the same clip.
        size: (height, width) in pixels.
        modality: `"rgb"`; `"flow"`: optical flow, (dx, dy) in pixels per frame *of the clip*, each
            frame's to the next, so that T flows lie between T + 1 frames; or `"rgb+flow"`: both,
            as five channels.
        framing: how a picture of another shape comes to `size`. `"crop"`: the short side is
            resized to `short_side`, then a part is cut out. `"letterbox"`: the whole picture is
            shrunk to fit and the rest is grey. `"stretch"`: the whole picture, distorted.
        short_side: for `"crop"`: the short side after resizing, at test time. By default 8/7 of
            the clip's short side (256 for 224, 128 for 112), as is usual.
        flow: for clips of flow: how it is computed. Its `frame_rate` is the clip's.

    Raises:
        UsageError: a value is out of its range; the message names it.
    """

    num_frames: int
    frame_rate: float = DEFAULT_FRAME_RATE
    size: tuple[int, int] = (112, 112)
    modality: str = "rgb"
    framing: str = "crop"
    short_side: int | None = None
    flow: FlowSettings | None = None

    def __post_init__(self) -> None:
        size = tuple(int(side) for side in self.size)
        object.__setattr__(self, "size", size)
        if self.num_frames < 1:
            raise UsageError(f"num_frames must be at least 1, not {self.num_frames}.")
        if not (self.frame_rate > 0 and math.isfinite(self.frame_rate)):
            raise UsageError(f"frame_rate must be a positive number, not {self.frame_rate}.")
        if len(size) != 2 or min(size) < 1:
            raise UsageError(f"size must be (height, width) in pixels, not {self.size!r}.")
        check_choice("modality", self.modality, MODALITIES)
        check_choice("framing", self.framing, FRAMINGS)
        if self.short_side is not None and self.short_side < min(size):
            raise UsageError(
                f"short_side ({self.short_side}) must not be smaller than the clip's short side "
                f"({min(size)})."
            )
        flow = None
        if self.has_flow:
            flow = dataclasses.replace(self.flow or FlowSettings(), frame_rate=self.frame_rate)
        object.__setattr__(self, "flow", flow)

    @property
    def has_flow(self) -> bool:
        """Whether optical flow is in the clip."""
        return "flow" in self.modality

    @property
    def span(self) -> float:
        """Seconds from the first frame's start to the end of the last one that is looked at."""
        return (self.num_frames + self.has_flow) / self.frame_rate

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of one clip."""
        return (self.num_frames, *self.size, MODALITIES[self.modality])

    @property
    def dtype(self) -> str:
        """Of a clip: `"uint8"` for pictures alone, `"float32"` where there is flow."""
        return clip_dtype(self.shape)

    @property
    def test_short_side(self) -> int:
        """The short side, in pixels, to which pictures are resized before a test-time crop."""
        return self.short_side or round(min(self.size) * 8 / 7)

    def replace(self, **changes: Any) -> ClipSpec:
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {**dataclasses.asdict(self), "size": list(self.size)}
        return values if self.has_flow else {k: v for k, v in values.items() if k != "flow"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClipSpec:
        """The inverse of `to_json`; unknown keys, from a later version, are an error."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"this version of kvideo knows no clip setting {unknown[0]!r}.")
        flow = values.get("flow")
        return cls(**{**values, "flow": flow and FlowSettings(**flow)})


def modality_of(channels: int) -> str:
    """The modality of clips of so many channels.

    Raises:
        UsageError: there is none.
    """
    for name, number in MODALITIES.items():
        if number == channels:
            return name
    raise UsageError(
        f"a clip has 3 channels (RGB), 2 (optical flow) or 5 (both), not {channels!r}."
    )


def clip_dtype(shape: Sequence[int | None]) -> str:
    """The type of what a model with inputs of a shape takes.

    Args:
        shape: ends in (T, H, W, C) for clips, (T, C) for their features.
    """
    return "uint8" if len(shape) >= 4 and shape[-1] == MODALITIES["rgb"] else "float32"


@dataclasses.dataclass(frozen=True)
class Views:
    """How many views of a video are averaged: temporal clips × spatial crops.

    Args:
        num_clips: clips spread evenly over the video.
        num_crops: 1 (centre) or 3 (along the long side).

    Raises:
        UsageError: a value is out of its range.
    """

    num_clips: int = 10
    num_crops: int = 1

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise UsageError(f"num_clips must be at least 1, not {self.num_clips}.")
        if self.num_crops not in (1, 3):
            raise UsageError(f"num_crops must be 1 or 3, not {self.num_crops}.")

    def __len__(self) -> int:
        return self.num_clips * self.num_crops


def recommended_clip(builder: Callable[..., Any], **options: Any) -> ClipSpec:
    """The clip that a builder is made for.

    A builder may carry it as its attribute `clip_spec` and, where it depends on the builder's
    arguments, a function of these that gives it as `clip_spec_for`. Otherwise its default
    `input_shape` (T, H, W, C) and `DEFAULT_FRAME_RATE` say it.

    Args:
        builder: makes a model.
        **options: further arguments for the builder, such as `backbone`.

    Raises:
        UsageError: the builder has neither.
    """
    channels = options.pop("channels", None)
    spec_for = getattr(builder, "clip_spec_for", None)
    spec = spec_for(**options) if spec_for else getattr(builder, "clip_spec", None)
    if isinstance(spec, ClipSpec):
        return spec if channels is None else spec.replace(modality=modality_of(channels))
    parameter = inspect.signature(builder).parameters.get("input_shape")
    shape = parameter.default if parameter is not None else None
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise UsageError(
            f"the model's builder {getattr(builder, '__name__', builder)} states no default "
            "input_shape=(T, H, W, C); give the number of frames and the size."
        )
    return ClipSpec(num_frames=shape[0], size=shape[1:3], modality=modality_of(shape[3]))


def recommended_views(builder: Callable[..., Any]) -> Views:
    """The views that a builder recommends by its attribute `views`, or 10 clips, centre crop."""
    views = getattr(builder, "views", None)
    return views if isinstance(views, Views) else Views()
