"""`kvideo localize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    from kvideo.localization import Localization, LocalizationResult

_MOST_CLASSES = 30


class _Tious(click.ParamType):
    name = "NUMBER,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number <= 1 for number in numbers):
            self.fail(f"{value!r} is no list of overlaps above 0 and up to 1, such as 0.3,0.5,0.7.")
        return numbers


def _settings_options(command: Any) -> Any:
    """Adds --stream, --suppression, --nms-tiou and --most."""
    for option in reversed(
        (
            click.option("--stream", metavar="NAME", help="Only this stream, such as rgb or flow."),
            click.option(
                "--suppression",
                type=click.Choice(["nms", "soft-nms"]),
                help="Of overlapping segments of a class.  [default: the localizer's]",
            ),
            click.option(
                "--nms-tiou",
                "tiou",
                type=float,
                help="Segments that overlap by more are taken for the same.",
            ),
            click.option("--most", type=int, help="Segments kept for each 500 steps of a video."),
        )
    ):
        command = option(command)
    return command


@click.group()
def localize() -> None:
    """Find when something happens in long videos."""


@localize.command()
@click.argument("data")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="MODEL",
    help="A .keras file or a run's folder to take features from; several are several streams.",
)
@click.option("-o", "--out", required=True, metavar="DIR", help="The localizer's folder.")
@root_option
@click.option("--split", help="Which part of DATA.  [default: the training part]")
@click.option("--layer", default="features", show_default=True, help="Of the models.")
@click.option(
    "--stride",
    type=float,
    metavar="SECONDS",
    help="From one window to the next.  [default: an eighth of the shortest segments]",
)
@click.option("-e", "--epochs", default=40, show_default=True, help="Passes over the videos.")
@click.option(
    "--lr", "--learning-rate", "learning_rate", default=1e-3, show_default=True, help="At its peak."
)
@click.option("--dropout", default=0.5, show_default=True, help="Share of the features left out.")
@click.option("--filters", default=256, show_default=True, help="Channels of the heads' layers.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@precision_option
@batch_size_option
@workers_option
@decoder_option
@click.option("--overwrite", is_flag=True, help="Replace the localizer that is there.")
@json_option
def fit(data: str, models: Sequence[str], out: str, as_json: bool, **options: Any) -> None:
    """Train a localizer on the segments of untrimmed videos.

    DATA is ActivityNet's JSON, THUMOS14's files, a CSV `video,start,end,label`, a folder with one
    of these, or demo. What MODEL says of a sliding window is written into DIR/features and kept; on
    it a tal_net learns to propose and to classify segments.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.errors import UsageError
    from kvideo.localization.index import is_localizer
    from kvideo.saving import model_file, read_info

    if is_localizer(out) and not options["overwrite"]:
        raise UsageError(f"{out} holds a localizer already; --overwrite replaces it.")
    for model in models:
        read_info(model_file(model))  # a wrong file is told before TensorFlow is imported
    import_quietly()
    from kvideo.localization import fit as run

    result = run(data, list(models), out=out, **options)
    if as_json:
        localizer = result.localizer
        print_json(
            {
                "folder": str(result.folder),
                "class_names": localizer.class_names,
                "stride": localizer.stride,
                "anchors": [round(scale * localizer.stride, 4) for scale in localizer.scales],
                "history": result.history,
                "notes": result.notes,
            }
        )
    click.echo(f"Localizer: {result.folder}", err=True)


@localize.command()
@click.argument("model")
@click.argument("data")
@root_option
@click.option("--split", help="Which part of DATA.  [default: test, or else validation]")
@click.option(
    "--tiou",
    "tious",
    type=_Tious(),
    help="Overlaps from which on a segment is found.  [default: 0.5,0.55,…,0.95]",
)
@_settings_options
@click.option(
    "-o", "--out", metavar="DIR", help="For evaluation.json and results.json.  [default: MODEL]"
)
@click.option(
    "--pictures", metavar="DIR", help="A picture of each video's timeline: truth over prediction."
)
@click.option(
    "--threshold", default=0.3, show_default=True, help="Least score of a segment in a picture."
)
@precision_option
@batch_size_option
@workers_option
@decoder_option
@json_option
def evaluate(
    model: str,
    data: str,
    root: str | None,
    split: str | None,
    tious: tuple[float, ...] | None,
    stream: str | None,
    suppression: str | None,
    tiou: float | None,
    most: int | None,
    out: str | None,
    pictures: str | None,
    threshold: float,
    precision: str,
    batch_size: int,
    workers: int | None,
    decoder: str,
    as_json: bool,
) -> None:
    """Test a localizer on the segments of untrimmed videos.

    MODEL is a localizer's folder; a model with a label for each frame, whose probabilities are
    grouped to segments; or a JSON file of results in ActivityNet's form. The figures are those of
    ActivityNet's official evaluation.
    """
    from kvideo.files import make_folder
    from kvideo.localization import ACTIVITYNET_TIOUS
    from kvideo.localization.api import evaluate as run
    from kvideo.localization.api import is_results_file

    of_model = not is_results_file(model)
    if of_model:
        _prepare(model)
    folder = out or (_folder_of(model) if of_model else None)
    result = run(
        model,
        data,
        root=root,
        split=split,
        stream=stream,
        tious=tious or ACTIVITYNET_TIOUS,
        settings=_changes(suppression, tiou, most),
        out=folder,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        decoder=decoder,
    )
    if pictures is not None:
        from kvideo.localization.files import truth_of, write_segments

        target = make_folder(pictures)
        truth = truth_of(result.truth)
        for each in result.localizations:
            if each.error is None:
                file = target / f"{each.name.replace('/', '-')}.png"
                write_segments(
                    file, [each], class_names=result.truth.class_names,
                    threshold=threshold, truth=truth,
                )  # fmt: skip
        click.echo(f"Pictures: {target}", err=True)
    print_figures(result, _table(result), folder, as_json)


