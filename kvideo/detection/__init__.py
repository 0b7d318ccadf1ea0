"""Who does what, where and when: actors in boxes, found, classified and followed."""

from kvideo.detection.api import evaluate, fit, predict
from kvideo.detection.metrics import Boxes, FrameScores, box_iou, frame_scores
from kvideo.detection.results import Moment, VideoActors
from kvideo.detection.scoring import DetectionResult
from kvideo.detection.tubes import (
    LabelledTube,
    LinkSettings,
    Tube,
    link,
    tube_iou,
    video_scores,
)

__all__ = [
    "Boxes",
    "DetectionResult",
    "FrameScores",
    "LabelledTube",
    "LinkSettings",
    "Moment",
    "Tube",
    "VideoActors",
    "box_iou",
    "evaluate",
    "fit",
    "frame_scores",
    "link",
    "predict",
    "tube_iou",
    "video_scores",
]
