"""Carrying out an experiment: its folder, its data, the processes it runs on, its result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo import __version__
from kvideo.cluster import Cluster
from kvideo.data.records import VideoSet, describe_videos
from kvideo.errors import KVideoError, UsageError
from kvideo.files import make_folder, write_text_atomic
from kvideo.hardware import cluster_addresses, import_tensorflow, join_cluster
from kvideo.progress import say_nothing, say_to_stderr
from kvideo.registry import DECODERS, MODELS, find
from kvideo.saving import check_single, model_info, read_info
from kvideo.text import plural
from kvideo.training.experiment import EXPERIMENT, PATHS, Experiment, absolute
from kvideo.training.videos import read_videos

if TYPE_CHECKING:
    from kvideo.training.loop import Loop
    from kvideo.training.loop_state import LoopState

Prepare = Callable[[], AbstractContextManager[Any]]


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a training run gave.

    Attributes:
        folder: the run's folder.
        model_path: the best model so far.
        history: one row of figures for each epoch.
        best_epoch: from 1.
        bottleneck: a sentence about loader and model.
        failures: sentences about the videos that could not be read.
    """

    folder: Path
    model_path: Path
    history: list[dict[str, float]]
    best_epoch: int
    bottleneck: str
    failures: list[str]

    @property
    def best(self) -> dict[str, float]:
        """The figures of the best epoch."""
        return self.history[self.best_epoch - 1]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.folder),
            "model": str(self.model_path),
            "best_epoch": self.best_epoch,
            "best": self.best,
            "history": self.history,
            "bottleneck": self.bottleneck,
            "failures": self.failures,
        }


def run(
    experiment: Experiment,
    *,
    resume: bool = False,
    overwrite: bool = False,
    auto_resume: bool = False,
    quiet: bool = False,
    prepare: Prepare = contextlib.nullcontext,
    callbacks: Sequence[Any] = (),
) -> FitResult:
    """Carries out an experiment.

    With the strategy `"multiworker"` every process of the cluster calls it; only the first one, the
    chief, writes files and remarks.

    Args:
        experiment: what to do.
        resume: go on from the last checkpoint of `experiment.out`.
        overwrite: train into `experiment.out` even if there is a run already.
        auto_resume: go on if `experiment.out` (by default `runs/DATA-MODEL`) holds this very
            experiment, else begin. So one command can be given again and again until it is done.
        quiet: no progress and no remarks on standard error.
        prepare: TensorFlow is imported, and devices and other processes looked for, inside of what
            it returns.
        callbacks: Keras callbacks, see `kvideo.training.callbacks.CallbackDriver`.

    Raises:
        UsageError: arguments that contradict each other.
        DataError: the data cannot be trained on.
        TrainingInterrupted, TrainingDiverged: see `kvideo.training.loop`.
        WorkerLost, AnotherFailed: another process is gone, or could not do its part.
        KVideoError: any other work that could not be done.
    """
    if experiment.model is not None:
        find(MODELS, experiment.model)  # wrong names are told before anything is read
    find(DECODERS, experiment.decoder)
    if experiment.weights and experiment.weights.endswith(".keras"):
        info = read_info(experiment.weights)
        if experiment.detector is None or info.detector is None:
            check_single(info, "training begins with")
    if experiment.distill is not None:
        check_single(model_info(experiment.distill), "a teacher is")
    cluster = _join(experiment, prepare)
    quiet = quiet or not cluster.is_chief
    say = say_nothing if quiet else say_to_stderr
    chosen = None
    with cluster.together():
        if cluster.is_chief:
            chosen = _run_folder(experiment, resume, overwrite, auto_resume)
        videos, validation = _reader_of(experiment)(experiment, say)
    if cluster.size == 1:
        with prepare():
            import_tensorflow()
    cluster.check_equal("the workers have different data", describe_videos(videos, validation))
    folder, resume = cluster.gather(chosen)[0]
    folder = Path(folder)
    experiment = absolute(experiment, folder)
    assemble = _assembler_of(experiment)
    with assemble(experiment, videos, validation, folder, say, quiet, cluster, callbacks) as loop:
        _begin(loop, experiment, resume, say)
        state = loop.run()
        result = _result(loop, state)
    say(_closing_lines(result, validated=validation is not None))
    return result


def _reader_of(experiment: Experiment) -> Callable[..., tuple[VideoSet, VideoSet | None]]:
    """What reads an experiment's videos."""
    if experiment.detector is None:
        return read_videos
    from kvideo.detection import reading

    return reading.read_videos