@localize.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Segments as .json (ActivityNet's form), .csv, .srt (subtitles) or .png (a timeline).",
)
@click.option(
    "--out-dir", metavar="DIR", help="All of these: results.json and .csv, NAME.srt and NAME.png."
)
@click.option("--video", metavar="FILE", help="An .mp4 with the labels drawn in.")
@click.option("--videos", is_flag=True, help="Such a video for each file, in --out-dir.")
@click.option(
    "--threshold",
    default=0.3,
    show_default=True,
    help="Least score of a segment that is shown; .json and .csv have all.",
)
@click.option("--truth", metavar="DATA", help="True segments, for the timelines.")
@_settings_options
@precision_option
@batch_size_option
@workers_option
@decoder_option
@json_option
def predict(
    model: str,
    files: Sequence[str],
    outputs: Sequence[str],
    out_dir: str | None,
    video: str | None,
    videos: bool,
    threshold: float,
    truth: str | None,
    stream: str | None,
    suppression: str | None,
    tiou: float | None,
    most: int | None,
    precision: str,
    batch_size: int,
    workers: int | None,
    decoder: str,
    as_json: bool,
) -> None:
    """Find segments in video FILES, of any length, or in all videos of folders.

    MODEL is a localizer's folder, or a model with a label for each frame. Exit status 1 if a file
    could not be read; the others are worked on all the same.
    """
    from kvideo.data.listing import videos_of
    from kvideo.errors import KVideoError
    from kvideo.localization.outputs import Outputs
    from kvideo.progress import Progress

    paths = videos_of(files)
    targets = Outputs(outputs, out_dir, video, videos, threshold, truth, paths)
    _prepare(model)
    from kvideo.data.untrimmed import video_name
    from kvideo.localization.sources import open_source

    source = open_source(
        model,
        stream=stream,
        settings=_changes(suppression, tiou, most),
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        decoder=decoder,
    )
    targets.read_truth(source.class_names)
    found: list[Localization] = []
    progress = Progress(None, "localizing", unit="row")
    try:
        named = [(video_name(path), path) for path in paths]
        for each in source.localize(named, progress.update):
            found.append(each)
            if each.error is not None:
                progress.write(f"Error: {each.path}: {each.error}")
                continue
            if not as_json:
                progress.hide()
                _show(each, threshold)
            for written in targets.write_one(each, source.class_names, decoder):
                progress.write(f"Wrote {written}")
    finally:  # what is found is kept when the work is interrupted
        progress.close()
        if any(each.error is None for each in found):
            for written in targets.write_all(found, source.class_names):
                click.echo(f"Wrote {written}", err=True)
    if as_json:
        print_json([each.to_json() for each in found])
    if failed := sum(each.error is not None for each in found):
        raise KVideoError(f"{failed} of {len(found)} files could not be read.")


def _prepare(model: str) -> None:
    """Refuses a wrong model before TensorFlow is imported, and imports it."""
    from kvideo.cli.startup import import_quietly
    from kvideo.localization.index import is_localizer, read_index
    from kvideo.saving import model_file, read_info

    if is_localizer(model):
        read_index(model)
    else:
        read_info(model_file(model))
    import_quietly()


def _folder_of(model: str) -> str:
    path = Path(model)
    return str(path if path.is_dir() else path.parent)


def _changes(suppression: str | None, tiou: float | None, most: int | None) -> dict[str, Any]:
    values = {"suppression": suppression, "tiou": tiou, "most": most}
    return {name: value for name, value in values.items() if value is not None}


def _show(found: Localization, threshold: float) -> None:
    from kvideo.text import plural, printable

    segments = found.above(threshold)
    click.echo(f"{found.path}  ({found.duration:.1f} s)")
    width = max((len(segment.label) for segment in segments), default=0)
    for segment in segments:
        label = f"{printable(segment.label):{width}}"
        click.echo(f"  {segment.start:9.2f}  {segment.end:9.2f}  {label}  {segment.score:.3f}")
    if hidden := len(found.segments) - len(segments):
        note = plural(hidden, "segment")
        click.echo(f"  {'' if segments else 'nothing; '}{note} with a score below {threshold:g}")
    elif not segments:
        click.echo("  nothing")


def _table(result: LocalizationResult) -> str:
    from kvideo.text import cut, pad, printable

    tious = result.scores.tious
    names = [cut(printable(name), 30) for name in result.class_names]
    width = max(len("average precision"), *(len(name) for name in names))
    lines = [result.headline, ""]
    head = "  ".join(f"{tiou:5.2f}" for tiou in tious)
    lines.append(f"{pad('average precision', width)}  {head}")
    for name, row in list(zip(names, result.scores.average_precisions.T, strict=True))[
        :_MOST_CLASSES
    ]:
        lines.append(f"{pad(name, width)}  " + "  ".join(f"{value:5.3f}" for value in row))
    if len(names) > _MOST_CLASSES:
        lines.append(f"… and {len(names) - _MOST_CLASSES} more classes; evaluation.json has all.")
    mean = "  ".join(f"{value:5.3f}" for value in result.scores.mean)
    lines.append(f"{pad('mean', width)}  {mean}")
    if result.recall is not None:
        recalls = (f"AR@{n} {result.metrics[f'ar@{n}']:.3f}" for n in (1, 5, 10, 50, 100))
        lines += ["", "Proposals, at overlaps of 0.5 to 0.95: " + ", ".join(recalls)]
        lines[-1] += f", AUC {100 * result.metrics['auc']:.1f}"
    return "\n".join(lines)
