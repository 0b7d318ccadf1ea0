"""`kvideo flow`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import json_option, print_json, root_option, short_side_option

if TYPE_CHECKING:
    from kvideo.data.flow_cache import CachedVideo, FlowCache

_MOST_NAMED = 10


@click.command()
@click.argument("data")
@root_option
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    help="Folder of the flow.  [default: flow in $KVIDEO_CACHE or ~/.cache/kvideo]",
)
@click.option(
    "--method", default="dis", show_default=True, help='"dis", "farneback" or "tvl1" (slow).'
)
@click.option(
    "--preset", default="medium", show_default=True, help='Of dis: "ultrafast", "fast", "medium".'
)
@click.option(
    "--frame-rate", type=float, help="Frames per second.  [default: every frame of the video]"
)
@short_side_option
@click.option(
    "--store",
    default="jpeg",
    show_default=True,
    help='"jpeg": 8 bits, cut off at --limit; "float16": thirty times larger.',
)
@click.option(
    "--limit", default=20.0, show_default=True, help="Of jpeg: longest dx and dy, pixels per frame."
)
@click.option(
    "--compensate", is_flag=True, help="Subtract each frame's mean, mostly the camera's motion."
)
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one a processor]")
@click.option(
    "--show",
    metavar="FILE",
    help="Of a single video: also write the frames and their flow in colours, as .mp4 or .png.",
)
@json_option
@click.pass_context
def flow(
    context: click.Context,
    data: str,
    root: str | None,
    out: str | None,
    workers: int | None,
    show: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compute the optical flow of each video of DATA, and keep it.

    DATA is what `kvideo fit` takes, or any folder with videos at any depth, or one video. What is
    there already, from the same content and settings, is not computed again; a run that was
    interrupted goes on with the video it was at. Exit status: 1 if a video could not be used.
    """
    from kvideo.data.check import videos_to_check
    from kvideo.data.flow_cache import FlowCache, cache_flow
    from kvideo.data.threads import default_workers
    from kvideo.errors import UsageError
    from kvideo.files import check_target
    from kvideo.flow import FlowSettings
    from kvideo.flow.movies import check_ending
    from kvideo.progress import Progress

    made = FlowSettings(**settings)
    if show is not None:
        check_ending(show)
        check_target(show)
    paths = list(dict.fromkeys(videos_to_check(data, root=root).paths))
    if show is not None and len(paths) > 1:
        raise UsageError(f"--show is for a single video; {data} holds {len(paths):,}.")
    if show is not None and paths and os.path.realpath(show) == os.path.realpath(paths[0]):
        raise UsageError(f"--show {show} is the video itself; name another file.")
    opener = None
    if any("://" in path for path in paths):
        from kvideo.data.remote import open_remote

        opener = open_remote
    cache = FlowCache(made, out, workers=workers or default_workers(), opener=opener)
    started, videos = time.perf_counter(), []
    with Progress(len(paths), "flow", unit="video") as progress:
        flows = 0

        def on_flow(seconds: float) -> None:
            nonlocal flows
            flows += 1
            progress.update(0, flows=flows)

        for video in cache_flow(paths, cache, on_flow):
            videos.append(video)
            progress.update()
    seconds = time.perf_counter() - started
    if show is not None and videos[0].file:
        _show(show, paths[0], cache)
    if as_json:
        print_json(_document(videos, cache))
    else:
        click.echo(_summary(videos, cache, seconds))
        if show is not None and videos[0].file:
            click.echo(f"Wrote {show}", err=True)
    failed = [video for video in videos if video.error]
    _name_failures(failed)
    context.exit(1 if failed else 0)


def _document(videos: list[CachedVideo], cache: FlowCache) -> dict[str, Any]:
    import dataclasses

    return {
        "folder": str(cache.folder),
        "settings": dataclasses.asdict(cache.settings),
        "num_bytes": sum(video.num_bytes for video in videos),
        "videos": [video.to_json() for video in videos],
    }


def _summary(videos: list[CachedVideo], cache: FlowCache, seconds: float) -> str:
    from kvideo.text import plural

    found = [video for video in videos if video.file]
    new = [video for video in found if video.computed]
    flows, size = sum(v.num_flows for v in found), sum(v.num_bytes for v in found)
    line = f"{plural(len(found), 'video')}, {plural(flows, 'flow')}, {_bytes(size)}"
    if flows:
        line += f" ({_bytes(size / flows)} each)"
    lines = [f"{line}, in {cache.folder}"]
    if cuts := sum(video.num_cuts for video in found):
        lines.append(f"{plural(cuts, 'cut')}, where the flow is zero.")
    if len(new) < len(found):
        lines.append(f"There already: {plural(len(found) - len(new), 'video')}.")
    if computed := sum(video.num_flows for video in new):
        lines.append(f"Computed {computed / max(seconds, 1e-9):,.0f} flows a second.")
    return "\n".join(lines)


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def _name_failures(failed: list[CachedVideo]) -> None:
    from kvideo.text import plural, printable

    if failed:
        click.echo(f"{plural(len(failed), 'video')} could not be used:", err=True)
    for video in failed[:_MOST_NAMED]:
        click.echo(f"  {printable(str(video.error))}", err=True)
    if len(failed) > _MOST_NAMED:
        click.echo(f"  … and {len(failed) - _MOST_NAMED:,} more; --json names all.", err=True)


def _show(show: str, path: str, cache: FlowCache) -> None:
    from kvideo.data.decode import open_video
    from kvideo.flow.movies import (
        check_ending,
        longest_vector,
        sheet_places,
        write_film,
        write_sheet,
    )

    with cache.of(path) as track, open_video(path) as reader:
        places = list(sheet_places(len(track)))
        flows = [track[place] for place in places]
        longest = longest_vector(flows)
        if check_ending(show) == ".png":
            frames = reader.read(track.times[places], size=track.size)
            write_sheet(show, list(zip(frames, flows, strict=True)), longest)
            return
        rate = cache.settings.frame_rate or reader.info.frame_rate
        blocks = range(0, len(track), 32)
        write_film(
            show,
            (
                (frame, track[first + number])
                for first in blocks
                for number, frame in enumerate(
                    reader.read(track.times[first : first + 32], size=track.size)
                )
            ),
            rate,
            longest,
        )
