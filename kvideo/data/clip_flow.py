"""Optical flow for clips: read where a video's is kept, else computed from the clip's frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from kvideo.clip_spec import ClipSpec
from kvideo.data.decode import Pictures
from kvideo.data.flow_cache import FlowCache, FlowTrack, single_frame
from kvideo.data.sampling import flow_steps
from kvideo.errors import DataError, DecodeError, KVideoError
from kvideo.flow.geometry import resize_flow

Crop = tuple[int, int, int, int]
Put = Callable[[int, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class ClipFlow:
    """Reads the flow of clips.

    Args:
        spec: what a clip is; of flow, or of pictures and flow.
        cache: where the flow of whole videos is kept.
        fill: whether that of a video that is not there is computed and kept, for videos that are
            read again and again. Otherwise only what the clips need is computed. Both give the same
            to the bit.
        cover: whether the clips are all of a video, and overlap: then its flow is computed and
            kept, too, if the cache can be written.
    """

    spec: ClipSpec
    cache: FlowCache
    fill: bool = False
    cover: bool = False

    def read(
        self,
        video: Any,
        path: str,
        times: np.ndarray,
        end: float,
        size: tuple[int, int],
        crop: Crop,
    ) -> np.ndarray:
        """The clips at given times.

        Args:
            video: open, of that path.
            path: of the video.
            times: (...) seconds, on the grid of the clip's frame rate.
            end: of the record, seconds.
            size: (height, width) to which the whole picture is resized.
            crop: (top, left, height, width) of the part of it that is taken.

        Returns:
            (..., height, width, C) float32; C is 2, or 5 with pictures. Vectors are in pixels of
            the resized picture. Where the next frame is beyond the end the flow is zero.

        Raises:
            DecodeError: the video cannot be read, or has a single frame.
        """
        steps, known = flow_steps(times, end, self.spec.frame_rate)
        if not known.any():
            raise single_frame(path)
        top, left, height, width = crop
        channels = self.spec.shape[-1]
        clips = np.zeros((*times.shape, height, width, channels), np.float32)
        wanted = np.unique(steps[known])

        def put(step: int, flow: np.ndarray) -> None:
            part = resize_flow(flow, size)[top : top + height, left : left + width]
            clips[known & (steps == step), ..., -2:] = part

        requests = [Pictures(times.ravel(), size, crop)] if channels > 2 else []
        if self._put_kept(path, wanted, put):
            pictures = _read_all(video, requests)
        else:
            pictures = self._put_computed(video, wanted, put, requests)
        for each in pictures:
            clips[..., :3] = each.reshape(*times.shape, height, width, 3)
        return clips

    def _put_kept(self, path: str, wanted: np.ndarray, put: Put) -> bool:
        """Whether the video's flow is kept; a damaged file is made anew."""
        for _ in range(2):
            track = self._track(path)
            if track is None:
                break
            try:
                with track:
                    for step in wanted.tolist():
                        put(step, track[step])
                return True
            except DataError:
                self.cache.discard(path)
        return False

    def _track(self, path: str) -> FlowTrack | None:
        if self.fill:
            return self.cache.of(path)
        if self.cover:
            try:
                return self.cache.of(path)
            except DecodeError:
                raise
            except KVideoError:  # nothing can be written there
                return None
        return self.cache.find(path)

    def _put_computed(
        self, video: Any, wanted: np.ndarray, put: Put, others: list[Pictures]
    ) -> list[np.ndarray]:
        """Computes from frames that are decoded together with the `others`; returns these."""
        frames = np.union1d(wanted, wanted + 1)
        size = self.cache.settings.size((video.info.height, video.info.width))
        seen, *rest = _read_all(video, [Pictures(frames / self.spec.frame_rate, size), *others])
        grey = {
            step: self.cache.coder.prepare(frame)
            for step, frame in zip(frames.tolist(), seen, strict=True)
        }
        for step in wanted.tolist():
            put(step, self.cache.coder.between(grey[step], grey[step + 1]))
        return rest


def _read_all(video: Any, requests: list[Pictures]) -> list[np.ndarray]:
    """In one pass, where the decoder can do that."""
    if len(requests) > 1 and hasattr(video, "read_all"):
        return video.read_all(requests)
    return [video.read(each.times, size=each.size, crop=each.crop) for each in requests]
