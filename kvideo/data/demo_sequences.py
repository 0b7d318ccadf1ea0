"""The demo's variants with motions one after the other: a label for each frame, and an order.

`frames`: each video is a sequence of two to four of the demo's six drifts, 1 to 2.5 seconds each,
and every frame has its own label: the drift that led to it. A single frame tells nothing.

`order`: each video shows two drifts, opposite to each other, 3 seconds apart, and the label is
which came first. Before, between and after them the picture stands still. The still parts at the
ends are as long in one class as in the other and at least a second long, so whatever a window of
one second holds (a drift, its beginning, its end, or nothing) could be the first drift of the one
class or the second of the other: only who remembers the first when the second comes can tell.

As in the trimmed demo videos every picture is coded for itself, so that none carries traces of
what was before it.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.data.records import VideoRecord
from kvideo.data.textures import DIRECTIONS, DemoSettings, Texture
from kvideo.data.tracks import LabelTrack, Segment

ORDERS = {  # drifts in degrees
    "down_then_up": (240, 60),
    "up_then_down": (60, 240),
}
SEGMENTS = "segments.csv"
Encode = Callable[[Iterator[np.ndarray], DemoSettings], bytes]
Job = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class SequenceSettings:
    """What the variants look like. A change of any value needs a new `version`.

    Args:
        version: part of the cache folder's name.
        texture: what the pictures look like.
        train: videos in the training part, of both classes together in `order`.
        val: the same for the validation part.
        motions: fewest and most drifts in a video of `frames`.
        motion_seconds: shortest and longest of them.
        drift_seconds: shortest and longest drift of `order`.
        pause_seconds: between the two.
        still_seconds: shortest and longest still part at either end; at least 1.
    """

    version: int = 1
    texture: DemoSettings = DemoSettings(size=64)
    train: int = 160
    val: int = 48
    motions: tuple[int, int] = (2, 4)
    motion_seconds: tuple[float, float] = (1.0, 2.5)
    drift_seconds: tuple[float, float] = (0.8, 1.0)
    pause_seconds: float = 3.0
    still_seconds: tuple[float, float] = (1.0, 1.3)


SEQUENCES = SequenceSettings()


def sequence_jobs(
    top: Path, variant: str, settings: SequenceSettings, seed: int, encode: Encode
) -> list[Job]:
    """Makes the folders of a variant; gives functions and arguments that write its files."""
    jobs: list[Job] = []
    for number, split in enumerate(("train", "val")):
        count = getattr(settings, split)
        if variant == "frames":
            (top / split).mkdir(parents=True)
            for i in range(count):
                path, key = top / split / f"{i:03d}.mp4", (seed, 3, number, i)
                jobs.append((_write_motions, (path, settings, key, encode)))
            continue
        for name in ORDERS:
            (top / split / name).mkdir(parents=True)
        jobs += [
            (_write_orders, (top / split, i, settings, (seed, 4, number, i), encode))
            for i in range(count // 2)
        ]
    return jobs


def write_segments(top: Path, results: list[Any]) -> None:
    """Writes `segments.csv` of what the jobs of `frames` gave."""
    rows: list[tuple[str, ...]] = [("path", "start", "end", "label", "split")]
    for path, segments in results:
        for start, end, name in segments:
            place = path.relative_to(top).as_posix()
            rows.append((place, f"{start:.6g}", f"{end:.6g}", name, path.parent.name))
    with open(top / SEGMENTS, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def frames_records(top: Path, split: str) -> list[VideoRecord]:
    """The records of one part of the variant `frames`."""
    records, names = [], sorted(DIRECTIONS)
    found: dict[str, list[Segment]] = {}
    with open(top / SEGMENTS, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                segment = Segment(float(row["start"]), float(row["end"]), names.index(row["label"]))
                found.setdefault(row["path"], []).append(segment)
    for place, segments in found.items():
        track = LabelTrack(tuple(segments))
        records.append(VideoRecord(str(top / place), track.labels, group=place, track=track))
    return records


def _write_motions(
    path: Path, settings: SequenceSettings, key: tuple[int, ...], encode: Encode
) -> tuple[Path, list[tuple[float, float, str]]]:
    rng = np.random.default_rng(key)
    texture = Texture(settings.texture, rng)
    rate, names = settings.texture.frame_rate, sorted(DIRECTIONS)
    phases, segments, previous = [texture.phases], [], ""
    for _ in range(int(rng.integers(settings.motions[0], settings.motions[1] + 1))):
        name = str(rng.choice([other for other in names if other != previous]))
        count = round(rng.uniform(*settings.motion_seconds) * rate)
        first = len(phases) - 1
        phases.extend(
            phases[-1] + np.arange(1, count + 1)[:, None] * texture.drift(DIRECTIONS[name])
        )
        segments.append((first / rate, (first + count) / rate, name))
        previous = name
    # Frame number n is the picture after step n, so its label is that of the step before it.
    path.write_bytes(encode(texture.frames(np.stack(phases[1:])), settings.texture))
    return path, segments


def _write_orders(
    folder: Path, index: int, settings: SequenceSettings, key: tuple[int, ...], encode: Encode
) -> None:
    """Writes one video of each class, of the same texture at the same times."""
    rng = np.random.default_rng(key)
    texture = Texture(settings.texture, rng)
    rate = settings.texture.frame_rate
    still = [round(rng.uniform(*settings.still_seconds) * rate) for _ in range(2)]
    moving = [round(rng.uniform(*settings.drift_seconds) * rate) for _ in range(2)]
    pause = round(settings.pause_seconds * rate)
    for name, drifts in ORDERS.items():
        steps = [texture.drift(degrees) for degrees in drifts]
        nothing = np.zeros_like(texture.phases)
        parts = (
            (still[0], nothing), (moving[0], steps[0]), (pause, nothing), (moving[1], steps[1]),
            (still[1], nothing),
        )  # fmt: skip
        turns = np.concatenate([np.broadcast_to(turn, (n, len(turn))) for n, turn in parts])
        phases = np.ascontiguousarray(texture.phases + np.cumsum(turns, axis=0))
        path = folder / name / f"{index:03d}.mp4"
        path.write_bytes(encode(texture.frames(phases), settings.texture))
