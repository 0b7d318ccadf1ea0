"""`kvideo models`."""

from __future__ import annotations

from typing import Any

import click

from kvideo.cli.options import json_option, print_json
from kvideo.registry import DECODERS, MODELS, PERSON_DETECTORS, Entry, entries


@click.command()
@click.option("--decoders", is_flag=True, help="List the video decoders instead.")
@click.option("--person-detectors", is_flag=True, help="List the person detectors instead.")
@json_option
def models(decoders: bool, person_detectors: bool, as_json: bool) -> None:
    """List the models that can be trained: built-in ones and those of installed plugins.

    Nothing is imported, so a broken plugin is listed too; using it says what is wrong.
    """
    if decoders and person_detectors:
        raise click.UsageError("list either decoders or person detectors.")
    group = DECODERS if decoders else PERSON_DETECTORS if person_detectors else MODELS
    found = list(entries(group).values())
    if as_json:
        print_json([_document(entry) for entry in found])
        return
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        origin = "" if entry.builtin else f"  ({entry.distribution} {entry.version})"
        click.echo(f"{entry.name:{width}}  {entry.value}{origin}")
    if not all(entry.builtin for entry in found):
        click.echo("Plugins were not imported; `kvideo doctor` says whether they work.", err=True)


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "entry_point": entry.value,
        "distribution": entry.distribution,
        "version": entry.version,
        "builtin": entry.builtin,
    }
