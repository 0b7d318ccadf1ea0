"""Who does what, where and when: actors in boxes, and how well they are found."""

from kvideo.detection.metrics import Boxes, FrameScores, box_iou, frame_scores

__all__ = ["Boxes", "FrameScores", "box_iou", "frame_scores"]
