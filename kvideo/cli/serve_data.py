"""`kvideo serve-data`."""

from __future__ import annotations

import threading

import click


@click.command("serve-data")
@click.option("--dispatcher", is_flag=True, help="Be the one that gives out the videos.")
@click.option("--worker", is_flag=True, help="Be one of those that read them.")
@click.option(
    "--dispatcher-address",
    metavar="grpc://HOST:PORT",
    help="Of the dispatcher that a worker works for.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="To listen on.  [default: 5050; workers: any free one]",
)
@click.option(
    "--work-dir",
    metavar="DIR",
    help="Of a dispatcher: its journal, with which it goes on after a restart.  [default: "
    "data-service/PORT in $KVIDEO_CACHE or ~/.cache/kvideo]",
)
@click.option("--host", help="Of a worker: the name by which others reach this machine.")
def serve_data(
    dispatcher: bool,
    worker: bool,
    dispatcher_address: str | None,
    port: int | None,
    work_dir: str | None,
    host: str | None,
) -> None:
    """Read shards for training runs on other machines, until Ctrl-C.

    Start one --dispatcher and any number of --worker, and train with `kvideo fit SHARDS
    --data-service grpc://HOST:PORT`. SHARDS has to be at the same place for all of them.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.errors import UsageError

    if dispatcher == worker:
        raise UsageError("give --dispatcher or --worker, one of them.")
    if worker and not dispatcher_address:
        raise UsageError("a worker needs --dispatcher-address grpc://HOST:PORT.")
    if worker and work_dir:
        raise UsageError("--work-dir is for a dispatcher; a worker keeps nothing.")
    if dispatcher and (dispatcher_address or host):
        raise UsageError("--dispatcher-address and --host are for workers.")
    import_quietly()
    from kvideo.data.shards import serving

    if worker:
        server, address = serving.start_worker(dispatcher_address or "", port or 0, host)
        click.echo(f"Worker at {address}, for {dispatcher_address}. Ctrl-C ends it.")
    else:
        place = serving.DEFAULT_PORT if port is None else port
        if place == 0:
            raise UsageError("a dispatcher needs a port that others know; --port 0 is none.")
        server, folder = serving.start_dispatcher(place, work_dir)
        click.echo(f"Dispatcher on port {place}, journal in {folder}. Ctrl-C ends it.")
    try:
        threading.Event().wait()
    finally:
        serving.stop(server)
