"""How the optical flow of a video is computed and kept, as data. No imports to speak of."""

from __future__ import annotations

import dataclasses

from kvideo.errors import UsageError, check_choice

ESTIMATORS = ("dis", "farneback", "tvl1")
PRESETS = ("ultrafast", "fast", "medium")
STORES = ("jpeg", "float16")


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and kept.

    Where two frames have nothing in common, as at a cut (see `kvideo.flow.is_cut`), the flow is
    zero.

    Args:
        method: see `kvideo.flow.FlowEstimator`.
        preset: of `"dis"`.
        compensate: whether the mean displacement of each frame is subtracted.
        frame_rate: the flow is that between the frames on display 1 / `frame_rate` seconds apart;
            None: between all neighbouring frames of the video.
        short_side: pixels to which the short side of larger pictures is shrunk first.
        store: `"jpeg"`: cut off at `limit`, in 255 steps, as JPEG, which is how the two-stream
            paper does it. `"float16"`: nothing lost but digits; some thirty times larger.
        limit: pixels per frame.
        quality: of the JPEGs, 1 to 100.

    Raises:
        UsageError: a value is out of its range; the message names it.
    """

    method: str = "dis"
    preset: str = "medium"
    compensate: bool = False
    frame_rate: float | None = None
    short_side: int = 256
    store: str = "jpeg"
    limit: float = 20.0
    quality: int = 95

    def __post_init__(self) -> None:
        check_choice("method", self.method, ESTIMATORS)
        check_choice("preset", self.preset, PRESETS)
        check_choice("store", self.store, STORES)
        if self.frame_rate is not None and not 0 < self.frame_rate < float("inf"):
            raise UsageError(f"frame_rate must be a positive number, not {self.frame_rate}.")
        if self.short_side < 1:
            raise UsageError(f"short_side must be at least 1 pixel, not {self.short_side}.")
        if not 0 < self.limit < float("inf"):
            raise UsageError(f"limit must be a positive number of pixels, not {self.limit}.")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be 1 to 100, not {self.quality}.")

    def size(self, picture: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the flow of pictures of a size."""
        scale = min(1.0, self.short_side / min(picture))
        return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))
