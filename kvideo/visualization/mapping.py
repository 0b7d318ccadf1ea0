"""From the features of a data set to its map, with a thumbnail of each video."""

from __future__ import annotations

import numpy as np

from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoRecord
from kvideo.data.threads import default_workers, ordered_map
from kvideo.errors import DecodeError
from kvideo.feature_set import FeatureSet, VideoFeatures
from kvideo.progress import Progress
from kvideo.saving import ModelInfo
from kvideo.visualization.embedding import Placed, coordinates, map_html

_SIDE = 96  # pixels of a thumbnail


def video_map(
    features: FeatureSet,
    info: ModelInfo,
    *,
    title: str,
    layer: str,
    seed: int = 0,
    decoder: str = "pyav",
) -> str:
    """The page of `map_html` for a data set.

    Args:
        features: of its videos; those that failed are left out.
        info: the model's, for reading pictures.
        title: of the page.
        layer: whose features these are.
        seed: of the map.
        decoder: the name of a `kvideo.decoders` entry point.

    Raises:
        DataError: see `coordinates`.
    """
    places = coordinates(features.means(), seed)
    reader = clip_reader(info.clip_spec, decoder)

    def picture(video: VideoFeatures) -> bytes | None:
        import cv2

        try:
            record = VideoRecord(video.path, start=video.start, end=video.end)
            frame = reader.thumbnails(record, 1, _SIDE)[0]
        except DecodeError:
            return None
        _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
        return data.tobytes()

    placed = []
    workers = default_workers()
    with Progress(len(features.found), "taking pictures", unit="video") as progress:
        pictures = ordered_map(picture, features.found, workers, 4 * workers)
        for video, place, data in zip(features.found, places, pictures, strict=True):
            label = video.labels[0] if video.labels else None
            x, y = np.round(place, 5).tolist()
            placed.append(Placed(video.path, label, x, y, data))
            progress.update()
    note = f"Layer {layer}, by t-SNE: what is near is alike, larger distances say nothing."
    if features.failures:
        note += f" {len(features.failures)} could not be read."
    return map_html(placed, features.class_names, title=title, note=note)
