"""`kvideo shard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import (
    json_option,
    print_json,
    root_option,
    short_side_option,
    workers_option,
)

if TYPE_CHECKING:
    from kvideo.data.shards.writing import ShardReport


class _Part(click.ParamType):
    name = "I/N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        try:
            part, count = (int(number) for number in str(value).split("/"))
        except ValueError:
            self.fail(f"{value!r} is not of the form 3/8.", param, ctx)
        if not 1 <= part <= count:
            self.fail(f"{value!r} is not between 1/{count} and {count}/{count}.", param, ctx)
        return part, count


@click.command()
@click.argument("data")
@click.argument("out")
@root_option
@click.option("--split", help="Store this part only.  [default: train, val and test]")
@click.option(
    "--per-frame", is_flag=True, help="Keep labels over time, for models with output=frames."
)
@short_side_option
@click.option(
    "--frame-rate", type=float, help="Stored frames per second.  [default: the video's own]"
)
@click.option(
    "--quality", default=90, show_default=True, type=click.IntRange(1, 100), help="Of JPEG."
)
@click.option(
    "--num-shards", type=click.IntRange(1), help="Files of each part.  [default: by their size]"
)
@click.option(
    "--videos-per-shard",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Videos in a file.",
)
@click.option("--seed", default=0, show_default=True, help="Of the videos' order.")
@click.option(
    "--part",
    type=_Part(),
    help="Make one share of the files, such as 3/8: for job arrays.",
)
@click.option("--ray", is_flag=True, help="Make the files as tasks of a Ray cluster.")
@workers_option
@click.option("--overwrite", is_flag=True, help="Remove shards of other data or settings.")
@click.option("--strict", is_flag=True, help="Stop at the first video that fails.")
@json_option
def shard(
    data: str,
    out: str,
    root: str | None,
    split: str | None,
    per_frame: bool,
    part: tuple[int, int] | None,
    ray: bool,
    workers: int | None,
    overwrite: bool,
    strict: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Store the videos of DATA as JPEG frames in TFRecord files in the folder OUT.

    Every command takes OUT as DATA then. OUT may be a URL that TensorFlow writes to (gs://…). What
    is there already is not made again: the same command goes on where it was interrupted.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.data.shards.plan import ShardSettings, plan_shards
    from kvideo.errors import UsageError
    from kvideo.progress import Progress

    if ray and part is not None:
        raise UsageError("--ray shares out the files itself; give it without --part.")
    made = ShardSettings(**settings)
    plan = plan_shards(data, made, root=root, split=split, per_frame=per_frame)
    for note in dict.fromkeys(note for videos in plan.videos.values() for note in videos.notes):
        click.echo(f"Note: {note}", err=True)
    import_quietly()
    from kvideo.data.shards.writing import prepare, write_shards

    folder = prepare(plan, out, overwrite=overwrite)
    shards = plan.shards if part is None else plan.share(*part)
    total = sum(len(each.records) for each in shards)
    with Progress(total, "storing", unit="video") as progress:
        if ray:
            from kvideo.data.shards.ray_tasks import write_with_ray

            report = write_with_ray(
                plan, folder, workers=workers, on_video=progress.update, strict=strict
            )
        else:
            report = write_shards(
                shards, plan, folder, workers=workers, on_video=progress.update, strict=strict
            )
    if summary := report.failures.summary():
        click.echo(summary, err=True)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(_summary(report, out))


def _summary(report: ShardReport, out: str) -> str:
    from kvideo.text import plural

    size = report.num_bytes / 1e6
    line = f"{plural(report.videos, 'video')}, {size:,.1f} MB, in {out}: "
    line += f"{plural(report.made, 'file')} made"
    if report.kept:
        line += f", {report.kept:,} there already"
    if report.waiting:
        return (
            f"{line}. {plural(report.waiting, 'file')} of other parts to come; the index is "
            "written when all are there."
        )
    return f"{line}. Use it as DATA: kvideo fit {out}"
