"""`kvideo compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.fit import given_settings, training_options
from kvideo.cli.options import json_option, print_json

if TYPE_CHECKING:
    from kvideo.comparison import Comparison


@click.command()
@click.argument("data")
@click.option(
    "-m",
    "--models",
    required=True,
    metavar="A,B,…",
    help="Models' names, with arguments if need be: two_stream:stream=temporal.",
)
@click.option("-o", "--out", metavar="DIR", help="[default: runs/DATA-comparison]")
@click.option("--overwrite", is_flag=True, help="Train all models anew.")
@click.option(
    "--test",
    metavar="DATA",
    help="Videos to test on.  [default: the test part of DATA, or what it is validated on]",
)
@click.option(
    "--clips", "num_clips", type=click.IntRange(1), help="Clips of each video in the test."
)
@training_options
@json_option
@click.pass_context
def compare(
    context: click.Context,
    data: str,
    models: str,
    out: str | None,
    overwrite: bool,
    test: str | None,
    num_clips: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train several models on DATA under one recipe, and test them on the same videos.

    Writes a table (comparison.csv, comparison.json) and a picture of accuracy against
    multiply-adds, parameters and speed. What was done already is not done again. Exit status: 1 if
    a model failed.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.comparison import compare as run

    import_quietly()
    result = run(
        data,
        _names(models),
        out=out,
        test=test,
        num_clips=num_clips,
        overwrite=overwrite,
        **given_settings(options),
    )
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(_table(result))
        click.echo(f"Wrote {result.folder / 'comparison.png'}", err=True)
    context.exit(1 if any(model.error for model in result.models) else 0)


def _names(models: str) -> list[str]:
    """The parts between commas, but for those inside of brackets."""
    names, depth = [""], 0
    for character in models:
        depth += (character in "[({") - (character in "])}")
        if character == "," and depth == 0:
            names.append("")
        else:
            names[-1] += character
    return names


def _table(result: Comparison) -> str:
    width = max(5, *(len(model.name) for model in result.models))
    head = f"{'model':<{width}}  {result.title.lower():<28}  parameters  multiply-adds  clips/s"
    lines = [head, "─" * len(head)]
    for model in result.models:
        if model.score is None:
            lines.append(f"{model.name:<{width}}  failed")
            continue
        score = f"{model.score:.3f}"
        if model.low is not None:
            score += f"  ({model.low:.3f}–{model.high:.3f})"
        lines.append(
            f"{model.name:<{width}}  {score:<28}  {_count(model.parameters):>10}  "
            f"{_count(model.macs):>13}  {_count(model.clips_per_second):>7}"
        )
    return "\n".join(lines)


def _count(number: float | None) -> str:
    if number is None:
        return "?"
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"
