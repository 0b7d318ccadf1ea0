"""`kvideo convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import KEY_VALUE, SIZE, json_option, print_json

if TYPE_CHECKING:
    from kvideo.conversion import ConversionResult


@click.command()
@click.argument("checkpoint")
@click.option("-m", "--model", required=True, help="A model's name; `kvideo models` lists them.")
@click.option("-o", "--out", required=True, metavar="FILE", help="The .keras file to make.")
@click.option("--overwrite", is_flag=True, help="Replace that file.")
@click.option(
    "--labels",
    metavar="FILE|NAME",
    help="Class names, one a line; or kinetics400, or sports1m.  [default: those of the data set "
    "that the model is published for]",
)
@click.option(
    "--num-classes",
    type=click.IntRange(1),
    help="If not as many as the checkpoint has; then the last layer is fresh.",
)
@click.option(
    "--set",
    "--option",
    "options",
    multiple=True,
    type=KEY_VALUE,
    metavar="NAME=VALUE",
    help="A further argument of the model, such as depth=101.",
)
@click.option("--frames", "num_frames", type=int, help="Frames in a clip.")
@click.option("--frame-rate", type=float, help="Frames per second of the clip.")
@click.option("--size", type=SIZE, help="The clip's height and width in pixels.")
@click.option("--mean-cube", metavar="FILE", help="For c3d: Sports-1M's mean clip, a .npy file.")
@click.option("--multi-label", is_flag=True, help="A video may have several labels.")
@json_option
def convert(checkpoint: str, options: Any, as_json: bool, **arguments: Any) -> None:
    """Make a model file of published weights.

    CHECKPOINT is a file of PyTorchVideo, PySlowFast, torchvision, pytorch-i3d or mmaction2 (.pyth,
    .pth, .pt), a TensorFlow checkpoint of DeepMind's I3D, a Keras .h5 or .keras file, or the name
    of published weights, such as kinetics400, which are downloaded.

    Nothing in CHECKPOINT is run. If it does not fit the model, a table says what does not, the exit
    status is 1, and no file is written.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.conversion import convert as run
    from kvideo.registry import MODELS, find

    find(MODELS, arguments["model"])
    import_quietly()
    result = run(checkpoint, options=dict(options), **arguments)
    for remark in result.remarks:
        click.echo(remark, err=True)
    if as_json:
        print_json(result.to_json())
    else:
        _show(result)


def _show(result: ConversionResult) -> None:
    spec = result.info.clip_spec
    rows = {
        "weights": f"{result.dialect}, {result.tensors} tensors" if result.tensors else "Keras",
        "classes": f"{len(result.info.class_names)} ({result.labels or 'names unknown'})",
        "clip": f"{spec.num_frames} frames at {spec.frame_rate:g}/s, {spec.size[0]}×{spec.size[1]}",
        "views": f"{result.info.views.num_clips} clips × {result.info.views.num_crops} crops",
    }
    click.echo(result.path)
    for name, value in rows.items():
        click.echo(f"  {name:8} {value}")
