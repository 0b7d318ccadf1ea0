"""A label for each frame: figures, results, whole videos (`scoring`, with TensorFlow), files."""

from kvideo.segmentation.metrics import (
    F1_OVERLAPS,
    UNLABELLED,
    Runs,
    edit_score,
    f1_score,
    find_runs,
    frame_accuracy,
    segment_counts,
    segmentation_metrics,
)

__all__ = [
    "F1_OVERLAPS",
    "UNLABELLED",
    "Runs",
    "edit_score",
    "f1_score",
    "find_runs",
    "frame_accuracy",
    "segment_counts",
    "segmentation_metrics",
]
