"""Moments between labelled ones, at which it is known who is where: more moments to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvideo.data.actors import Actor

if TYPE_CHECKING:
    from kvideo.data.keyframes import Keyframe

_SAME_GAP = 1.25  # of the usual distance of labelled moments: more, and one between is missing


class Between:
    """Who is where between the labelled moments of videos.

    That is known where two labelled moments follow each other at the usual distance, and at both
    the same persons do the same things: their boxes then are taken to move evenly in between.

    Args:
        moments: labelled ones.
    """

    def __init__(self, moments: Sequence[Keyframe]) -> None:
        rows: dict[str, list[Keyframe]] = {}
        for moment in moments:
            rows.setdefault(moment.path, []).append(moment)
        gaps = []
        for own in rows.values():
            own.sort(key=lambda moment: moment.time)
            gaps += np.diff([moment.time for moment in own]).tolist()
        self.step = float(np.median(gaps)) if gaps else 0.0
        self._neighbours: dict[tuple[str, float], tuple[Keyframe | None, Keyframe | None]] = {}
        for own in rows.values():
            padded = [None, *own, None]
            for before, moment, after in zip(padded, own, padded[2:], strict=False):
                self._neighbours[moment.path, moment.time] = before, after

    def moved(self, moment: Keyframe, seconds: float) -> tuple[float, tuple[Actor, ...]]:
        """The moment so many seconds later (or earlier), and who is there.

        Returns:
            Time and actors; those of the moment itself where nothing is known of the other one.
        """
        other = self._neighbours.get((moment.path, moment.time), (None, None))[seconds > 0]
        if other is None or not seconds:
            return moment.time, moment.actors
        gap = abs(other.time - moment.time)
        if gap > _SAME_GAP * self.step or abs(seconds) > gap:
            return moment.time, moment.actors
        known = {actor.person: actor for actor in other.actors}
        if None in known or len(known) != len(moment.actors):
            return moment.time, moment.actors
        share, found = abs(seconds) / gap, []
        for actor in moment.actors:
            there = known.get(actor.person)
            if there is None or there.labels != actor.labels:
                return moment.time, moment.actors
            box = np.array(actor.box) * (1 - share) + np.array(there.box) * share
            found.append(dataclasses.replace(actor, box=tuple(box.tolist())))
        return moment.time + seconds, tuple(found)
