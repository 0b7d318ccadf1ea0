"""`kvideo detect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.fit import given_settings, training_options
from kvideo.cli.options import (
    batch_size_option,
    decoder_option,
    json_option,
    precision_option,
    print_figures,
    print_json,
    root_option,
    workers_option,
)

if TYPE_CHECKING:
    from kvideo.detection.results import VideoActors
    from kvideo.detection.scoring import DetectionResult

_MOST_CLASSES = 80
_SAME = 0.3  # overlap of tubes that show one actor


def _box_options(command: Any) -> Any:
    """Adds --boxes, --person-detector, --actor-threshold, --most and --threshold."""
    for option in reversed(
        (
            click.option(
                "--boxes",
                metavar="FILE",
                help="Boxes of persons, in AVA's proposal CSV, rather than those of the model.",
            ),
            click.option(
                "--person-detector",
                metavar="NAME",
                help="A detector of the entry-point group kvideo.person_detectors, likewise.",
            ),
            click.option(
                "--actor-threshold",
                type=float,
                help="Least score of a box that the model finds.  [default: 0.05; predict: 0.4]",
            ),
            click.option("--most", type=int, help="Boxes of a moment.  [default: 20]"),
            click.option(
                "--threshold",
                default=0.3,
                show_default=True,
                help="Least probability of an action in a tube.",
            ),
        )
    ):
        command = option(command)
    return command


@click.group()
def detect() -> None:
    """Find who does what, where and when in videos."""


@detect.command()
@click.argument("data", required=False)
@click.option("-m", "--model", help="Whose feature_map it works on; `kvideo models` lists them.")
@click.option("-o", "--out", help="The run's folder.  [default: runs/DATA-MODEL]")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run; no other options.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the folder.")
@click.option("--classes", metavar="FILE", help="AVA's label map.  [default: the one beside DATA]")
@click.option(
    "--excluded", metavar="FILE", help="Moments that do not count.  [default: the list beside DATA]"
)
@click.option("--val-excluded", metavar="FILE", help="Likewise, of --val.")
@click.option(
    "--person-head/--no-person-head",
    default=None,
    help="Whether the model finds boxes itself.  [default: it does]",
)
@click.option("--filters", type=int, help="Channels of the person head.  [default: 128]")
@click.option("--dropout", type=float, help="Before the actions.  [default: 0.5]")
@click.option(
    "--shift",
    type=float,
    metavar="SECONDS",
    help="Train also on moments up to so far from labelled ones, where labels before and after say "
    "who is there.  [default: 0]",
)
@click.option("--context", is_flag=True, default=None, help="Show each actor the whole picture.")
@click.option(
    "--scene-attention",
    is_flag=True,
    default=None,
    help="Let each actor look around: a non-local block from actors to the scene.",
)
@training_options
@json_option
def fit(
    data: str | None, resume: str | None, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Train a detector of actors and their actions on DATA.

    DATA is AVA's CSV, a CSV `video,time,x1,y1,x2,y2,label,person` with a header, a folder that
    holds train.csv and val.csv or test.csv, or demo-actors. By default clips show the whole
    picture (--framing letterbox).
    """
    from kvideo.cli.startup import quietly
    from kvideo.detection.settings import split_settings
    from kvideo.training import Experiment, run

    given = given_settings(options)
    if resume is not None:
        if data is not None or given or overwrite:
            raise click.UsageError("--resume RUN takes all settings from the run; give no others.")
        experiment = Experiment.from_folder(resume)
    elif data is None:
        raise click.UsageError("name the DATA to train on.")
    else:
        from kvideo.recipes import experiment as experiment_of

        of_detector, rest = split_settings(given)
        experiment = experiment_of(data, **rest, detector=of_detector)
    result = run(experiment, resume=resume is not None, overwrite=overwrite, prepare=quietly)
    if as_json:
        print_json(result.to_json())


