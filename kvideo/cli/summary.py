"""`kvideo summary`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kvideo.cli.options import CLIP_SHAPE, KEY_VALUE, json_option, print_json

_ENDINGS = (".csv", ".json", ".md")


@click.command()
@click.argument("model")
@click.option(
    "--input-shape",
    type=CLIP_SHAPE,
    help="Frames, height and width of a clip (and channels, if not 3).  [default: the model's]",
)
@click.option(
    "--set",
    "options",
    multiple=True,
    type=KEY_VALUE,
    metavar="NAME=VALUE",
    help="A further argument of the model, such as backbone=resnet50.",
)
@click.option(
    "--classes", type=click.IntRange(1), help="Of a model's name, not of a file.  [default: 400]"
)
@click.option(
    "--all",
    "all_layers",
    is_flag=True,
    help="Also layers that neither compute nor widen the view: activations, batch norms.",
)
@click.option(
    "-o",
    "--out",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Write it as .csv, .json or .md (Markdown).",
)
@json_option
def summary(
    model: str,
    input_shape: tuple[int, ...] | None,
    options: Sequence[tuple[str, Any]],
    classes: int | None,
    all_layers: bool,
    outputs: Sequence[str],
    as_json: bool,
) -> None:
    """Show MODEL layer by layer: sizes, parameters, multiply-adds, receptive fields.

    MODEL is a name, a .keras file (also one of Keras's own) or a run's folder. The receptive field
    is T×H×W, frames and pixels of the clip that one value depends on, also beyond the clip's edges;
    "begins at" is where that of the first value begins, below 0 in the padding.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.errors import UsageError
    from kvideo.files import check_target, write_text_atomic
    from kvideo.results import json_text
    from kvideo.summarizing import summary as run

    for file in outputs:
        if Path(file).suffix.lower() not in _ENDINGS:
            raise UsageError(f"a summary is written as .csv, .json or .md, not as {file}.")
        check_target(file)
    import_quietly()
    with contextlib.nullcontext() if options else _without_values(model):
        found = run(model, input_shape=input_shape, options=dict(options), num_classes=classes)
    for file in outputs:
        kind = Path(file).suffix.lower()
        if kind == ".csv":
            text = found.to_csv()
        else:
            text = json_text(found.to_json()) if kind == ".json" else found.to_markdown(all_layers)
        write_text_atomic(Path(file), text)
        click.echo(f"Wrote {file}", err=True)
    if as_json:
        print_json(found.to_json())
    elif not outputs:
        click.echo(found.to_text(all_layers))


def _without_values(model: str) -> contextlib.AbstractContextManager[Any]:
    """A scope in which the weights of kvideo's own models get no values.

    A summary needs none, and to draw those of a SlowFast-R101 takes longer than all the rest. Keras
    would fill them in later, before it builds another model; here the process ends first.
    """
    import keras

    from kvideo.registry import MODELS, entries

    entry = entries(MODELS).get(model)
    if entry is None or not entry.builtin:
        return contextlib.nullcontext()
    return keras.StatelessScope(initialize_variables=False)
