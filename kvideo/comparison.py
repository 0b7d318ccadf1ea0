"""`kvideo.compare`: several models under one recipe, what they reach and what they cost."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.errors import KVideoError, UsageError
from kvideo.files import make_folder, write_bytes_atomic, write_text_atomic
from kvideo.progress import say_nothing, say_to_stderr
from kvideo.registry import MODELS, find
from kvideo.text import literal

if TYPE_CHECKING:
    from kvideo.data.annotations import VideoSet
    from kvideo.training import Experiment

_ROW = "compared.json"
_FIGURES = {"top1": "Top-1 accuracy", "mAP": "Mean average precision"}


@dataclasses.dataclass(frozen=True)
class ComparedModel:
    """What one model reached, and what it costs.

    Attributes:
        name: as it was asked for, such as `"two_stream:stream=temporal"`.
        score: top-1 accuracy, or mean average precision for several labels a video.
        low: of the accuracy's 95 % interval; None for mean average precision.
        high: likewise.
        num_videos: it was tested on.
        parameters: trained ones.
        macs: multiply-adds of one clip; None where a layer does not tell.
        clips_per_second: of inference on this machine, one clip at a time.
        fit_seconds: of the training, as far as it was done in one go; None where it was resumed.
        folder: of the run.
        error: why there are no figures.
    """

    name: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    num_videos: int = 0
    parameters: int | None = None
    macs: int | None = None
    clips_per_second: float | None = None
    fit_seconds: float | None = None
    folder: str = ""
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The models in the order in which they were named.

    Attributes:
        figure: `"top1"` or `"mAP"`.
        models: one for each.
        folder: with comparison.json, comparison.csv, comparison.png and the runs.
    """

    figure: str
    models: tuple[ComparedModel, ...]
    folder: Path

    @property
    def title(self) -> str:
        """The figure in words."""
        return _FIGURES[self.figure]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [dataclasses.asdict(model) for model in self.models]
        return {"figure": self.figure, "models": rows}

    def to_csv(self) -> str:
        """A row for each model."""
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(ComparedModel)]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(model) for model in self.models)
        return text.getvalue()


def compare(
    data: str | os.PathLike[str],
    models: Sequence[str],
    *,
    out: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
    num_clips: int | None = None,
    recipe: str | None = None,
    overwrite: bool = False,
    verbose: bool = True,
    **settings: Any,
) -> Comparison:
    """Trains models under one recipe, and tests them on the same videos; like `kvideo compare`.

    What was done already is not done again: a finished model is taken as it is, an interrupted one
    goes on from its checkpoint. A model that cannot be trained is named, and the others go on.

    Args:
        data: as in `fit`.
        models: registered names, each with arguments if need be:
            `"two_stream:stream=temporal:backbone=efficientnet_lite0"`.
        out: a folder; None makes `runs/DATA-comparison`.
        test: videos to test on; by default the test part of the data, or else those that the
            training kept for validation, which also chose the best epoch.
        num_clips: clips of each video; by default what each model recommends.
        recipe: the name of one of `kvideo.recipes`; other settings win over it.
        overwrite: replace what is there.
        verbose: progress and remarks on standard error.
        **settings: any field of `kvideo.Experiment` but `model` and `out`.

    Raises:
        UsageError: arguments out of range, or a folder with runs of other settings, found with the
            first model. What is wrong with another one only is in its row.
        DataError: the data cannot be trained on.
        TrainingInterrupted: Ctrl-C or SIGTERM; called again, the comparison goes on.
    """
    from kvideo.recipes import experiment as experiment_of
    from kvideo.training.interruption import TrainingInterrupted

    names = [name.strip() for name in models if name.strip()]
    if not names:
        raise UsageError("name the models to compare, such as single_frame,slow_fusion.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice[0]} is named twice.")
    folder = Path(out) if out is not None else Path("runs") / f"{Path(data).stem}-comparison"
    say = say_to_stderr if verbose else say_nothing
    experiments = []
    for name in names:
        model, options = parse_model(name)
        find(MODELS, model)  # wrong names are told before anything is trained
        common = {**settings, "model_options": {**settings.get("model_options", {}), **options}}
        experiments.append(
            experiment_of(data, recipe, model=model, out=str(folder / _plain(name)), **common)
        )
    rows: list[ComparedModel] = []
    for name, experiment in zip(names, experiments, strict=True):
        say(f"== {name}")
        try:
            row = _compared(name, experiment, test, num_clips, overwrite, verbose)
        except TrainingInterrupted:
            raise
        except KVideoError as error:
            if isinstance(error, UsageError) and not rows:
                raise  # the others are asked for the same way, most likely
            say(f"{name}: {error}")
            row = ComparedModel(name, folder=str(experiment.out), error=str(error))
        rows.append(row)
    figure = "mAP" if any(row.score is not None and row.low is None for row in rows) else "top1"
    result = Comparison(figure, tuple(rows), folder)
    from kvideo.report.comparison_plot import comparison_png

    make_folder(folder)
    write_text_atomic(folder / "comparison.json", json.dumps(result.to_json(), indent=2))
    write_text_atomic(folder / "comparison.csv", result.to_csv())
    write_bytes_atomic(folder / "comparison.png", comparison_png(result))
    return result


