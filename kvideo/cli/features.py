"""`kvideo features`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvideo.cli.options import (
    batch_size_option,
    decoder_option,
    json_option,
    precision_option,
    print_json,
    root_option,
    views_options,
    workers_option,
)
from kvideo.cli.stopping import unwinding

if TYPE_CHECKING:
    from kvideo.feature_set import FeatureSet

_MOST_NAMED = 10


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--layer", default="features", show_default=True, help="The layer's name.")
@click.option(
    "--pool",
    default="mean",
    show_default=True,
    type=click.Choice(["mean", "none"]),
    help="Of a map: the mean over its places, or the whole map.",
)
@views_options
@click.option(
    "--stride",
    type=float,
    metavar="SECONDS",
    help="Slide over the whole of each video, so many seconds from row to row.",
)
@root_option
@click.option("--split", default="all", show_default=True, help="Which part of DATA.")
@click.option("--quarantine", metavar="FILE", help="Leave out what `kvideo check` found bad.")
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    help="Where the files go.  [default: features/DATA-LAYER in the model's folder]",
)
@precision_option
@batch_size_option
@workers_option
@decoder_option
@json_option
def features(
    model: str,
    data: str,
    layer: str,
    pool: str,
    num_clips: int | None,
    num_crops: int | None,
    stride: float | None,
    root: str | None,
    split: str,
    quarantine: str | None,
    out: str | None,
    precision: str,
    batch_size: int,
    workers: int | None,
    decoder: str,
    as_json: bool,
) -> None:
    """Write what a layer of MODEL, a .keras file or a run's folder, says of each video of DATA.

    Each video gets one .npy file, one row for each of its views; index.csv and index.json name
    videos, files and labels. Files that are there already, from the same model and video, are not
    computed again. DATA may also be a folder of videos without labels, or one video.
    """
    from kvideo.api import features as run
    from kvideo.cli.startup import import_quietly
    from kvideo.saving import model_file, read_info

    read_info(model_file(model))
    import_quietly()
    try:
        with unwinding():
            result = run(
                model,
                data,
                layer=layer,
                pool=pool,
                out=out,
                root=root,
                split=split,
                num_clips=num_clips,
                num_crops=num_crops,
                stride=stride,
                precision=precision,
                batch_size=batch_size,
                workers=workers,
                decoder=decoder,
                quarantine=quarantine,
            )
    except KeyboardInterrupt:
        click.echo("What is finished is kept; the same command goes on from there.", err=True)
        raise
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(_summary(result))
    _name_failures(result)


def _summary(result: FeatureSet) -> str:
    from kvideo.text import plural

    found = result.found
    shapes = {video.shape for video in found}
    shape = "×".join(map(str, min(shapes)))
    if len(shapes) > 1:
        most = "×".join(map(str, max(shapes)))
        shape = f"{shape} to {most}" if len({s[1:] for s in shapes}) == 1 else f"{shape} and others"
    old = sum(not video.computed for video in found)
    lines = [f"{plural(len(found), 'video')}, {shape} float32 each, in {result.folder}"]
    if old:
        lines.append(f"{old:,} of them were there already.")
    lines.append(f"Index: {result.folder / 'index.csv'}")
    return "\n".join(lines)


def _name_failures(result: FeatureSet) -> None:
    from kvideo.text import plural, printable

    failures = result.failures
    if not failures:
        return
    click.echo(f"{plural(len(failures), 'video')} could not be used:", err=True)
    for video in failures[:_MOST_NAMED]:
        click.echo(f"  {printable(video.path)}: {printable(str(video.error))}", err=True)
    if len(failures) > _MOST_NAMED:
        rest = len(failures) - _MOST_NAMED
        click.echo(f"  … and {rest:,} more; index.json names them all.", err=True)