def _assembler_of(experiment: Experiment) -> Callable[..., AbstractContextManager[Loop]]:
    """What makes an experiment's loop."""
    if experiment.detector is None:
        from kvideo.training import assembly

        return assembly.assemble
    from kvideo.detection import fitting

    return fitting.assemble


def _join(experiment: Experiment, prepare: Prepare) -> Cluster:
    """The processes that the experiment is to run on, all of them with the same software."""
    with prepare():
        addresses = cluster_addresses(experiment.strategy)
    if addresses is None:
        return Cluster()
    if addresses.index == 0:
        say_to_stderr(f"Waiting for {plural(len(addresses.hosts) - 1, 'other worker')}.")
    with prepare():
        cluster = join_cluster(addresses)
    import keras
    import tensorflow as tf

    versions = f"kvideo {__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    cluster.check_equal("the workers have different versions", versions)
    # Where the files are may differ from host to host; what is in them is compared later.
    settings = {
        name: value for name, value in _plain(experiment).items() if name not in (*PATHS, "workers")
    }
    for number, other in enumerate(all_settings := cluster.gather(settings)):
        for name, value in all_settings[0].items():
            if other[name] != value:
                raise KVideoError(
                    f"the workers were given different settings: {name} is {value!r} for worker 0 "
                    f"(chief), {other[name]!r} for worker {number}."
                )
    return cluster


def _begin(loop: Loop, experiment: Experiment, resume: bool, say: Callable[[str], None]) -> None:
    """Goes back to the last checkpoint, or prepares the folder for a fresh run."""
    folder, cluster = loop.folder, loop.cluster
    if resume and not cluster.gather(bool(loop.files.checkpoints.paths()))[0]:
        say(f"{folder} has no checkpoint yet: starting from the beginning.")
    elif resume:
        loop.resume()
        if loop.state.epoch >= experiment.epochs:
            say(f"{folder} is finished: all of its {plural(experiment.epochs, 'epoch')}.")
        else:
            done = f"epoch {loop.state.epoch + 1}, step {loop.state.step + 1}"
            say(f"Resuming {folder} at {done}.")
    elif cluster.is_chief:
        make_folder(folder)
        loop.files.forget()
        write_text_atomic(folder / EXPERIMENT, experiment.to_json())


def _result(loop: Loop, state: LoopState) -> FitResult:
    from kvideo.training.run_folder import MODEL

    return FitResult(
        folder=loop.folder,
        model_path=loop.folder / MODEL,
        history=state.rows,
        best_epoch=state.best_epoch,
        bottleneck=loop.bottleneck(),
        failures=[str(error) for error in loop.failures()],
    )


def _closing_lines(result: FitResult, validated: bool) -> str:
    figures = {name: value for name, value in result.best.items() if name.startswith("val_")}
    if not validated:
        figures = {name: result.best[name] for name in ("loss", "accuracy")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    which = "Best epoch" if validated else "Last epoch"
    return (
        f"{which}: {result.best_epoch} ({shown}). {result.bottleneck}\nModel: {result.model_path}"
    )


def _run_folder(
    experiment: Experiment, resume: bool, overwrite: bool, auto_resume: bool
) -> tuple[str, bool]:
    """Where the run goes, and whether it goes on there."""
    model = experiment.model or Path(experiment.weights or "model").stem
    stem = f"{Path(experiment.data).stem or 'data'}-{model}"
    if experiment.out is None and not auto_resume:
        number, folder = 1, Path("runs") / stem
        while folder.exists():
            number += 1
            folder = Path("runs") / f"{stem}-{number}"
        return str(folder), False
    folder = Path(experiment.out or Path("runs") / stem)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a run needs a folder.")
    holds_run = (folder / EXPERIMENT).exists()
    if auto_resume and holds_run:
        _check_same(experiment, folder)
        return str(folder), True
    if holds_run and not resume and not overwrite:
        raise UsageError(
            f"{folder} holds a run already: --resume {folder} goes on with it, --overwrite "
            "replaces it, another --out keeps both."
        )
    return str(folder), resume


def _check_same(experiment: Experiment, folder: Path) -> None:
    """Refuses to go on with a run that has other settings."""
    before = _plain(Experiment.from_folder(folder))
    now = _plain(absolute(experiment, folder))
    for name, value in before.items():
        if name != "workers" and value != now[name]:
            raise UsageError(
                f"{folder} holds a run with {name} {value!r}, not {now[name]!r}: another --out "
                "keeps both, --overwrite replaces it."
            )


def _plain(experiment: Experiment) -> dict[str, Any]:
    """The settings as they come out of a file."""
    return dict(json.loads(experiment.to_json()))
