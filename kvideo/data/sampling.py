"""Which moments and which part of the picture a clip takes: times and boxes, no pixels.

Sampling comes before decoding: what is not sampled is never converted. Every random choice is
drawn once per clip, so it is the same for all frames of the clip.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import DataError, UsageError

# A time this little before a span's end (seconds) shows the span's last frame: readers take a
# frame that begins up to 1 ms later, since containers round.
BEFORE_END = 0.002
CROPS = ("random_resized", "random", "center")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to training clips, one draw per clip.

    Args:
        crop: `"random_resized"`: a box of random area and aspect (Szegedy et al. 2015);
            `"random"`: the short side resized to between 1 and 1.25 times the test-time one, then
            a random box of the clip's size (Simonyan & Zisserman 2014); `"center"`: none.
            With `"letterbox"` framing any choice but `"center"` means a random scale and place
            inside the frame; the picture's aspect stays as it is.
        min_area: smallest share of the picture's area that a random resized crop takes, and,
            squared-rooted, the smallest scale of a letterboxed picture.
        max_scale: largest scale of a letterboxed picture; what is then too large for the frame is
            cut at a random place.
        max_aspect: largest distortion of a random resized crop, as width/height over the clip's.
        flip: mirror half of the clips left to right. Off where direction carries the label.
        brightness: largest change, as a share of 255.
        contrast: largest relative change.
        saturation: largest relative change.
        num_ops: operations of RandAugment on each clip; 0: none. See
            `kvideo.data.rand_augment.rand_augment`. For pictures only.
        magnitude: their strength, 0 to 10.
        erase: probability that a box of the clip, the same in all frames, is erased. See
            `kvideo.data.transforms.erase_box`.

    Raises:
        UsageError: a value is out of its range.
    """

    crop: str = "random_resized"
    min_area: float = 0.4
    max_scale: float = 1.0
    max_aspect: float = 4 / 3
    flip: bool = True
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    num_ops: int = 0
    magnitude: float = 9.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise UsageError(f"crop must be one of {CROPS}, not {self.crop!r}.")
        if not 0 < self.min_area <= 1:
            raise UsageError(f"min_area must be above 0 and at most 1, not {self.min_area}.")
        for name in ("max_scale", "max_aspect"):
            if not 1 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 0 and below 1, not {getattr(self, name)}."
                )
        if not 0 <= self.num_ops <= 10:
            raise UsageError(f"RandAugment takes 0 to 10 operations, not {self.num_ops}.")
        if not 0 <= self.magnitude <= 10:
            raise UsageError(f"RandAugment's magnitude must be 0 to 10, not {self.magnitude:g}.")
        if not 0 <= self.erase <= 1:
            raise UsageError(f"random_erasing must be 0 to 1, not {self.erase}.")

    def check(self, modality: str) -> None:
        """Whether clips of that modality can be changed so.

        Raises:
            UsageError: they cannot.
        """
        if self.num_ops and modality != "rgb":
            raise UsageError(
                f"RandAugment changes pictures; clips of {modality} have optical flow, which would "
                "not follow."
            )


def parse_rand_augment(text: str) -> tuple[int, float]:
    """`"2x9"` as a number of operations and their magnitude.

    Raises:
        UsageError: it is not of that form.
    """
    count, _, strength = text.lower().partition("x")
    try:
        return int(count), float(strength)
    except ValueError:
        raise UsageError(
            f"rand_augment is NUMBERxMAGNITUDE, such as 2x9 (2 operations of magnitude 9 of 10), "
            f"not {text!r}."
        ) from None


