"""`kvideo.fuse`: several trained models become one, by the scores that they give to whole videos.

Source: Simonyan & Zisserman 2014, "Two-Stream Convolutional Networks for Action Recognition in
Videos", section 4: averaging, or a linear support vector machine on L2-normalized softmax scores.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.choosing import short_names
from kvideo.errors import UsageError, check_choice
from kvideo.files import check_target, make_folder
from kvideo.progress import Progress, say_nothing, say_to_stderr
from kvideo.saving import load_model, model_file, read_info, save_model
from kvideo.score_fusion.methods import METHODS, make_fusion
from kvideo.score_fusion.scores import MemberScores
from kvideo.score_fusion.videos import choose_videos
from kvideo.text import enumerate_words

if TYPE_CHECKING:
    from kvideo.data.annotations import VideoSet
    from kvideo.saving import ModelInfo


@dataclasses.dataclass(frozen=True)
class FusionResult:
    """What `fuse` made.

    Attributes:
        model_path: the file.
        method: one of `METHODS`.
        weights: of the models, for `"average"` and `"weighted"`.
        accuracy: of the fusion on the videos that it was chosen on; for several labels a video,
            mean average precision.
        accuracies: of each model on the same videos.
        cross_validated: of `"svm"`: on videos that the machine was not fitted to.
        num_videos: how many were used.
        failures: sentences about videos that could not be read.
    """

    model_path: Path
    method: str
    weights: tuple[float, ...] | None
    accuracy: float
    accuracies: dict[str, float]
    cross_validated: float | None
    num_videos: int
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "model_path": str(self.model_path)}


def fuse(
    models: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | VideoSet,
    *,
    method: str = "average",
    weights: Sequence[float] | None = None,
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    num_clips: int | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    overwrite: bool = False,
    verbose: bool = True,
) -> FusionResult:
    """Joins trained models to one by late fusion; like `kvideo fuse`.

    The models may be of any kind and take any clips; their classes must be the same. Each looks at
    its own views of a video, whose probabilities are averaged, and these averages are fused. The
    result is one model file for `evaluate`, `predict` and `export`.

    Args:
        models: at least two `.keras` files or runs' folders.
        data: as in `fit`, or a `VideoSet`; what the fusion is chosen on. By default its validation
            part, or else all of its videos that no run of `models` was trained on.
        method: `"average"`; `"weighted"`: the mean with the weights that are most often right, of
            these the most probable ones; `"svm"`: a linear support vector machine (one against the
            rest) on the scores, each model's of length 1. What is given out then is the softmax of
            its decision values times a number, chosen in cross-validation like the machine's cost.
        weights: for `"weighted"`: these, none negative, instead of the best ones.
        out: a `.keras` file, or a folder for `model.keras`; None makes `runs/A+B`, with a number if
            that exists.
        root: folder that the annotation file's paths are relative to.
        split: which part of the data, whether trained on or not.
        num_clips: clips of each video; by default what each model recommends.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        overwrite: replace what is there.
        verbose: progress and remarks on standard error.

    Raises:
        UsageError: fewer than two models, models of different classes, a fusion, something there.
        ModelFileError: a model cannot be loaded.
        DataError: the data cannot be used, or the method needs more of it.
    """
    check_choice("method", method, METHODS)
    if isinstance(models, str | os.PathLike):
        raise UsageError("models must be a list of at least two models.")
    paths = [model_file(model) for model in models]
    infos = [read_info(path) for path in paths]
    _check_models(models, infos)
    if weights is not None:
        _check_weights(weights, method, len(models))
    if method == "svm" and infos[0].multi_label:
        raise UsageError('method="svm" is for one label a video; these models give several.')
    target = _target(models, out, overwrite)
    say = say_to_stderr if verbose else say_nothing
    chooses = method == "svm" or (method == "weighted" and weights is None)
    videos = choose_videos(data, models, root, split, infos[0], chooses, say)
    networks = [load_model(path) for path in paths]
    total = len(videos.records)
    with Progress(total, "scoring", unit="video", quiet=not verbose) as progress:
        scored = MemberScores.of(
            networks,
            videos,
            num_clips=num_clips,
            batch_size=batch_size,
            workers=workers,
            decoder=decoder,
            on_video=progress.update,
        )
    for sentence in scored.failures[:10]:
        say(f"Left out: {sentence}")
    fusion, chosen, cross_validated = make_fusion(method, weights, scored, infos[0])
    if method == "svm" and cross_validated is None:
        say(
            "A class has a single video: no cross-validation, so cost and probabilities of the "
            "machine are mere guesses."
        )
    from kvideo.members import fuse_scores, join_members

    model = join_members(networks, fusion)
    make_folder(target.parent)
    save_model(model, target)
    names = short_names(models)
    return FusionResult(
        model_path=target,
        method=method,
        weights=chosen,
        accuracy=scored.accuracy(fuse_scores(model, scored.scores)),
        accuracies=dict(zip(names, map(scored.accuracy, scored.scores), strict=True)),
        cross_validated=cross_validated,
        num_videos=len(scored.targets),
        failures=scored.failures,
    )


def _check_models(models: Sequence[Any], infos: Sequence[ModelInfo]) -> None:
    if len(models) < 2:
        raise UsageError("a fusion needs at least two models, and behind them the data.")
    for model, info in zip(models, infos, strict=True):
        if info.members:
            raise UsageError(f"{model} is a fusion itself; name the models that it was made of.")
        if info.per_frame:
            raise UsageError(f"{model} gives a label for each frame; a fusion needs one a video.")
    first = infos[0]
    for model, info in zip(models[1:], infos[1:], strict=True):
        if info.class_names != first.class_names:
            raise UsageError(_difference(models[0], first, model, info))
        if info.multi_label != first.multi_label:
            raise UsageError(f"of {models[0]} and {model} only one gives several labels a video.")


def _difference(a: Any, first: ModelInfo, b: Any, other: ModelInfo) -> str:
    only = [set(first.class_names) - set(other.class_names)]
    only.append(set(other.class_names) - set(first.class_names))
    if not any(only):
        return f"{a} and {b} have the same classes in another order; train both on one data set."
    parts = [
        f"only {model} has {enumerate_words(sorted(names))}"
        for model, names in zip((a, b), only, strict=True)
        if names
    ]
    return f"{a} and {b} have different classes: {'; '.join(parts)}."


def _check_weights(weights: Sequence[float], method: str, count: int) -> None:
    if method != "weighted":
        raise UsageError(f'weights are for method="weighted", not "{method}".')
    good = len(weights) == count and all(0 <= weight < math.inf for weight in weights)
    if not good or not sum(weights):
        raise UsageError(
            f"weights must be {count} numbers from 0 on, not all 0, not {list(weights)}."
        )


def _target(models: Sequence[Any], out: Any, overwrite: bool) -> Path:
    if out is None:
        stem = "+".join(
            path.stem if path.suffix == ".keras" else path.name for path in map(Path, models)
        )
        folders = (Path("runs") / f"{stem}{end}" for end in ("", *(f"-{n}" for n in range(2, 999))))
        return next(folder for folder in folders if not folder.exists()) / "model.keras"
    path = Path(out)
    target = path if path.suffix == ".keras" else path / "model.keras"
    if target.resolve() in [model_file(model).resolve() for model in models]:
        raise UsageError(f"{target} is one of the models to fuse.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; --overwrite replaces it.")
    if path.suffix == ".keras":
        check_target(target)
    return target
