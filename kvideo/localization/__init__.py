"""When something happens in a long video: segments, and how good they are."""

from kvideo.localization.metrics import (
    ACTIVITYNET_TIOUS,
    DetectionScores,
    RecallCurve,
    Segments,
    average_recall,
    detection_scores,
    temporal_iou,
)

__all__ = [
    "ACTIVITYNET_TIOUS",
    "DetectionScores",
    "RecallCurve",
    "Segments",
    "average_recall",
    "detection_scores",
    "temporal_iou",
]
