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
from kvideo.data.untrimmed import video_name
from kvideo.detection.metrics import Floats
from kvideo.errors import KVideoError
from kvideo.progress import say_to_stderr

_PER_SECOND = 1000  # moments are told apart
_FAR_OUTSIDE = 2.0  # from here on these are no fractions
_NOBODY = (np.zeros((0, 4)), np.zeros(0))


class GivenBoxes:
    """Boxes by video and moment.

    Args:
        boxes: of each (video, seconds).
    """

    def __init__(self, boxes: Mapping[Frame, Found], source: str = "") -> None:
        self.source = source
        self._boxes: dict[str, dict[int, Found]] = {}
        for (video, time), found in boxes.items():
            self._boxes.setdefault(video, {})[_key(time)] = found

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> GivenBoxes:
        """Those of AVA's proposal CSV, see `read_proposals`; says what is wrong with some."""
        notes: list[str] = []
        found = cls(read_proposals(path, open_remote, notes), os.fspath(path))
        for note in notes:
            say_to_stderr(f"Note: {note}")
        return found

    @classmethod
    def of_truth(cls, actors: ActorSet) -> GivenBoxes:
        """The true boxes, all of them sure."""
        return cls({
            frame: (np.array([a.box for a in found]).reshape(-1, 4), np.ones(len(found)))
            for frame, found in actors.frames.items()
        })  # fmt: skip

    def moments(self, path: str, name: str) -> list[float]:
        """The moments of a video that have boxes, seconds, rising."""
        return [key / _PER_SECOND for key in sorted(self._of(path, name))]

    def __call__(self, path: str, name: str, times: Floats) -> list[Found]:
        """The boxes of some moments of a video; none where the file says nothing."""
        known = self._of(path, name)
        return [known.get(_key(time), _NOBODY) for time in times.tolist()]

    def _of(self, path: str, name: str) -> dict[int, Found]:
        """A video's boxes: by its name, the end of its path, or its file's name without ending."""
        if name in self._boxes:
            return self._boxes[name]
        whole = path.replace("\\", "/")
        bare = os.path.splitext(whole)[0]
        for listed, found in self._boxes.items():
            if any(each == listed or each.endswith(f"/{listed}") for each in (whole, bare)):
                return found
        alike = [found for n, found in self._boxes.items() if video_name(n) == video_name(path)]
        return alike[0] if len(alike) == 1 else {}


def _key(time: float) -> int:
    return round(time * _PER_SECOND)


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
        """The boxes at some moments of a video; those without an area are left out.

        Raises:
            KVideoError: the detector failed, or gave something else than boxes.
        """
        with self._open(path, opener=open_remote if "://" in path else None) as video:
            pictures = video.read(np.asarray(times))
        try:
            found = list(self._run(pictures))
        except Exception as error:  # somebody else's code may fail in any way
            raise KVideoError(
                f'the person detector "{self._name}" failed: {type(error).__name__}: {error}'
            ) from error
        if len(found) != len(times):
            raise self._wrong(f"{len(found)} came for {len(times)} pictures")
        return [self._checked(pair) for pair in found]

    def _checked(self, pair: Any) -> Found:
        try:
            own, given = pair
            boxes = np.asarray(own, np.float64).reshape(-1, 4)
            scores = np.asarray(given, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise self._wrong(str(error)) from error
        if len(boxes) != len(scores):
            raise self._wrong(f"{len(boxes)} boxes came with {len(scores)} scores")
        if not np.isfinite(boxes).all() or np.abs(boxes).max(initial=0.0) > _FAR_OUTSIDE:
            raise self._wrong("corners are fractions of width and height, from 0 to 1")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise self._wrong("scores are from 0 to 1")
        inside = clipped(boxes)
        there = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
        return inside[there], scores[there]

    def _wrong(self, what: str) -> KVideoError:
        return KVideoError(
            f'the person detector "{self._name}" must give a list with a pair (boxes (K, 4), '
            f"scores (K,)) for each picture: {what}."
        )
