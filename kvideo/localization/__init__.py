"""When something happens in a long video: segments, how they are found, and how good they are.

Importing this package imports neither TensorFlow nor Keras; `fit`, `evaluate`, `predict` and
`load_localizer` load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kvideo.localization.metrics import (
    ACTIVITYNET_TIOUS,
    DetectionScores,
    RecallCurve,
    Segments,
    average_recall,
    detection_scores,
    temporal_iou,
)
from kvideo.localization.results import FoundSegment, Localization, LocalizationResult

if TYPE_CHECKING:
    from kvideo.localization.api import evaluate, predict
    from kvideo.localization.fitting import fit
    from kvideo.localization.localizer import Localizer, load_localizer

_LAZY = {
    "Localizer": "kvideo.localization.localizer",
    "evaluate": "kvideo.localization.api",
    "fit": "kvideo.localization.fitting",
    "load_localizer": "kvideo.localization.localizer",
    "predict": "kvideo.localization.api",
}

__all__ = [
    "ACTIVITYNET_TIOUS",
    "DetectionScores",
    "FoundSegment",
    "Localization",
    "LocalizationResult",
    "Localizer",
    "RecallCurve",
    "Segments",
    "average_recall",
    "detection_scores",
    "evaluate",
    "fit",
    "load_localizer",
    "predict",
    "temporal_iou",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
