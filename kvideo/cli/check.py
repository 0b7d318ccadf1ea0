"""`kvideo check`."""

from __future__ import annotations

import os
from typing import Any

import click

from kvideo.cli.options import json_option, print_json, root_option


@click.command()
@click.argument("data")
@root_option
@click.option(
    "-o",
    "--quarantine",
    "--out",
    "quarantine",
    metavar="FILE",
    help="Write the bad files to FILE, which `kvideo fit --quarantine FILE` leaves out.",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(0),
    help="Shorter videos are bad.  [default: those of a single frame]",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Files at a time.  [default: one a processor]"
)
@json_option
@click.pass_context
def check(
    context: click.Context,
    data: str,
    root: str | None,
    quarantine: str | None,
    min_seconds: float | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Decode every video of DATA, and list the files that cannot be used.

    DATA is what `kvideo fit` takes, or any folder with videos at any depth, or one video. Finds
    missing, empty, unreadable, cut-off, too short and duplicate files. Exit status: 0 if all are
    good, 1 if any is bad.
    """
    from kvideo.data.check import check_videos, videos_to_check, write_quarantine
    from kvideo.data.listing import is_url
    from kvideo.errors import UsageError
    from kvideo.progress import Progress

    folder = os.path.dirname(quarantine or "")
    if folder and not os.path.isdir(folder):  # told now, not after an hour of decoding
        raise UsageError(f"cannot write {quarantine}: there is no folder {folder}.")
    videos = videos_to_check(data, root=root)
    opener = None
    if any(is_url(path) for path in videos.paths):
        from kvideo.data.remote import open_remote

        opener = open_remote
    with Progress(len(videos.paths), "checking", unit="file") as progress:

        def on_progress(done: int, total: int) -> None:
            progress.total = total  # shards are checked as files, too
            progress.update()

        report = check_videos(
            videos,
            workers=workers,
            min_seconds=min_seconds,
            on_progress=on_progress,
            opener=opener,
        )
    if quarantine is not None:
        write_quarantine(quarantine, report)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if quarantine is not None:
        click.echo(f"Wrote {quarantine}", err=True)
    context.exit(1 if report.bad else 0)


def _print_report(report: Any) -> None:
    from kvideo.progress import format_duration
    from kvideo.text import plural, printable

    for reason in report.counts():
        click.echo(f"{reason.replace('_', ' ')}:")
        for video in report.bad:
            if video.reason == reason:
                click.echo(f"  {printable(video.path)}: {printable(video.detail)}")
    for note in report.notes:
        click.echo(f"note: {printable(note)}")
    good = report.num_files - len(report.bad)
    verdict = f"{plural(len(report.bad), 'file')} cannot be used" if report.bad else "all are good"
    click.echo(
        f"Checked {plural(report.num_files, 'file')}: {verdict}; "
        f"{good:,} good, {format_duration(report.seconds)} of video."
    )
