"""The demo's variant with actors: where is who doing what, and when does that change?

In front of a texture that stands still there are one to three squares, the actors. Each has a
texture of its own, which drifts inside of it in one of the demo's six directions, and another one
after some seconds; and each wanders slowly over the picture. So an action is a motion within a box,
no single frame shows it, and what an actor does changes while others go on.

All is labelled twice a second, in a CSV of our own form:

    train.csv  val.csv  train_excluded.csv  val_excluded.csv  train/NNN.mp4  val/NNN.mp4

Excluded are the moments near a change of what somebody does.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.data.demo_sequences import Encode, Job
from kvideo.data.textures import DIRECTIONS, DemoSettings, Texture

HEADER = ("video", "time", "x1", "y1", "x2", "y2", "label", "person")
_TRIES = 200  # places for an actor, before all are placed anew
Row = tuple[str, str, str, str, str, str, str, str]


@dataclasses.dataclass(frozen=True)
class ActorDemoSettings:
    """What the variant looks like. A change of any value needs a new `version`.

    Args:
        version: part of the cache folder's name.
        picture: size, frame rate and quantizer.
        train: videos in the training part.
        val: the same for the validation part.
        seconds: of a video.
        actors: fewest and most in a video.
        sides: of an actor's square, pixels; shortest and longest.
        action_seconds: shortest and longest time that an actor does one thing.
        wander: pixels a second, at most, along either axis.
        labels: labelled moments a second.
        margin: seconds; so near to a change, moments are excluded.
    """

    version: int = 1
    picture: DemoSettings = DemoSettings(size=128)
    train: int = 40
    val: int = 12
    seconds: float = 6.0
    actors: tuple[int, int] = (1, 3)
    sides: tuple[int, int] = (36, 50)
    action_seconds: tuple[float, float] = (1.5, 3.0)
    wander: float = 6.0
    labels: int = 2
    margin: float = 0.3


ACTORS = ActorDemoSettings()


@dataclasses.dataclass(frozen=True, eq=False)
class _Actor:
    """A square.

    Attributes:
        corners: (T, 2) its left and top in each frame; even numbers of pixels.
        side: in pixels, even.
        actions: the name of what it does in each frame.
        phases: (T, K) of its texture.
        texture: its texture.
    """

    corners: np.ndarray
    side: int
    actions: tuple[str, ...]
    phases: np.ndarray
    texture: Texture


def actor_jobs(top: Path, settings: ActorDemoSettings, seed: int, encode: Encode) -> list[Job]:
    """Makes the folders; gives functions and arguments that write the videos."""
    jobs: list[Job] = []
    for number, split in enumerate(("train", "val")):
        (top / split).mkdir(parents=True)
        for index in range(getattr(settings, split)):
            path, key = top / split / f"{index:03d}.mp4", (seed, 6, number, index)
            jobs.append((_write, (path, settings, key, encode)))
    return jobs


def write_boxes(top: Path, results: list[Any]) -> None:
    """Writes the lists of what the jobs gave."""
    for split in ("train", "val"):
        own = [(rows, excluded) for name, rows, excluded in results if name == split]
        with open(top / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(row for rows, _ in own for row in rows)
        with open(top / f"{split}_excluded.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(e for _, found in own for e in found)


def _write(
    path: Path, settings: ActorDemoSettings, key: tuple[int, ...], encode: Encode
) -> tuple[str, list[Row], list[tuple[str, str]]]:
    rng = np.random.default_rng(key)
    rate = settings.picture.frame_rate
    count = round(settings.seconds * rate)
    actors = _actors(settings, count, rng)
    ground = Texture(settings.picture, rng)
    still = next(ground.frames(np.asarray(ground.phases)[np.newaxis]))
    path.write_bytes(encode(_pictures(still, actors, settings.picture.size), settings.picture))
    split, name = path.parent.name, f"{path.parent.name}/{path.name}"
    rows: list[Row] = []
    excluded: list[tuple[str, str]] = []
    size = settings.picture.size
    for moment in range(1, round(settings.seconds * settings.labels)):
        time = moment / settings.labels
        frame = round(time * rate)
        near = range(
            max(0, round((time - settings.margin) * rate)),
            min(count, round((time + settings.margin) * rate) + 1),
        )
        if any(actor.actions[f] != actor.actions[frame] for actor in actors for f in near):
            excluded.append((name, f"{time:g}"))
        for number, actor in enumerate(actors):
            left, upper = actor.corners[frame]
            box = (left, upper, left + actor.side, upper + actor.side)
            x1, y1, x2, y2 = (f"{corner / size:.4f}" for corner in box)
            rows.append((name, f"{time:g}", x1, y1, x2, y2, actor.actions[frame], str(number)))
    return split, rows, excluded


def _actors(settings: ActorDemoSettings, count: int, rng: np.random.Generator) -> list[_Actor]:
    """Actors that never come over each other."""
    wanted = int(rng.integers(settings.actors[0], settings.actors[1] + 1))
    found: list[_Actor] = []
    tries = 0
    while len(found) < wanted:
        tries += 1
        if tries > _TRIES:  # there is no room left: begin anew
            tries, found = 0, []
        side = 2 * int(rng.integers(settings.sides[0] // 2, settings.sides[1] // 2 + 1))
        corners = _walk(settings, side, count, rng)
        if corners is None or any(_meet(corners, side, other) for other in found):
            continue
        texture = Texture(dataclasses.replace(settings.picture, size=side), rng)
        actions = _actions(settings, count, rng)
        turns = np.stack([texture.drift(DIRECTIONS[name]) for name in actions])
        phases = texture.phases + np.cumsum(turns, axis=0)
        found.append(_Actor(corners, side, actions, phases, texture))
    return found


def _walk(
    settings: ActorDemoSettings, side: int, count: int, rng: np.random.Generator
) -> np.ndarray | None:
    """(T, 2) corners along a straight way; None if it leaves the picture."""
    size, rate = settings.picture.size, settings.picture.frame_rate
    begin = rng.uniform(0, size - side, 2)
    speed = rng.uniform(-settings.wander, settings.wander, 2) / rate
    places = begin + np.arange(count)[:, None] * speed
    if places.min() < 0 or places.max() > size - side:
        return None
    return 2 * np.rint(places / 2).astype(int).clip(0, (size - side) // 2)


def _meet(corners: np.ndarray, side: int, other: _Actor) -> bool:
    apart = np.abs((corners + side / 2) - (other.corners + other.side / 2)).max(axis=1)
    return bool((apart < (side + other.side) / 2 + 4).any())


def _actions(settings: ActorDemoSettings, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """What an actor does in each frame; what drives frame n is what led to it."""
    names = sorted(DIRECTIONS)
    found: list[str] = []
    previous = ""
    while len(found) < count:
        previous = str(rng.choice([name for name in names if name != previous]))
        seconds = rng.uniform(*settings.action_seconds)
        found += [previous] * round(seconds * settings.picture.frame_rate)
    return tuple(found[:count])


def _pictures(still: np.ndarray, actors: list[_Actor], size: int) -> Iterator[np.ndarray]:
    """uint8 (3/2 size, size): the planes of YCbCr 4:2:0."""
    ground = _planes(still, size)
    moving = [actor.texture.frames(actor.phases) for actor in actors]
    for frame in range(len(actors[0].corners)):
        planes = [plane.copy() for plane in ground]
        for actor, pictures in zip(actors, moving, strict=True):
            left, upper = actor.corners[frame]
            for plane, own, scale in zip(
                planes, _planes(next(pictures), actor.side), (1, 2, 2), strict=True
            ):
                x, y, side = left // scale, upper // scale, actor.side // scale
                plane[y : y + side, x : x + side] = own
        flat = np.concatenate([plane.reshape(-1) for plane in planes])
        yield flat.reshape(size * 3 // 2, size)


def _planes(picture: np.ndarray, size: int) -> list[np.ndarray]:
    flat, half = picture.reshape(-1), size // 2
    luma, rest = flat[: size * size], flat[size * size :]
    return [luma.reshape(size, size), *(p.reshape(half, half) for p in np.split(rest, 2))]
