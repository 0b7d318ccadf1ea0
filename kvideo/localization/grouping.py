"""The one-stage baseline: probabilities of each moment, grouped to segments.

A model with a label for each frame (`output=frames`) says how probable each class is at each time.
Where that is above a threshold there is a basin; basins with little between them are joined. Many
thresholds and tolerances give many segments, of which suppression keeps the best (the watershed of
temporal actionness grouping).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvideo.localization.detection import Detections, DetectionSettings, suppressed
from kvideo.segmentation.results import FrameResult

Floats = NDArray[np.floating]

_LEVELS = tuple(np.arange(1, 20) / 20)  # thresholds of the probability
_FILLED = (1.0, 0.9, 0.8, 0.7, 0.6)  # least share of a segment that is above the threshold
_FLANK = 0.25  # of a segment's length, on either side, which should not be of the class
_LOWEST = 0.005


def group(
    result: FrameResult, background: tuple[int, ...], settings: DetectionSettings
) -> Detections:
    """Segments of one video.

    A segment's score is the mean probability in it less that in its flanks, a quarter of its length
    on either side, so that it is high for a segment that holds the whole action and nothing else.

    Args:
        result: probabilities (K, C) at K times.
        background: classes that are no actions.
        settings: suppression, and how many segments are kept.

    References:
        Zhao et al. 2017, "Temporal Action Detection with Structured Segment Networks" (grouping);
        Shou et al. 2018, "AutoLoc" (the contrast of inside and outside).
    """
    rows = np.zeros((0, 1)) if result.probabilities is None else result.probabilities
    spans: list[Floats] = [np.zeros((0, 2))]
    labels: list[NDArray[np.integer]] = [np.zeros(0, int)]
    scores: list[Floats] = [np.zeros(0)]
    for label in set(range(rows.shape[1])) - set(background):
        runs = watershed(rows[:, label])
        if len(runs):
            spans.append(result.edges[runs])
            labels.append(np.full(len(runs), label))
            scores.append(contrast(rows[:, label], runs))
    values = np.concatenate(scores)
    good = values >= _LOWEST
    joined, names = np.concatenate(spans)[good], np.concatenate(labels)[good]
    most = settings.share(settings.most, len(rows))
    return Detections(*suppressed(joined, names, values[good], settings, most))


def watershed(probability: Floats) -> NDArray[np.integer]:
    """(N, 2) runs of times: first, and the one after the last; each once.

    Args:
        probability: (K,) of one class.
    """
    found: set[tuple[int, int]] = set()
    for level in _LEVELS:
        above = probability >= level
        edges = np.flatnonzero(np.diff(np.r_[False, above, False].astype(np.int8)))
        basins = edges.reshape(-1, 2)
        if len(basins):
            sums = np.r_[0, np.cumsum(above)]
            for share in _FILLED:
                found.update(_joined(basins, sums, share))
    return np.array(sorted(found), int).reshape(-1, 2)


def _joined(
    basins: NDArray[np.integer], sums: NDArray[np.integer], share: float
) -> list[tuple[int, int]]:
    """Basins, from left to right, joined as long as that share of the whole is above."""
    runs = []
    first, last = (int(edge) for edge in basins[0])
    for start, end in basins[1:].tolist():
        if sums[end] - sums[first] >= share * (end - first):
            last = end
        else:
            runs.append((first, last))
            first, last = start, end
    return [*runs, (first, last)]


def contrast(probability: Floats, runs: NDArray[np.integer]) -> Floats:
    """(N,) mean of (K,) probabilities inside runs (N, 2), less the mean in their flanks."""
    sums = np.r_[0.0, np.cumsum(probability)]
    first, last = runs[:, 0], runs[:, 1]
    flank = np.maximum(1, np.rint(_FLANK * (last - first)).astype(int))
    before, behind = np.maximum(first - flank, 0), np.minimum(last + flank, len(probability))
    inside = (sums[last] - sums[first]) / (last - first)
    around = sums[first] - sums[before] + sums[behind] - sums[last]
    return inside - around / np.maximum(first - before + behind - last, 1)
