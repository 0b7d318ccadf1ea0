"""`kvideo plugin`."""

from __future__ import annotations

import click


@click.group()
def plugin() -> None:
    """Make a plugin: a model of your own, found by kvideo."""


@plugin.command()
@click.argument("name")
@click.option("-o", "--out", metavar="DIR", help="The folder to make.  [default: kvideo-NAME]")
def new(name: str, out: str | None) -> None:
    """Write a working plugin with the model NAME: package, entry point, tests and README.

    What stands in its model.py is a small 3D network, to be replaced by your own.
    """
    from kvideo.plugin_template import new_plugin

    folder = new_plugin(name, out)
    click.echo(f"Wrote {folder}. Now: pip install -e '{folder}[test]' && pytest {folder}", err=True)