_NOT_FOR_DETECTORS = {
    *("label_smoothing", "focal_gamma", "class_weights", "sampling", "distill", "mixup", "cutmix"),
    *("distill_temperature", "distill_weight", "mix_probability", "multigrid", "unfreeze_epochs"),
    *("data_service", "random_erasing", "layer_decay", "remat", "bptt", "accumulate"),
    *("quarantine", "val_clips"),
}
for _option in fit.params:
    if isinstance(_option, click.Option):
        _option.hidden = _option.name in _NOT_FOR_DETECTORS  # known, but refused in a sentence
        if _option.name == "framing" and _option.help:
            _option.help = _option.help.replace("[default: crop]", "[default: letterbox]")
        if _option.name == "weights":
            _option.help = (
                'A .keras file of a classifier or a detector to start from, "imagenet", or '
                "published weights of the model."
            )


@detect.command()
@click.argument("model")
@click.argument("data")
@root_option
@click.option("--split", help="Which part of DATA.  [default: test, or else val]")
@click.option("--classes", metavar="FILE", help="AVA's label map.  [default: the one beside DATA]")
@click.option(
    "--excluded", metavar="FILE", help="Moments that do not count.  [default: the list beside DATA]"
)
@_box_options
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    help="For evaluation.json and results.csv.  [default: MODEL, if the boxes are its own]",
)
@precision_option
@batch_size_option
@workers_option
@decoder_option
@json_option
def evaluate(
    model: str,
    data: str,
    out: str | None,
    actor_threshold: float | None,
    most: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Test a detector on labelled boxes.

    MODEL is a run's folder, a model file, or a CSV of results in AVA's form. frame-mAP is that of
    AVA's official evaluation. --boxes truth says how good the actions are in the true boxes. DATA
    is tested on its part test, or else val.
    """
    from kvideo.detection.result_files import is_results_file

    folder = out
    if not is_results_file(model):
        _prepare(model)
        path = Path(model)
        own = options["boxes"] is None and options["person_detector"] is None
        if own and out is None:
            folder = str(path if path.is_dir() else path.parent)
    from kvideo.detection.api import evaluate as run

    result = run(model, data, settings=_settings(actor_threshold, most), out=folder, **options)
    print_figures(result, _table(result), folder, as_json)


@detect.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Boxes as .csv (AVA's form of results), tubes as .json.",
)
@click.option("--video", metavar="FILE", help="An .mp4 with boxes, names and scores drawn in.")
@click.option(
    "--out-dir", metavar="DIR", help="All of these: results.csv, tubes.json and NAME.mp4."
)
@click.option(
    "--step",
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="From one moment that is looked at to the next.",
)
@click.option("--link-iou", type=float, help="Least overlap from moment to moment.  [default: 0.3]")
@click.option("--gap", type=int, help="Moments without a box that a tube outlasts.  [default: 2]")
@_box_options
@precision_option
@batch_size_option
@workers_option
@decoder_option
@json_option
def predict(
    model: str,
    files: Sequence[str],
    outputs: Sequence[str],
    video: str | None,
    out_dir: str | None,
    step: float,
    link_iou: float | None,
    gap: int | None,
    boxes: str | None,
    person_detector: str | None,
    actor_threshold: float | None,
    most: int | None,
    threshold: float,
    precision: str,
    batch_size: int,
    workers: int | None,
    decoder: str,
    as_json: bool,
) -> None:
    """Find actors and what they do in video FILES, of any length, or in all videos of folders.

    Exit status 1 if a file could not be read; the others are worked on all the same.
    """
    from kvideo.data.listing import videos_of
    from kvideo.detection.outputs import Outputs
    from kvideo.detection.tubes import LinkSettings
    from kvideo.errors import KVideoError
    from kvideo.progress import Progress

    paths = videos_of(files)
    asked = {"iou": link_iou, "gap": gap}
    given = {name: value for name, value in asked.items() if value is not None}
    links = LinkSettings(same=_SAME, **given)  # type: ignore[arg-type]
    inputs = [model, *(() if boxes is None else (boxes,))]
    targets = Outputs(outputs, out_dir, video, paths, links, threshold, step, inputs)
    _prepare(model)
    from kvideo.detection.api import predict as run
    from kvideo.saving import read_info

    info = read_info(_file(model))
    settings = _settings(0.4 if actor_threshold is None else actor_threshold, most)
    found: list[VideoActors] = []
    progress = Progress(None, "detecting", unit="moment")
    try:
        for each in run(
            model, paths, step=step, boxes=boxes, person_detector=person_detector,
            settings=settings, precision=precision, batch_size=batch_size, workers=workers,
            decoder=decoder, on_moments=progress.update,
        ):  # fmt: skip
            found.append(each)
            if each.error is not None:
                progress.write(f"Error: {each.path}: {each.error}")
            if not each.moments:
                continue
            if not as_json:
                progress.hide()
                click.echo(targets.describe(each, info.class_names))
            for written in targets.write_one(each, info.class_names, decoder):
                progress.write(f"Wrote {written}")
    finally:  # what is found is kept when the work is interrupted
        progress.close()
        if any(each.moments for each in found):
            for written in targets.write_all(found, info):
                click.echo(f"Wrote {written}", err=True)
    if as_json:
        print_json(targets.document(found, info.class_names))
    if failed := sum(each.error is not None for each in found):
        raise KVideoError(f"{failed} of {len(found)} files could not be read.")


def _file(model: str) -> Path:
    from kvideo.saving import model_file

    return model_file(model)


def _prepare(model: str) -> None:
    """Refuses a wrong model before TensorFlow is imported, and imports it."""
    from kvideo.cli.startup import import_quietly
    from kvideo.errors import UsageError
    from kvideo.saving import read_info

    if read_info(_file(model)).detector is None:
        raise UsageError(
            f"{model} is a classifier. `kvideo detect fit DATA --weights {model}` makes a detector "
            "of it."
        )
    import_quietly()


def _settings(actor_threshold: float | None, most: int | None) -> dict[str, Any]:
    values = {"threshold": actor_threshold, "most": most}
    return {name: value for name, value in values.items() if value is not None}


def _table(result: DetectionResult) -> str:
    from kvideo.text import cut, pad, printable

    names = [cut(printable(name), 40) for name in result.class_names]
    width = max(len("average precision"), *(len(name) for name in names))
    columns = {"frame 0.5": result.frames.average_precisions}
    columns |= {f"video {name}": values for name, values in result.videos.items()}
    lines = [result.headline, ""]
    heads = [f"{name:>{max(9, len(name))}}" for name in columns]
    lines.append("  ".join([pad("average precision", width), *heads]))
    for row, name in enumerate(names[:_MOST_CLASSES]):
        cells = [
            f"{'-' if values[row] != values[row] else f'{values[row]:.3f}':>{len(head)}}"
            for head, values in zip(heads, columns.values(), strict=True)
        ]
        lines.append("  ".join([pad(name, width), *cells]))
    if len(names) > _MOST_CLASSES:
        lines.append(f"… and {len(names) - _MOST_CLASSES} more classes; evaluation.json has all.")
    shown = {"frame 0.5": result.metrics.get("frame_map@0.5")}
    shown |= {f"video {name}": result.metrics.get(f"video_map@{name}") for name in result.videos}
    cells = [
        f"{'-' if value is None else f'{value:.3f}':>{len(head)}}"
        for head, value in zip(heads, shown.values(), strict=True)
    ]
    lines.append("  ".join([pad("mean", width), *cells]))
    if (boxes := result.metrics.get("actor_ap@0.5")) is not None:
        lines += ["", f"Boxes of actors, whatever they do: average precision {boxes:.3f}"]
    return "\n".join(lines)