@dataclasses.dataclass(frozen=True)
class Window:
    """Which part of the displayed picture comes where in the clip. All in pixels.

    Args:
        size: (height, width) to which the whole picture is resized.
        crop: (top, left, height, width) cut out of it.
        place: (top, left) of the cut-out inside the clip's frame; what it leaves free is grey.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int]
    place: tuple[int, int] = (0, 0)


def clip_span(start: float | None, end: float | None, duration: float) -> tuple[float, float]:
    """The part of a video that a record means, in seconds, clamped to the file.

    Raises:
        DataError: the part lies outside the file or is empty.
    """
    first = max(0.0, start or 0.0)
    last = duration if end is None else min(end, duration)
    if last <= first and not (start is None and end is None):
        raise DataError(
            f"the part from {start} to {end} s lies outside the video, which lasts {duration:.2f} s"
        )
    return first, max(last, first)


def random_clip_times(
    span: tuple[float, float], spec: ClipSpec, rng: np.random.Generator
) -> np.ndarray:
    """Times (T,) of a clip at a random place, seconds.

    A clip longer than the span begins at the span's start and holds its last frame.
    """
    room = max(0.0, span[1] - span[0] - spec.span)
    return clip_times(np.array(span[0] + rng.uniform(0.0, room)), span[1], spec)


def even_clip_times(span: tuple[float, float], spec: ClipSpec, num_clips: int) -> np.ndarray:
    """Times (num_clips, T) of clips spread evenly, seconds.

    One clip is taken from the middle; of several the first begins at the start and the last ends
    at the end, as usual (Wang et al. 2018). A clip longer than the span holds its last frame.
    """
    room = max(0.0, span[1] - span[0] - spec.span)
    starts = np.linspace(0.0, room, num_clips) if num_clips > 1 else np.array([room / 2])
    return clip_times(span[0] + starts, span[1], spec)


def clip_times(starts: np.ndarray, end: float, spec: ClipSpec) -> np.ndarray:
    """Times (..., T) in seconds of clips that begin at `starts`; none past `end`'s last frame."""
    times = starts[..., None] + np.arange(spec.num_frames) / spec.frame_rate
    return np.minimum(times, np.maximum(starts, end - BEFORE_END)[..., None])


def on_grid(times: np.ndarray, span: tuple[float, float], spec: ClipSpec) -> np.ndarray:
    """Clips moved to the nearest multiples of 1 / `frame_rate` that lie in the span.

    The flow of a video is computed at these times, so that all clips share it.

    Args:
        times: (..., T) seconds, as `clip_times` gives them.
        span: of the record.
        spec: what a clip is.
    """
    rate = spec.frame_rate
    lowest = math.ceil(span[0] * rate - 1e-6)
    highest = math.floor((span[1] - BEFORE_END) * rate + 1e-6) - spec.num_frames
    first = np.clip(np.rint(times[..., 0] * rate), lowest, max(lowest, highest))
    steps = first[..., None] + np.arange(spec.num_frames)
    return np.minimum(steps / rate, np.maximum(times[..., :1], span[1] - BEFORE_END))


def flow_steps(times: np.ndarray, end: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Which flows of a video the times of clips mean, and which of them there are.

    Args:
        times: (...) seconds, as `on_grid` gives them.
        end: of the record: flow to a frame beyond it is not part of it.
        rate: flows per second; number k is that from k / rate to (k + 1) / rate.

    Returns:
        (...) numbers, and (...) bool.
    """
    steps = np.rint(times * rate).astype(int)
    return steps, (steps + 1) / rate <= end - BEFORE_END + 1e-6


def is_padding(start: float, end: float, spec: ClipSpec) -> np.ndarray:
    """Which of the times of a clip, bool (T,), lie behind the span's end and repeat its last frame.

    The first never does.
    """
    times = start + np.arange(spec.num_frames) / spec.frame_rate
    return (times > max(start, end - BEFORE_END)) & (np.arange(spec.num_frames) > 0)


def covering_times(span: tuple[float, float], spec: ClipSpec) -> tuple[np.ndarray, np.ndarray]:
    """Clips that cover a whole span and overlap by half.

    Returns:
        Times (K,) in seconds at which the span is sampled, 1 / `frame_rate` apart; and the numbers
        (N,) of the times at which clips begin. The last clip ends with the last time, unless the
        span is shorter than a clip; then there is one clip, and it goes beyond the end.
    """
    count = max(1, math.ceil((span[1] - span[0] - BEFORE_END) * spec.frame_rate))
    times = span[0] + np.arange(count) / spec.frame_rate
    last = max(0, count - spec.num_frames)
    hop = max(1, spec.num_frames // 2)
    return times, np.array([*range(0, last, hop), last])


def sliding_times(span: tuple[float, float], spec: ClipSpec, stride: float) -> np.ndarray:
    """When the clips begin that slide over a whole span, (N,) seconds.

    Clip i has its middle `(i + 1/2) · stride` after the beginning, where the clip fits; at either
    end clips are moved inwards. N is the span's length over the stride, rounded, at least 1.

    Args:
        span: beginning and end, seconds.
        spec: what a clip is.
        stride: seconds.
    """
    count = max(1, round((span[1] - span[0]) / stride))
    middles = span[0] + (np.arange(count) + 0.5) * stride
    return np.clip(middles - spec.span / 2, span[0], max(span[0], span[1] - spec.span))


def _cover(picture: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) of the picture with its short side resized, aspect kept."""
    scale = short_side / min(picture)
    return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))


