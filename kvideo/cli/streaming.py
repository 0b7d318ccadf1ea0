"""`kvideo predict --stream`: its options, and what it prints."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kvideo.data.live import LiveSource

# What `predict` takes for files only, by parameter.
_OF_FILES = {"num_clips": "--clips", "num_crops": "--crops", "timeline": "--timeline"}
_OPTIONS = (
    click.option(
        "--stream",
        "stream_source",
        metavar="SOURCE",
        help="Follow a stream instead of labelling files: a file, - (standard input), a named "
        "pipe, an RTSP, HTTP, TCP or UDP URL, or a camera such as /dev/video0. Prints JSON lines.",
    ),
    click.option(
        "--every",
        type=click.IntRange(1),
        metavar="N",
        help="Of a stream: an output at every N-th frame of the model's rate.  [default: 1]",
    ),
    click.option(
        "--on-change", is_flag=True, help="Of a stream: print only where the best label changes."
    ),
    click.option(
        "--horizon",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="Of a stream: how far the mean of a model that takes one over time reaches back, "
        "`inf` for all.  [default: a clip]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="Of a stream: wait so long for a connection, and for the next frame.  [default: 10]",
    ),
    click.option(
        "--reconnect",
        type=click.IntRange(0),
        metavar="N",
        help="Of a stream: attempts in a row to connect anew when it breaks off.  [default: 5]",
    ),
    click.option(
        "--realtime", is_flag=True, help="Of a file as a stream: pace it by the clock, drop frames."
    ),
    click.option(
        "--keep-all", is_flag=True, help="Of a stream: drop no frame; the source has to wait."
    ),
)


def stream_options(command: Any) -> Any:
    """Adds `--stream` and its options to `predict`, and takes over where a stream is asked for."""

    @functools.wraps(command)
    def run(stream_source: str | None, **given: Any) -> None:
        from kvideo.errors import UsageError

        names = ("every", "on_change", "horizon", "timeout", "reconnect", "realtime", "keep_all")
        values = {name: given.pop(name) for name in names}
        # By identity: no attempts to reconnect (0) are something else than no such option.
        options = {
            n: value for n, value in values.items() if value is not None and value is not False
        }
        if stream_source is None:
            if options:
                option = next(iter(options)).replace("_", "-")
                raise UsageError(f"--{option} is a stream's; give --stream as well.")
            if not given["files"]:
                raise _missing_files()
            command(**given)
            return
        if given["files"]:
            raise UsageError("give files or a --stream, not both.")
        for name, option in _OF_FILES.items():
            if given.get(name):
                raise UsageError(f"{option} is for files; a stream does without.")
        _follow(given["model"], stream_source, given["top"], given["precision"], **options)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


def _missing_files() -> click.MissingParameter:
    """What click says of a required argument, which FILES are only without a stream."""
    return click.MissingParameter(
        "Name the video files to label, or a --stream to follow.",
        click.get_current_context(),
        param_hint="'FILES...'",
        param_type="argument",
    )


def _follow(
    model: str,
    source: str,
    top: int,
    precision: str,
    *,
    every: int = 1,
    on_change: bool = False,
    horizon: float | None = None,
    **of_source: Any,
) -> None:
    from kvideo.cli.startup import import_quietly
    from kvideo.data.live import LiveSource
    from kvideo.data.remote import open_remote
    from kvideo.progress import Progress
    from kvideo.saving import model_file, read_info
    from kvideo.text import plural

    # On a terminal that shows the outputs, a line that is drawn anew would stand between them.
    shown = sys.stdout.isatty()

    def say(line: str) -> None:
        if shown:
            click.echo(f"Note: {line}", err=True)
        else:
            progress.write(f"Note: {line}")

    spec = read_info(model_file(model)).clip_spec
    live = LiveSource(source, spec, opener=open_remote, say=say, **of_source)
    import_quietly()
    import kvideo

    stream = kvideo.stream(model, every=every, horizon=horizon, precision=precision)
    best, begun = None, time.monotonic()
    with live, _stopped_by_signals(live), contextlib.suppress(BrokenPipeError):
        with Progress(None, "following", unit="frame", quiet=shown) as progress:
            for moment, probabilities in stream.follow(live):
                figures = {"dropped": live.dropped, "reconnects": live.reconnects}
                progress.update(live.frames - progress.done, **figures)
                if on_change and best == (best := int(probabilities.argmax())):
                    continue
                _print_line(moment, probabilities, stream.class_names, top, live.dropped)
            progress.update(live.frames - progress.done, dropped=live.dropped)
    if shown:
        seconds = max(time.monotonic() - begun, 1e-3)
        click.echo(
            f"{plural(live.frames, 'frame')} in {seconds:.1f} s ({live.frames / seconds:.1f} "
            f"frames/s), dropped {live.dropped}, reconnects {live.reconnects}",
            err=True,
        )


def _print_line(
    moment: float, probabilities: Any, class_names: tuple[str, ...], top: int, dropped: int
) -> None:
    from kvideo.prediction import Prediction

    ranked = Prediction("", class_names, probabilities).top(top)
    document = {
        "time": round(moment, 3),
        "label": ranked[0][0],
        "probability": ranked[0][1],
        "top": [{"label": name, "probability": value} for name, value in ranked],
        "dropped": dropped,
    }
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more. Python would complain once again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextlib.contextmanager
def _stopped_by_signals(live: LiveSource) -> Iterator[None]:
    """SIGINT and SIGTERM end the stream; a second one ends the program as usual."""
    before: dict[int, Any] = {}

    def stop(number: int, _: Any) -> None:
        live.stop()
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread
        pass
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
