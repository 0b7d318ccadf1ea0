"""Videos to clips: annotations, decoding, sampling, `tf.data` pipelines. Names load on use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Augmentation": "kvideo.data.sampling",
    "VideoRecord": "kvideo.data.annotations",
    "VideoSet": "kvideo.data.annotations",
    "clip_dataset": "kvideo.data.pipeline",
    "demo_data": "kvideo.data.demo",
    "open_video": "kvideo.data.decode",
    "read_data": "kvideo.data.annotations",
    "split_validation": "kvideo.data.annotations",
}
__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from kvideo.data.annotations import VideoRecord, VideoSet, read_data, split_validation
    from kvideo.data.decode import open_video
    from kvideo.data.demo import demo_data
    from kvideo.data.pipeline import clip_dataset
    from kvideo.data.sampling import Augmentation


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'kvideo.data' has no attribute {name!r}")
