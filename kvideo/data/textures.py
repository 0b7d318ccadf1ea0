"""Moving random textures, of which the demo videos are made.

A texture is a sum of plane waves with random directions, wavelengths and phases: a sample of a
random field that is homogeneous and isotropic, so that a picture cut out of it looks the same, in
distribution, wherever it is cut. Drifting by (dx, dy) turns the phase of a wave with wave vector
k by k·(dx, dy): the motion is exact, needs no interpolation, and has no seams.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

# Direction of the drift as seen on the screen: degrees counter-clockwise from "to the right".
DIRECTIONS = {
    "down_left": 240.0,
    "down_right": 300.0,
    "left": 180.0,
    "right": 0.0,
    "up_left": 120.0,
    "up_right": 60.0,
}


@dataclasses.dataclass(frozen=True)
class DemoSettings:
    """What the demo data looks like. A change of any value needs a new `version`.

    Args:
        version: part of the cache folder's name.
        size: height and width in pixels; even.
        frame_rate: frames per second.
        num_frames: frames of every trimmed video.
        train: textures in the training part, so many videos in each class.
        val: the same for the validation part.
        speed: lowest and highest speed of the drift, pixels per second.
        wavelength: shortest and longest wavelength of a texture, pixels.
        waves: plane waves in a texture.
        contrast: lowest and highest standard deviation of the brightness, grey levels.
        noise: standard deviation of the noise, fresh in every frame, grey levels.
        crf: constant rate factor of the encoder; lower is better.
        keyframes: frames from keyframe to keyframe.
        untrimmed: (training, validation) numbers of untrimmed videos.
        untrimmed_seconds: shortest and longest untrimmed video, roughly.
        action_seconds: shortest and longest segment with a class.
        background_seconds: shortest and longest segment without one.
    """

    version: int = 2
    size: int = 96
    frame_rate: int = 20
    num_frames: int = 44
    train: int = 44
    val: int = 12
    speed: tuple[float, float] = (30.0, 50.0)
    wavelength: tuple[float, float] = (10.0, 18.0)
    waves: int = 96
    contrast: tuple[float, float] = (26.0, 36.0)
    noise: float = 2.0
    crf: int = 21
    keyframes: int = 12
    untrimmed: tuple[int, int] = (6, 4)
    untrimmed_seconds: tuple[float, float] = (32.0, 50.0)
    action_seconds: tuple[float, float] = (2.0, 5.0)
    background_seconds: tuple[float, float] = (1.5, 5.0)


class Texture:
    """A coloured random texture: a sum of plane waves.

    Args:
        settings: see `DemoSettings`.
        rng: where wave vectors, phases, speed, contrast and colours are drawn from.
    """

    def __init__(self, settings: DemoSettings, rng: np.random.Generator) -> None:
        count = settings.waves
        angles = rng.uniform(0, 2 * np.pi, count)
        low, high = np.log(settings.wavelength)
        lengths = np.exp(rng.uniform(low, high, count))
        # Wave vectors, radians per pixel; rows: x to the right, y downwards.
        self.vectors = 2 * np.pi / lengths * np.stack([np.cos(angles), np.sin(angles)])  # (2, K)
        self.phases = rng.uniform(0, 2 * np.pi, count)  # (K,)
        self.speed = rng.uniform(*settings.speed)  # pixels per second
        self.settings = settings
        self.contrast = np.float32(rng.uniform(*settings.contrast))
        self.luma = np.float32(rng.uniform(105, 145))
        self.chroma = rng.uniform(104, 152, 2).astype(np.float32)
        self.tints = rng.uniform(-14, 14, 2).astype(np.float32)

    def drift(self, degrees: float) -> np.ndarray:
        """Phase change per second of every wave when the texture drifts; shape (K,)."""
        angle = np.deg2rad(degrees)
        return -self.speed * (np.array([np.cos(angle), -np.sin(angle)]) @ self.vectors)

    def boil(self, rng: np.random.Generator) -> np.ndarray:
        """Phase change per second when every wave drifts in a direction of its own; (K,)."""
        angles = rng.uniform(0, 2 * np.pi, len(self.phases))
        velocities = self.speed * np.stack([np.cos(angles), np.sin(angles)])
        return np.sum(velocities * self.vectors, axis=0)

    def frames(self, phases: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
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
        scale = np.float32(np.sqrt(2 / self.vectors.shape[1]))
        for chunk in np.array_split(phases, math.ceil(len(phases) / 32)):
            waves = scale * np.exp(1j * chunk).astype(np.complex64)  # (t, K)
            left = (along_y * waves[:, None]).view(np.float32)  # (t, H, 2K)
            field = (left.reshape(-1, right.shape[0]) @ right).reshape(len(chunk), size, size)
            noise = rng.standard_normal(field.shape, dtype=np.float32) * self.settings.noise
            halved = field.reshape(-1, size // 2, 2, size // 2, 2).mean(axis=(2, 4))
            planes = [self.luma + self.contrast * field + noise]
            planes += [c + tint * halved for c, tint in zip(self.chroma, self.tints, strict=True)]
            flat = np.concatenate([plane.reshape(len(chunk), -1) for plane in planes], axis=1)
            yield from (
                np.clip(np.rint(flat), 16, 235).astype(np.uint8).reshape(-1, size * 3 // 2, size)
            )
