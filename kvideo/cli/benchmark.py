"""`kvideo benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import (
    CLIP_SHAPE,
    KEY_VALUE,
    SIZE,
    decoder_option,
    json_option,
    print_json,
    root_option,
)

if TYPE_CHECKING:
    from kvideo.benchmarking import BenchmarkResult, PhaseResult
    from kvideo.clip_spec import ClipSpec
    from kvideo.data.records import VideoSet
    from kvideo.loader_benchmark import LoaderResult

_MOST_NAMED = 10


class _Benchmarks(click.Group):
    """Names of models are not commands, but are taken for such."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            context.fail(
                f'there is no benchmark "{args[0]}". `kvideo benchmark model {args[0]}` measures a '
                f"model, `kvideo benchmark loader {args[0]}` the loading of videos."
            )
        return super().resolve_command(context, args)


@click.group(cls=_Benchmarks)
def benchmark() -> None:
    """Measure what things cost on this machine."""


@benchmark.command()
@click.argument("model")
@click.option(
    "-b",
    "--batch-size",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Clips at once.",
)
@click.option(
    "--input-shape",
    type=CLIP_SHAPE,
    help="Frames, height and width of a clip (and channels, if not 3).  [default: the model's]",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16"]),
    help="What the layers compute in.",
)
@click.option(
    "--option",
    "--set",
    "options",
    multiple=True,
    type=KEY_VALUE,
    metavar="NAME=VALUE",
    help="A further argument of the model, such as backbone=resnet50.",
)
@click.option("--only", type=click.Choice(["inference", "training"]), help="Measure nothing else.")
@click.option(
    "--classes", type=click.IntRange(1), help="Of a model's name, not of a file.  [default: 400]"
)
@click.option(
    "--repeats", default=10, show_default=True, type=click.IntRange(1), help="Timed calls."
)
@click.option(
    "--threads", type=click.IntRange(1), help="Of one operation.  [default: one a processor]"
)
@json_option
def model(
    model: str,
    batch_size: int,
    input_shape: tuple[int, ...] | None,
    precision: str,
    options: Sequence[tuple[str, Any]],
    only: str | None,
    classes: int | None,
    repeats: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure inference and a training step of MODEL, a name, a .keras file or a run's folder.

    Inference is what `kvideo predict` and `kvideo evaluate` run, the training step that of `kvideo
    fit`. Each is measured in a process of its own, with clips of noise; the median of the timed
    calls counts. Nothing else should run on the machine meanwhile.
    """
    from kvideo.benchmarking import PHASES, benchmark_model

    result = benchmark_model(
        model,
        phases=PHASES if only is None else (only,),
        batch_size=batch_size,
        input_shape=input_shape,
        precision=precision,
        options=dict(options),
        num_classes=classes,
        repeats=repeats,
        threads=threads,
        say=lambda line: click.echo(line, err=True),
    )
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(_table(result))


def _table(result: BenchmarkResult) -> str:
    frames, height, width = result.input_shape[:3]
    macs = "unknown" if result.macs is None else f"{result.macs / 1e9:,.2f} G"
    lines = [
        f"{result.model}: {frames}×{height}×{width}, {result.batch_size} at once, "
        f"{result.precision}, {result.device}, {result.threads} threads",
        f"{result.parameters:,} parameters, {macs} multiply-adds a clip; matrix products: "
        f"{result.matmul_flops / 1e9:,.0f} GFLOP/s",
    ]
    if result.disturbed:
        lines.append(f"Note: other programs were running (load {result.load:.1f}).")
    if result.macs_unknown:
        lines.append(f"Note: {result.macs_unknown}")
    row = "{:10}  {:>9}  {:>8}  {:>8}  {:>10}  {:>8}  {:>12}"
    lines += ["", row.format("", "ms", "clips/s", "build", "first call", "memory", "share of peak")]
    lines += [row.format(name, *_cells(phase)) for name, phase in result.phases.items()]
    return "\n".join(lines)


def _cells(phase: PhaseResult) -> list[str]:
    memory = "unknown" if phase.memory is None else f"{phase.memory / 2**30:.2f} GiB"
    share = "unknown" if phase.peak_share is None else f"{phase.peak_share:.0%}"
    return [
        f"{1000 * phase.median:,.1f}",
        f"{phase.clips_per_second:.2f}",
        f"{phase.build:.1f} s",
        f"{phase.first:.1f} s",
        memory,
        share,
    ]


@benchmark.command()
@click.argument("data")
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="Take its clips: a name, a .keras file or a run's folder.",
)
@click.option(
    "--frames",
    "num_frames",
    type=click.IntRange(1),
    help="Frames in a clip.  [default: the model's, or 16]",
)
@click.option(
    "--frame-rate", type=float, help="Frames per second of the clip.  [default: the model's, or 8]"
)
@click.option(
    "--size",
    type=SIZE,
    help="The clip's height and width in pixels.  [default: the model's, or 112]",
)
@click.option("--framing", help="As in `kvideo fit`.")
@click.option("--modality", help="As in `kvideo fit`.")
@root_option
@click.option("--split", help="Which part of DATA.  [default: all of it]")
@click.option(
    "-b",
    "--batch-size",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Clips in a batch.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="The most decoding threads to try.  [default: two a processor]",
)
@click.option(
    "--seconds", default=4.0, show_default=True, type=float, help="Of each measurement, about."
)
@decoder_option
@json_option
def loader(
    data: str,
    model: str | None,
    root: str | None,
    split: str | None,
    batch_size: int,
    workers: int | None,
    seconds: float,
    decoder: str,
    as_json: bool,
    **clip: Any,
) -> None:
    """Measure where the time goes when clips of DATA are loaded, and with how many threads.

    DATA is what `kvideo fit` takes, or any folder of videos, or one video. First one thread takes
    clips through every stage: reading, opening, seeking, decoding, converting, changing at random,
    batching. Then clips are loaded as `kvideo fit` does it, with more and more threads.
    """
    from kvideo.cli.startup import import_quietly

    videos = _videos(data, root, split)
    import_quietly()
    spec = _clip_spec(model, clip)
    from kvideo.data.pipeline import clip_reader
    from kvideo.loader_benchmark import benchmark_loader

    result = benchmark_loader(
        videos,
        clip_reader(spec, decoder, keep_flow=True),
        batch_size=batch_size,
        workers=workers,
        seconds=seconds,
        say=lambda line: click.echo(line, err=True),
    )
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(_loader_table(result))


def _videos(data: str, root: str | None, split: str | None) -> VideoSet:
    """The videos of DATA, whether labelled or not."""
    from kvideo.data.annotations import read_data
    from kvideo.data.check import videos_to_check
    from kvideo.data.listing import is_url
    from kvideo.data.parts import ALL
    from kvideo.data.remote import list_remote, open_remote

    if split is None and not is_url(data):
        return videos_to_check(data, root=root)
    return read_data(
        data,
        root=root,
        split=split or ALL,
        require_labels=False,
        per_frame=None,
        listdir=list_remote,
        opener=open_remote,
    )


def _clip_spec(model: str | None, asked: dict[str, Any]) -> ClipSpec:
    """The clip that was asked for, on top of the model's."""
    from kvideo.choosing import means_file
    from kvideo.clip_spec import ClipSpec, recommended_clip
    from kvideo.registry import MODELS, find
    from kvideo.saving import check_single, model_file, read_info

    asked = {name: value for name, value in asked.items() if value is not None}
    if model is None:
        return ClipSpec(**{"num_frames": 16, **asked})
    if means_file(model):
        info = read_info(model_file(model))
        check_single(info, "clips are those of")
        spec = info.clip_spec
    else:
        spec = recommended_clip(find(MODELS, model).load())
    return spec.replace(**({"short_side": None} if "size" in asked else {}), **asked)


def _loader_table(result: LoaderResult) -> str:
    from kvideo.text import plural

    spec, (height, width) = result.clip_spec, result.picture
    clip = f"{plural(spec.num_frames, 'frame')} at {spec.frame_rate:g}/s"
    lines = [
        f"{result.source}: {plural(result.num_videos, 'video')}, mostly {width}×{height}; clips of "
        f"{clip}, {spec.size[1]}×{spec.size[0]}"
    ]
    if result.failures:
        lines.append(f"Note: {len(result.failures)} of them could not be read:")
        lines += [f"  {error}" for error in result.failures[:_MOST_NAMED]]
        if len(result.failures) > _MOST_NAMED:
            lines.append("  … `kvideo check` lists them all.")
    if result.disturbed:
        lines.append(f"Note: other programs were running (load {result.load:.1f}).")
    lines += ["", f"one thread    ms/clip   share  ({result.num_clips} clips)"]
    for name, seconds in result.stages.items():
        lines.append(f"{name:11}  {1000 * seconds:8,.1f}  {seconds / result.seconds:6.0%}")
    lines += ["", "threads   clips/s  frames/s"]
    for each in result.throughput:
        mark = "  ←" if each.workers == result.workers else ""
        lines.append(
            f"{each.workers:7}  {each.clips_per_second:8,.1f}  {each.frames_per_second:8,.0f}{mark}"
        )
    return "\n".join([*lines, "", result.advice, f"Suggested: --workers {result.workers}"])
