"""What several models say of the same videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvideo import metrics
from kvideo.errors import DataError
from kvideo.text import plural

if TYPE_CHECKING:
    import keras

    from kvideo.data.annotations import VideoSet


@dataclasses.dataclass(frozen=True, eq=False)
class MemberScores:
    """What the models say of the videos that all of them could read.

    Attributes:
        scores: (N, num_classes) of each model, averaged over the views.
        targets: (N, num_classes) bool, the true classes.
        failures: sentences about the others.
        multi_label: whether there may be several.
    """

    scores: list[np.ndarray]
    targets: np.ndarray
    failures: tuple[str, ...]
    multi_label: bool

    @classmethod
    def of(
        cls,
        networks: Sequence[keras.Model],
        videos: VideoSet,
        *,
        num_clips: int | None,
        batch_size: int,
        workers: int | None,
        decoder: str,
        on_video: Callable[[], None],
    ) -> MemberScores:
        """Scores each video with each model.

        Args:
            networks: with their `ModelInfo`.
            videos: labelled.
            num_clips: of each video; None: as each model recommends.
            batch_size: most clips that are run at once.
            workers: decoding threads; None: as many as processors.
            decoder: by name.
            on_video: is called after each video.

        Raises:
            DataError: labels do not fit, no video could be read, or a score is not finite.
        """
        from kvideo.data.pipeline import clip_readers
        from kvideo.data.threads import default_workers
        from kvideo.evaluation import score_videos
        from kvideo.inference import Predictor
        from kvideo.saving import model_info
        from kvideo.scores import check_labels

        infos = [model_info(network) for network in networks]
        multi_label = infos[0].multi_label
        classes = len(videos.class_names)
        for record in videos.records:
            check_labels(record.path, record.labels, classes, multi_label)
        each = []
        readers = clip_readers([info.clip_spec for info in infos], decoder)
        for network, info, reader in zip(networks, infos, readers, strict=True):
            views = dataclasses.replace(info.views, num_clips=num_clips or info.views.num_clips)
            predictor = Predictor(network, batch_size)
            each.append(
                score_videos(predictor, videos, reader, views, workers or default_workers())
            )
        rows, targets, failures = [], [], []
        for results in zip(*each, strict=True):
            on_video()
            bad = next((r for r in results if r.probabilities is None), None)
            if bad is not None:
                failures.append(f"{bad.name}: {bad.error}")
                continue
            rows.append([np.asarray(result.probabilities) for result in results])
            targets.append(np.isin(np.arange(classes), results[0].labels))
        if not rows:
            raise DataError(f"none of {plural(len(failures), 'video')} could be read.")
        scores = [np.stack(column) for column in zip(*rows, strict=True)]
        if not all(np.isfinite(score).all() for score in scores):
            raise DataError("a model's output is not a finite number.")
        return cls(scores, np.stack(targets), tuple(failures), multi_label)

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices, for one label a video."""
        return self.targets.argmax(axis=1)

    def accuracy(self, scores: np.ndarray) -> float:
        """Top-1 accuracy, or mean average precision, of (N, num_classes)."""
        if self.multi_label:
            return float(np.nanmean(metrics.average_precisions(scores, self.targets)))
        return float(metrics.top_k_accuracy(scores, self.labels, 1))

    def log_likelihood(self, scores: np.ndarray) -> float:
        """Mean logarithm of what is given to the true classes."""
        safe = np.clip(scores, 1e-7, 1 - 1e-7)
        if self.multi_label:
            return float(np.where(self.targets, np.log(safe), np.log1p(-safe)).mean())
        return float(np.log(safe[self.targets]).mean())
