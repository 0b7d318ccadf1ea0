"""`kvideo export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import json_option, print_json

if TYPE_CHECKING:
    from kvideo.exporting import ExportResult

# As `kvideo.exporting.FORMATS` and `DYNAMIC`, which are not imported for `--help`; tested.
FORMATS = ("saved_model", "onnx", "litert")
DYNAMIC = "dynamic"


class _Batch(click.ParamType):
    name = f"N|{DYNAMIC}"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value == DYNAMIC or (isinstance(value, int) and value > 0):
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f'{value!r} is neither a number of clips nor "{DYNAMIC}".', param, ctx)
        return int(value)


@click.command()
@click.argument("model")
@click.option(
    "--out",
    required=True,
    metavar="PATH",
    help="A folder for a SavedModel, or a file that ends in .onnx or .tflite.",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="What to write.  [default: what the ending of --out says]",
)
@click.option(
    "-b",
    "--batch",
    type=_Batch(),
    help=f"Clips at once.  [default: {DYNAMIC}, any number; for LiteRT 1]",
)
@click.option(
    "--tolerance",
    default=1e-3,
    show_default=True,
    type=click.FloatRange(0),
    help="The largest difference from the Keras model, as a share of the largest logit.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@json_option
def export(
    model: str,
    out: str,
    format: str | None,
    batch: int | str | None,
    tolerance: float,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write MODEL, a .keras file or a run's folder, for other programs.

    The result takes clips (RGB 0..255; optical flow in pixels per frame) and gives probabilities.
    It is loaded again and compared with the Keras model; if it differs, nothing is left and the
    exit status is 1. Class names and clip settings are written beside it.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.exporting import export as run
    from kvideo.exporting.formats import choose_format
    from kvideo.saving import model_file, read_info

    choose_format(format, out)
    read_info(model_file(model))
    import_quietly()
    with _native_messages_dropped():
        result = run(
            model,
            out,
            format,
            batch=batch,
            tolerance=tolerance,
            overwrite=overwrite,
            verbose=True,
        )
    if as_json:
        print_json(result.to_json())
    else:
        _show(result)


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """The converters' C++ code writes pages to the process's standard error; Python's is kept."""
    python, kept = sys.stderr, os.dup(2)
    python.flush()
    with open(os.devnull, "w") as nothing, open(kept, "w", errors="replace") as still_shown:
        os.dup2(nothing.fileno(), 2)
        if python is sys.__stderr__:
            sys.stderr = still_shown
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stderr = python
            os.dup2(kept, 2)


def _show(result: ExportResult) -> None:
    rows = {"size": f"{result.num_bytes / 1e6:.1f} MB"}
    for number, tensor in enumerate(result.inputs, 1):
        rows["input" if len(result.inputs) == 1 else f"input {number}"] = _describe(tensor)
    rows |= {
        "output": _describe(result.output),
        "difference": f"at most {result.max_difference:.1e} from the Keras model "
        f"({result.allowed_difference:.1e} is allowed)",
        "class names": result.labels,
        "clip settings": result.info,
    }
    click.echo(result.path)
    for name, text in rows.items():
        click.echo(f"  {name:13}  {text}")


def _describe(tensor: dict[str, Any]) -> str:
    sizes = "×".join("N" if size is None else str(size) for size in tensor["shape"])
    return f"{tensor['name']}  {sizes} {tensor['dtype']}"
