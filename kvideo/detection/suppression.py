"""Of boxes that show the same, the best. NumPy only."""

from __future__ import annotations

import numpy as np

from kvideo.detection.metrics import Floats, Ints, box_iou


def suppress(boxes: Floats, iou: float, most: int) -> Ints:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4), the best first.
        iou: a box that overlaps by more with a better one is left out.
        most: at most so many are kept.

    Returns:
        The numbers of the boxes that are kept, rising.
    """
    overlaps = box_iou(boxes, boxes) > iou
    free = np.ones(len(boxes), bool)
    kept: list[int] = []
    for number in range(len(boxes)):
        if free[number]:
            kept.append(number)
            if len(kept) == most:
                break
            free &= ~overlaps[number]
    return np.array(kept, np.int64)
