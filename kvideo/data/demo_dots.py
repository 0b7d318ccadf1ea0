"""The demo's variant of moving dots: each picture is a handful of lights, and only motion tells.

In the manner of Johansson's point lights (1973): white dots on black, that drift in one of four
directions or turn in one of two. A dot lives for some frames and then another is born elsewhere, so
no path is long. Its place half-way through its life is uniform in a disc that reaches beyond the
picture by more than a dot can go in half a life, and drifting and turning change no areas: so the
dots of any one picture have the same distribution in all classes, uniform, and one picture tells
nothing. Nor does the set of a video's pictures in the classes that are each other's reversal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kvideo.data.demo_sequences import Encode, Job
from kvideo.data.textures import DemoSettings

MOTIONS = ("down", "left", "right", "turn_left", "turn_right", "up")
_DRIFTS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}  # x, y
_TURNS = {"turn_left": -1, "turn_right": 1}  # y points down


@dataclasses.dataclass(frozen=True)
class DotSettings:
    """What the variant looks like. A change of any value needs a new `version`.

    Args:
        version: part of the cache folder's name.
        picture: size, frame rate and quantizer.
        train: videos of each class in the training part.
        val: the same for the validation part.
        num_frames: of a video.
        dots: fewest and most dots in a picture, on average over it.
        life: frames that a dot lives.
        speed: shortest and longest way from frame to frame, pixels; under a turn at half the
            picture's height from its centre.
        radius: of a dot, pixels (standard deviation of a Gaussian).
    """

    version: int = 1
    picture: DemoSettings = DemoSettings(size=64)
    train: int = 40
    val: int = 12
    num_frames: int = 30
    dots: tuple[int, int] = (40, 70)
    life: int = 10
    speed: tuple[float, float] = (1.2, 2.2)
    radius: float = 1.1


DOTS = DotSettings()


def dot_jobs(top: Path, settings: DotSettings, seed: int, encode: Encode) -> list[Job]:
    """Makes the folders; gives functions and arguments that write the files."""
    jobs: list[Job] = []
    for number, split in enumerate(("train", "val")):
        for label, name in enumerate(MOTIONS):
            (top / split / name).mkdir(parents=True)
            for index in range(getattr(settings, split)):
                path, key = top / split / name / f"{index:03d}.mp4", (seed, 5, number, label, index)
                jobs.append((_write, (path, name, settings, key, encode)))
    return jobs


def _write(
    path: Path, name: str, settings: DotSettings, key: tuple[int, ...], encode: Encode
) -> None:
    frames = dot_pictures(name, settings, np.random.default_rng(key))
    path.write_bytes(encode(frames, settings.picture))


def dot_places(name: str, settings: DotSettings, rng: np.random.Generator) -> list[np.ndarray]:
    """Where the dots of each frame are, (n, 2) in pixels from the picture's centre: x, y.

    Args:
        name: of `MOTIONS`.
        settings: see `DotSettings`.
        rng: where everything random is drawn from.
    """
    size, life = settings.picture.size, settings.life
    speed = rng.uniform(*settings.speed)
    reach = size / math.sqrt(2) + settings.speed[1] * life  # half the diagonal, and some
    density = rng.uniform(*settings.dots) / size**2
    count = round(density * math.pi * reach**2)
    # Lives begin at all times alike; each dot has as many lives as the video needs.
    lives = settings.num_frames // life + 2
    births = rng.integers(-life, 0, count)[:, None] + np.arange(lives) * life  # (count, lives)
    angles = rng.uniform(0, 2 * math.pi, births.shape)
    distances = reach * np.sqrt(rng.uniform(0, 1, births.shape))
    centre = np.stack([distances * np.cos(angles), distances * np.sin(angles)], axis=-1)
    frames = []
    for time in range(settings.num_frames):
        age = time - births
        alive = (age >= 0) & (age < life)
        places, since = centre[alive], age[alive] - (life - 1) / 2  # from half-way through
        if name in _DRIFTS:
            places = places + since[:, None] * speed * np.array(_DRIFTS[name])
        else:
            turned = since * _TURNS[name] * speed / (size / 2)
            cos, sin = np.cos(turned), np.sin(turned)
            x, y = places.T
            places = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
        frames.append(places)
    return frames


def dot_pictures(
    name: str, settings: DotSettings, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The frames of a video.

    Yields:
        uint8 (3/2 size, size): the planes of YCbCr 4:2:0 (limited range), as PyAV takes them.
    """
    size = settings.picture.size
    side = np.arange(size) - (size - 1) / 2
    for places in dot_places(name, settings, rng):
        across = np.exp(-(((side - places[:, :1]) / settings.radius) ** 2) / 2)  # (n, W)
        down = np.exp(-(((side - places[:, 1:]) / settings.radius) ** 2) / 2)  # (n, H)
        light = np.minimum(down.T @ across, 1.0)  # (H, W)
        planes = np.full((size * 3 // 2, size), 128, np.uint8)
        planes[:size] = np.rint(16 + 219 * light)
        yield planes
