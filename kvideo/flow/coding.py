"""Flow between the frames of videos as it is kept: cut off, in few bytes, none at cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kvideo.flow.cuts import is_cut
from kvideo.flow.estimation import FlowEstimator
from kvideo.flow.geometry import subtract_camera_motion
from kvideo.flow_settings import FlowSettings

_ZERO, _LEVELS = 128, 127  # of 8 bits: no motion has a level of its own


class Estimate(NamedTuple):
    """A flow, encoded, and whether there is a cut instead."""

    content: bytes
    cut: bool


class FlowCoder:
    """Estimates flow as settings say, and writes it in few bytes. Many threads may use it."""

    def __init__(self, settings: FlowSettings) -> None:
        self.settings = settings
        self._estimator = FlowEstimator(settings.method, preset=settings.preset)

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """A frame as `estimate` takes it, see `FlowEstimator.prepare`."""
        return self._estimator.prepare(picture)

    def estimate(self, first: np.ndarray, second: np.ndarray) -> Estimate:
        """The flow between two prepared frames."""
        flow = self._estimator.between(first, second)
        if cut := is_cut(first, second, flow):
            flow = np.zeros_like(flow)
        elif self.settings.compensate:
            flow = subtract_camera_motion(flow)
        return Estimate(self.encode(flow), cut)

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 between two prepared frames, to the bit what would be read."""
        return self.decode(self.estimate(first, second).content, first.shape)

    def encode(self, flow: np.ndarray) -> bytes:
        """(H, W, 2) as bytes."""
        if self.settings.store == "float16":
            return flow.astype("<f2").tobytes()
        import cv2

        levels = np.rint(flow * (_LEVELS / self.settings.limit)).clip(-_LEVELS, _LEVELS) + _ZERO
        picture = np.concatenate([levels[..., 0], levels[..., 1]]).astype(np.uint8)  # x above y
        quality = [cv2.IMWRITE_JPEG_QUALITY, self.settings.quality]
        return cv2.imencode(".jpg", picture, quality)[1].tobytes()

    def decode(self, content: bytes, size: Sequence[int]) -> np.ndarray:
        """The inverse of `encode`: (H, W, 2) float32."""
        if self.settings.store == "float16":
            return np.frombuffer(content, "<f2").reshape(*size, 2).astype(np.float32)
        import cv2

        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        levels = picture.reshape(2, *size).astype(np.float32) - _ZERO
        return np.moveaxis(levels, 0, -1) * np.float32(self.settings.limit / _LEVELS)
