"""Moving random textures, of which the demo videos are made.

A texture is a sum of plane waves. It drifts as the phases of its waves turn: moving by (dx, dy)
turns the phase of a wave with wave vector k by k·(dx, dy), which is exact and leaves no seams.

The wave vectors are chosen so that the *set* of pictures says nothing about the direction. Take
the triangular lattice of all places that are reached by steps in the six directions, and call two
places the same if they differ by an element of a coarser lattice, turned against the first. There
are N = a² + ab + b² different places. If a and b have no common divisor, a walk that always goes
in one direction comes past each of them once before it is back (numbered along one direction, a
walk along another takes every u-th place, with u² - u + 1 divisible by N). Waves that are
periodic on the coarser lattice have the same phase at places that are the same. So a video of N
frames shows the same N pictures whatever its direction, in another order.

Waves strictly periodic in space would make a wallpaper. So each of them is replaced by a few whose
wave vectors lie close by while their phases turn alike: the texture never repeats in space, and
repeats exactly in time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

# Direction of the drift as seen on the screen: degrees counter-clockwise from "to the right".
DIRECTIONS = {
    "down_left": 240,
    "down_right": 300,
    "left": 180,
    "right": 0,
    "up_left": 120,
    "up_right": 60,
}


@dataclasses.dataclass(frozen=True)
class DemoSettings:
    """What the demo data looks like. A change of any value needs a new `version`.

    Args:
        version: part of the cache folder's name.
        size: height and width in pixels; even.
        frame_rate: frames per second.
        orbit: a and b of the period, without a common divisor; a trimmed video has
            a² + ab + b² frames.
        step: shortest and longest way from frame to frame, pixels; one step for each texture.
        wavelength: shortest and longest wavelength, in steps.
        waves: plane waves for each period.
        scatter: standard deviation of their wave vectors, as a share of the vector's length.
        contrast: lowest and highest standard deviation of the brightness, grey levels.
        train: textures in the training part, so many videos in each class.
        val: the same for the validation part.
        quantizer: of the encoder; lower is better.
        untrimmed: (training, validation) numbers of untrimmed videos.
        untrimmed_seconds: shortest and longest untrimmed video, roughly.
        action_seconds: shortest and longest segment with a class.
        background_seconds: shortest and longest segment without one.
    """

    version: int = 3
    size: int = 96
    frame_rate: int = 15
    orbit: tuple[int, int] = (1, 6)
    step: tuple[float, float] = (2.3, 3.0)
    wavelength: tuple[float, float] = (3.2, 9.0)
    waves: int = 8
    scatter: float = 0.08
    contrast: tuple[float, float] = (26.0, 36.0)
    train: int = 40
    val: int = 12
    quantizer: int = 38
    untrimmed: tuple[int, int] = (6, 4)
    untrimmed_seconds: tuple[float, float] = (32.0, 50.0)
    action_seconds: tuple[float, float] = (2.0, 5.0)
    background_seconds: tuple[float, float] = (1.5, 5.0)

    @property
    def num_frames(self) -> int:
        """Frames of a trimmed video."""
        a, b = self.orbit
        return a * a + a * b + b * b


@dataclasses.dataclass(frozen=True)
class Orbit:
    """The waves that are periodic on the coarser lattice.

    Args:
        vectors: wave vectors, radians per step; rows: x to the right, y downwards; (2, M).
        turns: phase by which each wave turns at a step in each direction, in units of 2π/N:
            direction in degrees → integers (M,).
        stride: a step in the direction 60 degrees further takes so many places at once.
    """

    vectors: np.ndarray
    turns: dict[int, np.ndarray]
    stride: int


@functools.cache
def make_orbit(a: int, b: int, wavelength: tuple[float, float]) -> Orbit:
    """The periodic waves of a range of wavelengths (in steps), one of each pair k, -k."""
    count = a * a + a * b + b * b
    # The coarser lattice: a steps to the right and b at 60 degrees, and the same turned by 60.
    periods = np.stack([a * _unit(0) + b * _unit(60), a * _unit(60) + b * _unit(120)])
    basis = 2 * np.pi * np.linalg.inv(periods).T
    reach = range(-a - b, a + b + 1)
    vectors = np.array([i * basis[0] + j * basis[1] for i in reach for j in reach])
    upper = (vectors[:, 1] > 1e-9) | ((np.abs(vectors[:, 1]) <= 1e-9) & (vectors[:, 0] > 0))
    lengths = 2 * np.pi / np.maximum(np.hypot(*vectors.T), 1e-9)
    chosen = vectors[upper & (lengths >= wavelength[0]) & (lengths <= wavelength[1])].T  # (2, M)
    turns = {
        degrees: np.rint(-count * (_unit(degrees) @ chosen) / (2 * np.pi)).astype(int)
        for degrees in range(0, 360, 60)
    }
    stride = next(u for u in range(1, count) if not np.any((u * turns[0] - turns[60]) % count))
    return Orbit(chosen, turns, stride)


def _unit(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([np.cos(angle), -np.sin(angle)])


class Texture:
    """A coloured random texture.

    Args:
        settings: see `DemoSettings`.
        rng: where wave vectors, phases, speed, contrast and colours are drawn from.
    """

    def __init__(self, settings: DemoSettings, rng: np.random.Generator) -> None:
        self.settings = settings
        a, b = settings.orbit
        # The lattice and its mirror image, by turns of a coin.
        self.orbit = make_orbit(*((a, b) if rng.random() < 0.5 else (b, a)), settings.wavelength)
        step = rng.uniform(*settings.step)
        vectors = np.repeat(self.orbit.vectors, settings.waves, axis=1) / step  # (2, K)
        scatter = settings.scatter * np.hypot(*vectors) * rng.standard_normal(vectors.shape)
        self.vectors = vectors + scatter  # radians per pixel
        self.phases = rng.uniform(0, 2 * np.pi, vectors.shape[1])  # (K,)
        amplitudes = rng.uniform(0.6, 1.4, vectors.shape[1]) / np.hypot(*vectors)
        self.amplitudes = amplitudes * np.sqrt(2 / np.sum(amplitudes**2))  # variance 1
        self.contrast = np.float32(rng.uniform(*settings.contrast))
        self.luma = np.float32(rng.uniform(105, 145))
        self.chroma = rng.uniform(104, 152, 2).astype(np.float32)
        self.tints = rng.uniform(-14, 14, 2).astype(np.float32)

    def drift(self, degrees: int) -> np.ndarray:
        """Phase change of every wave from frame to frame under a drift; (K,)."""
        turns = np.repeat(self.orbit.turns[degrees % 360], self.settings.waves)
        return 2 * np.pi / self.settings.num_frames * turns

    def boil(self, rng: np.random.Generator) -> np.ndarray:
        """Phase change from frame to frame when each wave drifts in a direction of its own; (K,).

        Every pixel flickers just as under a drift, but nothing moves as a whole.
        """
        drifts = np.stack([self.drift(degrees) for degrees in DIRECTIONS.values()])
        return rng.permuted(drifts, axis=0)[0]

    def places(self) -> np.ndarray:
        """Phases at the N places, numbered along the way to the right; (N, K)."""
        return self.phases + np.arange(self.settings.num_frames)[:, None] * self.drift(0)

    def order(self, degrees: int) -> list[int]:
        """Numbers of the places that a drift in this direction comes past, from place 0 on."""
        count = self.settings.num_frames
        stride = pow(self.orbit.stride, degrees // 60 % 6, count)
        return [n * stride % count for n in range(count)]

    def frames(self, phases: np.ndarray) -> Iterator[np.ndarray]:
        """Pictures for the rows of `phases` (T, K).

        Yields:
            uint8 (3/2 size, size): the planes of YCbCr 4:2:0 (limited range), as PyAV takes them.
        """
        size = self.settings.size
        side = np.arange(size)
        along_x = np.exp(-1j * np.outer(side, self.vectors[0])).astype(np.complex64)  # (W, K)
        along_y = np.exp(1j * np.outer(side, self.vectors[1])).astype(np.complex64)  # (H, K)
        # Re(a b) is the dot product of (Re a, Im a) with (Re b, -Im b): one real matrix product.
        right = along_x.view(np.float32).T  # (2K, W)
        for chunk in np.array_split(phases, math.ceil(len(phases) / 32)):
            waves = (self.amplitudes * np.exp(1j * chunk)).astype(np.complex64)  # (t, K)
            left = (along_y * waves[:, None]).view(np.float32)  # (t, H, 2K)
            field = (left.reshape(-1, right.shape[0]) @ right).reshape(len(chunk), size, size)
            halved = field.reshape(-1, size // 2, 2, size // 2, 2).mean(axis=(2, 4))
            planes = [self.luma + self.contrast * field]
            planes += [c + tint * halved for c, tint in zip(self.chroma, self.tints, strict=True)]
            flat = np.concatenate([plane.reshape(len(chunk), -1) for plane in planes], axis=1)
            pixels = np.clip(np.rint(flat), 16, 235).astype(np.uint8)
            yield from pixels.reshape(len(chunk), size * 3 // 2, size)
