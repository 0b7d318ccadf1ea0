"""The command line. Each command is a module of this package, imported when it is used."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from kvideo import __version__
from kvideo.cli.stopping import Stoppable, unwinding, was_terminated
from kvideo.errors import TERMINATED, KVideoError

# Command → what `kvideo --help` says of it. The module has the command's name, with "_" for "-".
COMMANDS = {
    "fit": "Train a model on a folder of videos.",
    "compare": "Train several models under one recipe: what they reach, what they cost.",
    "launch": "Train or test in several processes on this machine.",
    "evaluate": "Test a model over many views of each video.",
    "fuse": "Join trained models to one, by their scores.",
    "predict": "Label video files, or follow a live stream.",
    "detect": "Find who does what, where and when in videos.",
    "localize": "Find when something happens in long videos.",
    "features": "Write what a layer says of each video into files.",
    "export": "Write a model for other programs: SavedModel, ONNX, LiteRT.",
    "convert": "Make a model file of published weights.",
    "models": "List the models that can be trained.",
    "summary": "Show a model layer by layer: sizes, costs, receptive fields.",
    "visualize": "Show what a model learned, and what it looks at.",
    "benchmark": "Measure what a model costs, or the loading of videos.",
    "plugin": "Make a plugin: a model of your own, found by kvideo.",
    "doctor": "Show versions, devices, plugins, disk and memory, for a bug report.",
    "flow": "Compute the optical flow of videos, and keep it.",
    "check": "Find the files of a data set that cannot be used.",
    "shard": "Store videos as JPEG frames in TFRecord files, which are quick to read.",
    "serve-data": "Read shards for training runs on other machines.",
}


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Options that take less memory with smaller values.
_OF_MEMORY = ("--size", "--frames", "--clips", "--batch-size", "--batch", "--workers")


def _out_of_memory(command: click.Command | None) -> str:
    """The sentence for a command that needs more memory than there is, with its own options."""
    own = {name for each in command.params for name in each.opts} if command else set()
    options = [name for name in _OF_MEMORY if name in own]
    if not options:
        return "the memory is not enough for this."
    listed = " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))
    return f"the memory is not enough for this. Smaller values of {listed} need less."


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or TensorFlow ran out of memory."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, so that `--help` is quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The commands' names, in the order of the daily work."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Imports one command."""
        if name not in COMMANDS:
            return None
        module = name.replace("-", "_")
        return getattr(import_module(f"kvideo.cli.{module}"), module)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """As click does, with a near name for an unknown one."""
        import difflib

        if args[0] not in COMMANDS and (near := difflib.get_close_matches(args[0], COMMANDS, 1)):
            context.fail(f'there is no command "{args[0]}". Did you mean "{near[0]}"?')
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Turns an error that kvideo raises on purpose into its sentence and exit status."""
        try:
            with unwinding():
                return super().invoke(context)
        except KVideoError as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(error.exit_status)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            command = self.get_command(context, context.invoked_subcommand or "")
            click.echo(f"Error: {_out_of_memory(command)}", err=True)
            context.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kvideo")
def cli() -> None:
    """Video recognition with Keras 3: train, test and use models on your own videos."""


def main() -> None:
    """Entry point of the `kvideo` command."""
    with Stoppable():
        _main()


def _shown_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Shows a warning of kvideo or a plugin of it as a sentence, once, and others as before."""
    shown: set[str] = set()

    def show(message: Any, category: Any, filename: str, *rest: Any, **more: Any) -> None:
        folder = os.path.dirname(os.path.abspath(filename))
        ours = folder.startswith(_PACKAGE) or os.path.basename(folder).startswith("kvideo_")
        if issubclass(category, UserWarning) and ours:
            if str(message) not in shown:
                click.echo(f"Warning: {message}", err=True)
            shown.add(str(message))
        else:
            otherwise(message, category, filename, *rest, **more)

    return show


def _main() -> None:
    import io

    # TensorFlow's own messages would stand between a user and ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # File names need not be text, and terminals lack letters: show "?" for what cannot be shown.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    warnings.showwarning = _shown_warning(warnings.showwarning)
    try:
        status = cli.main(prog_name="kvideo", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Terminated." if was_terminated() else "Interrupted.", err=True)
        sys.exit(TERMINATED if was_terminated() else 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:  # of the system: no permission, no room for the output
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"Error: {(error.strerror or str(error)).lower()}{where}", err=True)
        sys.exit(1)
