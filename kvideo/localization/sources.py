"""What finds segments in video files: a localizer, or a model with a label for each frame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoRecord
from kvideo.data.threads import default_workers
from kvideo.data.windows import iterate_blocks
from kvideo.errors import UsageError
from kvideo.files import cache_folder, temporary_folder
from kvideo.inference import Predictor
from kvideo.localization.detection import Detections, DetectionSettings
from kvideo.localization.grouping import group
from kvideo.localization.index import index_file, is_localizer
from kvideo.localization.localizer import Localizer, Stream, load_localizer
from kvideo.localization.results import FoundSegment, Localization
from kvideo.localization.streams import Reading, Rows, keep_features, pass_features
from kvideo.saving import check_single, load_model, model_info
from kvideo.segmentation.results import exclude_background
from kvideo.segmentation.scoring import is_per_frame, score_frames

if TYPE_CHECKING:
    import keras

Named = Sequence[tuple[str, str]]
OnRows = Callable[[int], None] | None


class Source(Protocol):
    """Finds segments in files."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of what it finds."""

    def localize(self, videos: Named, on_rows: OnRows = None) -> Iterator[Localization]:
        """What is found in each of (name, path), in order.

        Args:
            videos: names and paths.
            on_rows: is called now and then with the number of new rows of features.
        """


def open_source(
    model: Any,
    *,
    stream: str | None = None,
    settings: dict[str, Any] | None = None,
    keep: bool = False,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
) -> Source:
    """The source that a model is.

    Args:
        model: a `Localizer` or its folder; a model with a label for each frame, or its file.
        stream: of a localizer, the only one to be used.
        settings: changes to `DetectionSettings`.
        keep: whether features are kept in the localizer's folder, if it may be written to, and
            found again.
        precision: `"float32"`, `"bfloat16"` or `"auto"`.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.

    Raises:
        ModelFileError: it cannot be loaded.
        UsageError: it is neither, or has no such stream or setting.
    """
    from kvideo.hardware import choose_precision

    chosen, features = choose_precision(precision), None
    if isinstance(model, str | os.PathLike):
        if is_localizer(model):
            folder = index_file(model).parent
            features = folder / "features" if keep and os.access(folder, os.W_OK) else None
            model = load_localizer(model, precision=chosen)
        else:
            model = load_model(model, precision=chosen)
    threads = workers or default_workers()
    reading = Reading("features", 1.0, batch_size, threads, decoder, chosen)
    if isinstance(model, Localizer):
        localizer = model if stream is None else model.only(stream)
        changed = _changed(localizer.settings, settings)
        return LocalizerSource(
            dataclasses.replace(localizer, settings=changed),
            dataclasses.replace(reading, stride=localizer.stride),
            features,
        )
    if stream is not None:
        raise UsageError("only a localizer has streams.")
    info = model_info(model)
    check_single(info, "frames are labelled by")
    if not is_per_frame(model):
        raise UsageError(
            f"{model.name} gives one label for a clip. `kvideo localize fit` makes a localizer of "
            "it; a model with a label for each frame (`--set output=frames`) can be used as it is."
        )
    return FrameSource(model, _changed(DetectionSettings(), settings), reading)


def _changed(settings: DetectionSettings, changes: dict[str, Any] | None) -> DetectionSettings:
    known = {field.name for field in dataclasses.fields(settings)}
    if unknown := sorted(set(changes or {}) - known):
        raise UsageError(f"there is no setting {unknown[0]!r}, but {', '.join(sorted(known))}.")
    return dataclasses.replace(settings, **(changes or {}))


@dataclasses.dataclass(eq=False)
class LocalizerSource:
    """A localizer on files. A video's features go through a file, so it may be of any length.

    Args:
        localizer: what finds.
        reading: how features are made; each stream has its own layer.
        features: a folder in which they are kept, one below for each stream; None: they are not.
    """

    localizer: Localizer
    reading: Reading
    features: Path | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.localizer.class_names

    def localize(self, videos: Named, on_rows: OnRows = None) -> Iterator[Localization]:
        """See `Source`."""
        paths = [path for _, path in videos]
        streams = self.localizer.streams
        if self.features is not None:
            kept = [self._kept(stream, paths, self.features, on_rows) for stream in streams]
            yield from map(self._one, videos, zip(*kept, strict=True))
            return
        with temporary_folder(cache_folder()) as folder:
            passing = (
                pass_features(
                    stream.extractor,
                    paths,
                    folder / stream.name,
                    self._how(stream),
                    on_rows=on_rows,
                )
                for stream in streams
            )
            yield from map(self._one, videos, zip(*passing, strict=True))

    def _kept(
        self, stream: Stream, paths: Sequence[str], folder: Path, on_rows: OnRows
    ) -> list[Rows]:
        place, how = folder / stream.name, self._how(stream)
        return keep_features(stream.extractor, paths, place, how, on_rows=on_rows)

    def _how(self, stream: Stream) -> Reading:
        return dataclasses.replace(self.reading, layer=stream.layer)

    def _one(self, video: tuple[str, str], found: Sequence[Rows]) -> Localization:
        name, path = video
        for each in found:
            if each.error is not None:
                return Localization(path, name, error=each.error)
        duration = max(each.duration for each in found)
        said = self.localizer.detect([each.load() for each in found], duration)
        return _localization(path, name, duration, said, self.class_names)


@dataclasses.dataclass(eq=False)
class FrameSource:
    """A model with a label for each frame, whose probabilities are grouped to segments.

    Args:
        model: carries its `ModelInfo`.
        settings: suppression, and how many segments are kept.
        reading: batch size, threads and decoder.
    """

    model: keras.Model
    settings: DetectionSettings
    reading: Reading

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `Source`; without background."""
        names = model_info(self.model).class_names
        background = exclude_background(names)
        return tuple(name for index, name in enumerate(names) if index not in background)

    def localize(self, videos: Named, on_rows: OnRows = None) -> Iterator[Localization]:
        """See `Source`."""
        info = model_info(self.model)
        background = exclude_background(info.class_names)
        records = [VideoRecord(path) for _, path in videos]
        reader = clip_reader(info.clip_spec, self.reading.decoder)
        blocks = iterate_blocks(records, reader, self.reading.workers)
        predictor = Predictor(self.model, self.reading.batch_size)
        scored = score_frames(predictor, records, blocks)
        for (name, path), result in zip(videos, scored, strict=True):
            if on_rows is not None and result.times is not None:
                on_rows(len(result.times))
            if result.error is not None:
                yield Localization(path, name, error=result.error)
                continue
            found = group(result, background, self.settings)
            yield _localization(path, name, result.end, found, info.class_names)


def _localization(
    path: str, name: str, duration: float, said: Detections, class_names: Sequence[str]
) -> Localization:
    segments = tuple(
        FoundSegment(float(start), float(end), class_names[label], float(score))
        for (start, end), label, score in zip(said.spans, said.labels, said.scores, strict=True)
    )
    return Localization(path, name, duration, segments, said.proposal_rows)
