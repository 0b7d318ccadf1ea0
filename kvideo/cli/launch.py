"""`kvideo launch`."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "-n", "--workers", type=click.IntRange(1), default=2, show_default=True, help="How many."
)
@click.option(
    "--restarts",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Start all again so often when a worker was killed; fit goes on from its last checkpoint.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def launch(context: click.Context, workers: int, restarts: int, command: tuple[str, ...]) -> None:
    """Run a COMMAND, fit or evaluate, in several worker processes on this machine.

    For example: kvideo launch --workers 2 -- fit demo -m slow_fusion

    The workers train one model together (strategy multiworker), each on its share of every batch.
    On several machines the same is done by one process on each, with TF_CONFIG set. Exit status: 0
    if all workers ended well, 143 after SIGTERM.
    """
    from kvideo.cluster.launcher import Launcher
    from kvideo.progress import say_to_stderr

    if command[0] not in ("fit", "evaluate"):
        raise click.UsageError(f'launch runs "fit" or "evaluate", not "{command[0]}".')
    context.exit(Launcher(command, workers, restarts, say_to_stderr).run())
