"""`kvideo predict`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

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

_BAR = 30


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1)
@views_options
@click.option(
    "--top", default=3, show_default=True, type=click.IntRange(1), help="How many labels to show."
)
@click.option("--timeline", is_flag=True, help="Show the probability over time as well.")
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
    timeline: bool,
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

    read_info(model_file(model))
    import_quietly()
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
    if as_json:
        print_json([prediction.to_json(top) for prediction in predictions])
    for prediction in predictions:
        if prediction.error:
            click.echo(f"Error: {prediction.path}: {prediction.error}", err=True)
        elif not as_json:
            _show(prediction, top)
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
    if prediction.timeline is not None:
        _show_timeline(prediction.timeline, prediction.class_names)


def _show_timeline(timeline: Timeline, class_names: Sequence[str]) -> None:
    width = max(len(name) for name in class_names)
    click.echo(f"  {'seconds':>9}  {'label':{width}}  probability")
    for time, row in zip(timeline.times, timeline.probabilities, strict=True):
        best = int(row.argmax())
        bar = "█" * round(float(row[best]) * _BAR)
        click.echo(f"  {time:9.2f}  {class_names[best]:{width}}  {row[best]:.3f}  {bar}".rstrip())
