"""`kvideo predict`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import (
    batch_size_option,
    decoder_option,
    json_option,
    precision_option,
    print_json,
    views_options,
    workers_option,
)
from kvideo.cli.streaming import stream_options

if TYPE_CHECKING:
    from kvideo.prediction import Prediction, Timeline
    from kvideo.saving import ModelInfo

_BAR = 30
_NO_FILE = "-"


class _OptionalValue(click.Command):
    """A command whose `--timeline` may have a file behind it, but takes no video for one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--timeline" not in args:
            return super().parse_args(ctx, args)
        at = args.index("--timeline")
        following = args[at + 1 : at + 2]
        if following and _names_a_timeline(following[0]):
            given = [*args[:at], f"--timeline={following[0]}", *args[at + 2 :]]
        else:
            given = [*args[:at], f"--timeline={_NO_FILE}", *args[at + 1 :]]
        return super().parse_args(ctx, given)


def _names_a_timeline(word: str) -> bool:
    """Whether the word behind `--timeline` is its file, be it one that cannot be written."""
    from kvideo.data.listing import is_url, is_video
    from kvideo.segmentation.files import ENDINGS

    ending = os.path.splitext(word)[1].lower()
    if ending in ENDINGS:
        return True
    # What else it may be: an option, the model, a folder, a video.
    if not ending or word.startswith("-") or ending == ".keras" or is_url(word):
        return False
    return not os.path.isdir(word) and not is_video(word)


@click.command(cls=_OptionalValue)
@click.argument("model")
@click.argument("files", nargs=-1)
@views_options
@click.option(
    "--top", default=3, show_default=True, type=click.IntRange(1), help="How many labels to show."
)
@click.option(
    "--timeline",
    metavar="[FILE]",
    help="The probability over time as well. Shown, or written: segments as .csv, all as .json, a "
    "picture as .png.",
)
@click.option(
    "--truth", metavar="DATA", help="Labels over time, for the timeline's picture and JSON."
)
@click.option(
    "--step", type=float, metavar="SECONDS", help="Of the timeline.  [default: half a clip]"
)
@precision_option
@batch_size_option
@workers_option
@decoder_option
@json_option
@stream_options
def predict(
    model: str,
    files: Sequence[str],
    num_clips: int | None,
    num_crops: int | None,
    top: int,
    timeline: str | None,
    truth: str | None,
    step: float | None,
    precision: str,
    batch_size: int,
    workers: int | None,
    decoder: str,
    as_json: bool,
) -> None:
    """Label video FILES, or all videos of folders, with MODEL, a .keras file or a run's folder.

    With --stream it follows one stream until it ends, and prints a line of JSON for each output.

    Exit status 1 if a file could not be read; the others are labelled all the same.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.errors import KVideoError, UsageError
    from kvideo.saving import model_file, read_info

    if step is not None and not timeline:
        raise UsageError("--step is the timeline's; give --timeline as well.")
    from kvideo.api import predict as run
    from kvideo.segmentation.files import check_timeline_file, write_timeline

    info = read_info(model_file(model))
    target = None if timeline in (None, _NO_FILE) else timeline
    if target is not None:
        check_timeline_file(target, files)
    elif truth is not None:
        raise UsageError("--truth goes into a timeline's file; give --timeline FILE as well.")
    import_quietly()
    known = None if truth is None else _read_truth(truth, files, info, decoder)
    predictions = run(
        model,
        list(files),
        num_clips=num_clips,
        num_crops=num_crops,
        timeline=(True if step is None else step) if timeline else False,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        decoder=decoder,
        verbose=len(files) > 1 or os.path.isdir(files[0]),
    )
    failed = [prediction for prediction in predictions if prediction.error]
    if target is not None and len(failed) < len(predictions):
        write_timeline(target, predictions, known)
        click.echo(f"Wrote {target}", err=True)
    if as_json:
        print_json([prediction.to_json(top) for prediction in predictions])
    for prediction in predictions:
        if prediction.error:
            click.echo(f"Error: {prediction.path}: {prediction.error}", err=True)
        elif not as_json:
            _show(prediction, top)
            _show_over_time(prediction, every_step=timeline == _NO_FILE)
    if failed:
        raise KVideoError(f"{len(failed)} of {len(predictions)} files could not be read.")


def _show(prediction: Prediction, top: int) -> None:
    click.echo(prediction.path)
    ranked = prediction.top(top)
    width = max(len(name) for name, _ in ranked)
    for name, probability in ranked:
        click.echo(
            f"  {name:{width}}  {probability:.3f}  {'█' * round(probability * _BAR)}".rstrip()
        )


def _read_truth(data: str, files: Sequence[str], info: ModelInfo, decoder: str) -> Any:
    """True segments by path, in the model's classes; says of which files there are none."""
    from kvideo.data.annotations import read_data
    from kvideo.data.listing import videos_of
    from kvideo.data.pipeline import clip_reader
    from kvideo.segmentation.files import check_truth_classes, true_segments

    as_it_is = read_data(data, split="all", per_frame=True, must_exist=False)
    check_truth_classes(as_it_is, info.class_names)
    videos = read_data(data, split="all", class_names=info.class_names, per_frame=True)
    paths = videos_of(files)
    known = true_segments(videos, paths, clip_reader(info.clip_spec, decoder))
    for path in paths:
        if os.path.abspath(path) not in known:
            click.echo(f"Note: {data} does not say what is true of {path}.", err=True)
    return known


def _show_over_time(prediction: Prediction, every_step: bool) -> None:
    timeline, names = prediction.timeline, prediction.class_names
    if timeline is None:
        return
    if every_step:
        _show_timeline(timeline, names)
        return
    width = max(len(name) for name in names)
    click.echo(f"  {'from':>9}  {'to':>9}  {'label':{width}}  probability")
    for part in timeline.segments():
        name = names[part.label]
        click.echo(f"  {part.start:9.2f}  {part.end:9.2f}  {name:{width}}  {part.probability:.3f}")


def _show_timeline(timeline: Timeline, class_names: Sequence[str]) -> None:
    width = max(len(name) for name in class_names)
    click.echo(f"  {'seconds':>9}  {'label':{width}}  probability")
    for time, row in zip(timeline.times, timeline.probabilities, strict=True):
        best = int(row.argmax())
        bar = "█" * round(float(row[best]) * _BAR)
        click.echo(f"  {time:9.2f}  {class_names[best]:{width}}  {row[best]:.3f}  {bar}".rstrip())
