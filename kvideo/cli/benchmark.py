"""`kvideo benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import KEY_VALUE, json_option, print_json

if TYPE_CHECKING:
    from kvideo.benchmarking import BenchmarkResult, PhaseResult


class _ClipShape(click.ParamType):
    name = "TxHxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sides = str(value).lower().replace(",", "x").split("x")
        if len(sides) not in (3, 4) or not all(side.strip().isdecimal() for side in sides):
            self.fail(f"{value!r} is not FRAMESxHEIGHTxWIDTH, such as 32x224x224.", param, ctx)
        numbers = tuple(int(side) for side in sides)
        return numbers if len(numbers) == 4 else (*numbers, 3)


@click.group()
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
    type=_ClipShape(),
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