def _contain(picture: tuple[int, int], size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of the picture resized into `scale` × size, aspect kept."""
    factor = scale * min(size[0] / picture[0], size[1] / picture[1])
    height, width = max(1, round(picture[0] * factor)), max(1, round(picture[1] * factor))
    largest = (math.ceil(side * max(scale, 1.0)) for side in size)
    return min(height, next(largest)), min(width, next(largest))


def _whole(size: tuple[int, int], place: tuple[int, int] = (0, 0)) -> Window:
    return Window(size, (0, 0, *size), place)


def random_window(
    picture: tuple[int, int],
    spec: ClipSpec,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Window:
    """A random part of a picture of (height, width), for training.

    The result's crop has the clip's size, but for letterboxing, where it may be smaller.
    """
    if augmentation.crop == "center":
        return view_windows(picture, spec, 1)[0]
    height, width = spec.size
    if spec.framing == "letterbox":
        return _scaled(picture, spec.size, augmentation, rng)
    if augmentation.crop == "random" and spec.framing == "crop":
        short = max(spec.test_short_side, min(spec.size))
        full = _cover(picture, int(rng.integers(short, round(1.25 * short) + 1)))
        full = max(full[0], height), max(full[1], width)
    else:
        full = _resized_box(picture, spec, augmentation, rng)
    top = int(rng.integers(0, full[0] - height + 1))
    left = int(rng.integers(0, full[1] - width + 1))
    return Window(full, (top, left, height, width))


def _scaled(
    picture: tuple[int, int],
    frame: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Window:
    """A picture of its own aspect, at a random scale and place; cut where it is too large."""
    scale = rng.uniform(math.sqrt(augmentation.min_area), augmentation.max_scale)
    size = _contain(picture, frame, scale)
    shown = min(size[0], frame[0]), min(size[1], frame[1])
    place = (
        int(rng.integers(0, frame[0] - shown[0] + 1)),
        int(rng.integers(0, frame[1] - shown[1] + 1)),
    )
    top = left = 0
    if augmentation.max_scale > 1:
        top = int(rng.integers(0, size[0] - shown[0] + 1))
        left = int(rng.integers(0, size[1] - shown[1] + 1))
    return Window(size, (top, left, *shown), place)


def _resized_box(
    picture: tuple[int, int],
    spec: ClipSpec,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """The size of the whole picture when a random box of it is resized to the clip's size."""
    height, width = spec.size
    stretched = spec.framing == "stretch"
    shape = (height, width) if stretched else picture
    area, clip_aspect = shape[0] * shape[1], width / height
    share = rng.uniform(augmentation.min_area, 1.0)
    limit = math.log(augmentation.max_aspect)
    aspect = clip_aspect * math.exp(rng.uniform(-limit, limit))
    box_height = min(math.sqrt(share * area / aspect), shape[0])
    box_width = min(math.sqrt(share * area * aspect), shape[1])
    return (
        max(height, round(shape[0] * height / box_height)),
        max(width, round(shape[1] * width / box_width)),
    )


def view_windows(picture: tuple[int, int], spec: ClipSpec, num_crops: int) -> list[Window]:
    """The windows of the test-time crops of a picture of (height, width).

    With `"crop"` framing one crop is the centre and three lie along the long side; all share one
    `size`, so one decode serves them. The other framings show the whole picture, and their crops
    are all equal: one is returned.
    """
    if spec.framing == "letterbox":
        size = _contain(picture, spec.size, 1.0)
        place = (spec.size[0] - size[0]) // 2, (spec.size[1] - size[1]) // 2
        return [_whole(size, place)]
    if spec.framing == "stretch":
        return [_whole(spec.size)]
    height, width = spec.size
    full = _cover(picture, max(spec.test_short_side, min(spec.size)))
    scale = max(1.0, height / full[0], width / full[1])  # a long clip shape on a short picture
    full = max(height, round(full[0] * scale)), max(width, round(full[1] * scale))
    room = full[0] - height, full[1] - width
    if num_crops == 1:
        shares = [(0.5, 0.5)]
    elif picture[1] >= picture[0]:
        shares = [(0.5, share) for share in (0.0, 0.5, 1.0)]
    else:
        shares = [(share, 0.5) for share in (0.0, 0.5, 1.0)]
    return [
        Window(full, (round(room[0] * down), round(room[1] * right), height, width))
        for down, right in shares
    ]


def num_views(spec: ClipSpec, views: Views) -> int:
    """Views of one video: framings that show the whole picture have one crop."""
    return views.num_clips * (views.num_crops if spec.framing == "crop" else 1)
