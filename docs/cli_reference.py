"""Writes the reference of every command into `cli.md`, from click's own declarations."""

import click

from kvideo.cli import COMMANDS, cli

MARK = "<!-- reference -->"


def on_page_markdown(markdown, page, **_):
    if page.file.src_uri != "cli.md":
        return markdown
    if MARK not in markdown:
        raise ValueError(f"docs/cli.md has lost its line {MARK}")
    return markdown.replace(MARK, "\n".join(_command(name) for name in COMMANDS))


def _command(name):
    command = cli.get_command(None, name)
    context = click.Context(command, info_name=f"kvideo {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## kvideo {name}", "", f"```\nkvideo {name} {usage}\n```", ""]
    lines += [command.help or "", "", "| option | meaning |", "| --- | --- |"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            option, meaning = (text.replace("|", "\\|") for text in record)
            lines.append(f"| `{option}` | {meaning} |")
    return "\n".join([*lines, ""])