def parse_model(text: str) -> tuple[str, dict[str, Any]]:
    """`"two_stream:stream=temporal"` as a name and arguments.

    Raises:
        UsageError: it is not of that form.
    """
    name, *parts = text.split(":")
    options = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{text!r} is not NAME or NAME:ARGUMENT=VALUE:….")
        options[key] = literal(value)
    return name, options


def _plain(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", name)


def _compared(
    name: str,
    experiment: Experiment,
    test: Any,
    num_clips: int | None,
    overwrite: bool,
    verbose: bool,
) -> ComparedModel:
    from kvideo.training.experiment import absolute

    folder = Path(str(experiment.out))
    wanted = {
        "experiment": json.loads(absolute(experiment, folder).to_json()),
        "test": None if test is None else os.path.abspath(test),
        "num_clips": num_clips,
    }
    if not overwrite and (found := _done(folder / _ROW, wanted)) is not None:
        return found
    seconds = _train(experiment, folder, overwrite, verbose)
    row = _measured(name, experiment, folder, test, num_clips, verbose)
    row = dataclasses.replace(row, fit_seconds=seconds)
    document = {"wanted": wanted, "row": dataclasses.asdict(row)}
    write_text_atomic(folder / _ROW, json.dumps(document, indent=2))
    return row


def _done(path: Path, wanted: dict[str, Any]) -> ComparedModel | None:
    """What was found before by the same settings."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return ComparedModel(**document["row"]) if document["wanted"] == wanted else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _train(experiment: Experiment, folder: Path, overwrite: bool, verbose: bool) -> float | None:
    """Trains, or goes on; seconds of a training in one go."""
    from kvideo.training import run
    from kvideo.training.experiment import EXPERIMENT, Experiment, absolute

    begun = time.perf_counter()
    resume = not overwrite and (folder / EXPERIMENT).exists()
    if resume and Experiment.from_folder(folder) != absolute(experiment, folder):
        raise UsageError(
            f"{folder} holds a run with other settings: --overwrite replaces it, another --out "
            "keeps both."
        )
    run(experiment, resume=resume, overwrite=overwrite, quiet=not verbose)
    return None if resume else time.perf_counter() - begun


def _measured(
    name: str, experiment: Experiment, folder: Path, test: Any, num_clips: int | None, verbose: bool
) -> ComparedModel:
    from kvideo.api import evaluate
    from kvideo.benchmarking import INFERENCE, benchmark_model

    videos = _test_videos(experiment) if test is None else test
    evaluation = evaluate(
        folder,
        videos,
        root=None if test is None else experiment.root,
        num_clips=num_clips,
        out=folder,
        verbose=verbose,
    )
    figure = "mAP" if evaluation.multi_label else "top1"
    low, high = evaluation.intervals.get(figure, (None, None))
    cost = benchmark_model(folder / "model.keras", phases=(INFERENCE,), batch_size=1)
    return ComparedModel(
        name=name,
        score=float(evaluation.metrics[figure]),
        low=low,
        high=high,
        num_videos=int(evaluation.metrics["num_videos"]),
        parameters=cost.parameters,
        macs=cost.macs,
        clips_per_second=cost.phases[INFERENCE].clips_per_second,
        folder=str(folder),
    )


def _test_videos(experiment: Experiment) -> VideoSet:
    """The test part of an experiment's data, or else what it validates on."""
    from kvideo.data.annotations import find_splits, read_data
    from kvideo.data.remote import list_remote, open_remote
    from kvideo.training.videos import read_videos

    training, validation = read_videos(experiment, say_nothing)
    parts = find_splits(experiment.data, listdir=list_remote, opener=open_remote)
    if "test" in parts and experiment.split is None and experiment.val is None:
        return read_data(
            experiment.data,
            root=experiment.root,
            split="test",
            class_names=training.class_names,
            multi_label=training.multi_label,
            per_frame=training.per_frame,
            listdir=list_remote,
            opener=open_remote,
        )
    if validation is None:
        raise UsageError(
            "there is nothing to test on: give test videos, or a share to validate on."
        )
    return validation
