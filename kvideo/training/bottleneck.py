"""Was it the loader or the model that took the time?"""

from __future__ import annotations

from kvideo.clip_spec import ClipSpec

# Where waiting for clips takes more than this share of the time, the loader is the bottleneck.
_LOADER_BOUND = 0.15


def describe_bottleneck(waited: float, seconds: float, spec: ClipSpec) -> str:
    """A sentence: what took the time of a training, and what would help.

    Args:
        waited: seconds that the model waited for clips.
        seconds: of the training.
        spec: of the clips.
    """
    share = waited / seconds if seconds else 0.0
    if share <= _LOADER_BOUND:
        return f"The model was the bottleneck: it waited for clips only {share:.0%} of the time."
    remedy = "More --workers or smaller videos would help."
    if spec.has_flow:
        remedy = (
            "Optical flow is computed in the first epoch; `kvideo flow DATA --frame-rate "
            f"{spec.frame_rate:g}` does it beforehand."
        )
    return (
        f"The loader was the bottleneck: the model waited for clips {share:.0%} of the time. "
        f"{remedy}"
    )
