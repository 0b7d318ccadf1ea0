"""Writes every command's options into `cli.md`, from click's own declarations.

`cli.md` has a line `<!-- reference: COMMAND -->` for each command; a missing or unknown one is an
error, so the page can neither forget an option nor describe one that is gone.
"""

import inspect
import re

import click

from kvideo.cli import COMMANDS, cli

MARK = re.compile(r"^<!-- reference: ([\w-]+) -->$", re.M)


def on_page_markdown(markdown, page, **_):
    """The hook that mkdocs calls for each page."""
    if page.file.src_uri != "cli.md":
        return markdown
    if sorted(MARK.findall(markdown)) != sorted(COMMANDS):
        raise ValueError(f"docs/cli.md must have one reference mark for each of {list(COMMANDS)}")
    return MARK.sub(lambda match: _reference(match[1]), markdown)


def _reference(name):
    parent = click.Context(cli, info_name="kvideo", **cli.context_settings)
    command = cli.get_command(parent, name)
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        parts = [_command(part, f"{name} {key}", context) for key, part in command.commands.items()]
        return "\n\n".join(parts)
    return _command(command, name, parent)


def _command(command, name, parent):
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"```text\nkvideo {name} {usage}\n```", "", inspect.cleandoc(command.help), ""]
    lines += ["| option | meaning |", "| --- | --- |"]
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            option, meaning = parameter.get_help_record(context)
            lines.append(f"| `{option}` | {meaning.replace('|', '&#124;')} |")
    return "\n".join(lines)
