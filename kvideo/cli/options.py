"""Options and values that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kvideo.text import literal

_MOST_NAMED = 10

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on standard output, nothing else."
)

root_option = click.option(
    "--root", metavar="DIR", help="Folder that a list's paths are relative to."
)

precision_option = click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "auto"]),
    help="What the layers compute in.",
)
short_side_option = click.option(
    "--short-side",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Larger pictures are shrunk to this first.",
)
batch_size_option = click.option(
    "-b",
    "--batch-size",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Clips at once.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="Decoding threads.  [default: one a processor]"
)

decoder_option = click.option(
    "--decoder", default="pyav", show_default=True, help="`kvideo models --decoders` lists them."
)


def views_options(command: Any) -> Any:
    """Adds --clips and --crops."""
    command = click.option(
        "--crops", "num_crops", type=int, help="Crops of each clip, 1 or 3.  [default: the model's]"
    )(command)
    return click.option(
        "--clips", "num_clips", type=int, help="Clips of each video.  [default: the model's]"
    )(command)


def print_json(document: Any) -> None:
    """Writes a JSON document to standard output."""
    click.echo(json.dumps(document, indent=2))


def print_figures(result: Any, table: str, folder: str | None, as_json: bool) -> None:
    """Writes what a test of videos gave, and below which videos failed and where the figures are.

    Args:
        result: with `to_json` and `failures`, each with a `path` and an `error`.
        table: the figures for a person.
        folder: that holds `evaluation.json`; or None.
        as_json: one JSON document instead of the table.
    """
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(table)
    for failed in result.failures[:_MOST_NAMED]:
        click.echo(f"Error: {failed.path}: {failed.error}", err=True)
    if (more := len(result.failures) - _MOST_NAMED) > 0:
        click.echo(f"… and {more} more; evaluation.json names all.", err=True)
    if folder is not None:
        click.echo(f"Figures: {Path(folder) / 'evaluation.json'}", err=True)


class _Size(click.ParamType):
    name = "SIDE|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        sides = str(value).lower().split("x")
        try:
            height, width = (int(side) for side in (sides * 2 if len(sides) == 1 else sides))
        except ValueError:
            self.fail(f"{value!r} is neither a number of pixels nor HEIGHTxWIDTH.", param, ctx)
        return height, width


class _ClipShape(click.ParamType):
    name = "TxHxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sides = str(value).lower().replace(",", "x").split("x")
        if len(sides) not in (3, 4) or not all(side.strip().isdecimal() for side in sides):
            self.fail(f"{value!r} is not FRAMESxHEIGHTxWIDTH, such as 32x224x224.", param, ctx)
        numbers = tuple(int(side) for side in sides)
        return numbers if len(numbers) == 4 else (*numbers, 3)


class _KeyValue(click.ParamType):
    name = "NAME=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value!r} is not NAME=VALUE.", param, ctx)
        return name, literal(text)


SIZE, KEY_VALUE, CLIP_SHAPE = _Size(), _KeyValue(), _ClipShape()
