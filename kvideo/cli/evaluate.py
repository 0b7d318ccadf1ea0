"""`kvideo evaluate`."""

from __future__ import annotations

from pathlib import Path

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


@click.command()
@click.argument("model")
@click.argument("data")
@views_options
@root_option
@click.option("--split", help="Which part of DATA.  [default: its test or validation part]")
@click.option("--quarantine", metavar="FILE", help="Leave out what `kvideo check` found bad.")
@click.option(
    "-o", "--out", metavar="DIR", help="Where the reports go.  [default: the model's folder]"
)
@precision_option
@batch_size_option
@workers_option
@decoder_option
@click.option("--strategy", default="auto", show_default=True, help="auto, one or multiworker.")
@json_option
def evaluate(
    model: str,
    data: str,
    num_clips: int | None,
    num_crops: int | None,
    root: str | None,
    split: str | None,
    quarantine: str | None,
    out: str | None,
    precision: str,
    batch_size: int,
    workers: int | None,
    decoder: str,
    strategy: str,
    as_json: bool,
) -> None:
    """Test MODEL, a .keras file or a run's folder, on DATA.

    Every video is decoded once for all of its views, whose probabilities are averaged; a model with
    a label for each frame looks at the whole of it. Writes evaluation.json, report.html and
    confusion.png.
    """
    from kvideo.api import evaluate as run
    from kvideo.cli.startup import import_quietly, quietly
    from kvideo.errors import UsageError
    from kvideo.hardware import cluster_addresses, join_cluster
    from kvideo.report import format_result
    from kvideo.saving import model_file, read_info

    path = model_file(model)
    folder = Path(out) if out else path.parent
    if read_info(path).detector is not None:
        raise UsageError(f"{model} is an actor detector; test it with `kvideo detect evaluate`.")
    addresses = cluster_addresses(strategy)
    if addresses is None:
        import_quietly()
    else:
        with quietly():
            join_cluster(addresses)
    result = run(
        model,
        data,
        root=root,
        split=split,
        num_clips=num_clips,
        num_crops=num_crops,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        decoder=decoder,
        quarantine=quarantine,
        out=folder,
        strategy=strategy,
    )
    if addresses is not None and addresses.index > 0:
        return  # the first worker says it
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(format_result(result))
    click.echo(f"Report: {folder / 'report.html'}", err=True)
