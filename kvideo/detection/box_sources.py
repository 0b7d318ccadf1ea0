"""Boxes from elsewhere than a detector's own head: a file, or a person detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kvideo.data.actors import ActorSet, Frame
from kvideo.data.boxes import clipped
from kvideo.data.proposals import Found, read_proposals
from kvideo.data.remote import open_remote
from kvideo.detection.metrics import Floats
from kvideo.errors import KVideoError

_SAME_TIME = 1e-3  # seconds
_NOBODY = (np.zeros((0, 4)), np.zeros(0))


class GivenBoxes:
    """Boxes by video and moment.

    Args:
        boxes: of each (video, seconds).
    """

    def __init__(self, boxes: Mapping[Frame, Found]) -> None:
        self._boxes = {(video, _key(time)): found for (video, time), found in boxes.items()}

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> GivenBoxes:
        """Those of AVA's proposal CSV, see `read_proposals`."""
        return cls(read_proposals(path, open_remote))

    @classmethod
    def of_truth(cls, actors: ActorSet) -> GivenBoxes:
        """The true boxes, all of them sure."""
        return cls({
            frame: (np.array([a.box for a in found]).reshape(-1, 4), np.ones(len(found)))
            for frame, found in actors.frames.items()
        })  # fmt: skip

    def moments(self, video: str) -> list[float]:
        """The moments of a video that have boxes, seconds, rising."""
        return sorted(time / 1000 for name, time in self._boxes if name == video)

    def __call__(self, path: str, name: str, times: Floats) -> list[Found]:
        """The boxes of some moments of a video; none where the file says nothing."""
        return [self._boxes.get((name, _key(time)), _NOBODY) for time in times.tolist()]


def _key(time: float) -> int:
    return round(time / _SAME_TIME)


class PersonDetector:
    """A detector of the entry-point group `kvideo.person_detectors`, on a video's pictures.

    Args:
        run: see `kvideo.registry.get_person_detector`.
        open_video: a decoder.
        name: for messages.
    """

    def __init__(self, run: Callable[..., Any], open_video: Callable[..., Any], name: str) -> None:
        self._run, self._open, self._name = run, open_video, name

    def __call__(self, path: str, name: str, times: Floats) -> list[Found]:
        """The boxes at some moments of a video."""
        with self._open(path, opener=open_remote if "://" in path else None) as video:
            pictures = video.read(np.asarray(times))
        try:
            found = list(self._run(pictures))
            boxes = [clipped(own) for own, _ in found]
            scores = [np.asarray(own, np.float64).reshape(-1) for _, own in found]
        except (TypeError, ValueError) as error:
            raise self._wrong(str(error)) from error
        if len(found) != len(times) or [*map(len, boxes)] != [*map(len, scores)]:
            raise self._wrong(
                f"{len(found)} results came for {len(times)} pictures, or other numbers of boxes "
                "than of scores"
            )
        return list(zip(boxes, scores, strict=True))

    def _wrong(self, what: str) -> KVideoError:
        return KVideoError(
            f'the person detector "{self._name}" must give boxes (K, 4) and scores (K,) for each '
            f"picture: {what}."
        )
