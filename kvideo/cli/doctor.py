"""`kvideo doctor`."""

from __future__ import annotations

import click

from kvideo.cli.options import json_option, print_json


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show versions, devices, plugins, disk and memory: one paste for a bug report.

    Plugins are imported, each by itself. Exit status 1 if something will not work.
    """
    from kvideo.cli.startup import quietly
    from kvideo.doctor import examine, report_text, to_json

    with quietly():  # what libraries say while they are imported
        found = examine()
    if as_json:
        print_json(to_json(found))
    else:
        click.echo(report_text(found))
    if any(each.problem for each in found):
        raise SystemExit(1)
