"""`kvideo visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvideo.cli.options import decoder_option, json_option, precision_option, print_json

if TYPE_CHECKING:
    from kvideo.saving import ModelInfo


@click.group()
def visualize() -> None:
    """Show what a model learned, and what it looks at."""


@visualize.command()
@click.argument("model")
@click.option("--layer", help="One of the first convolutions.  [default: all of them]")
@click.option(
    "--out-dir",
    default="filters",
    show_default=True,
    metavar="DIR",
    help="For LAYER.png, a strip for each kernel, and LAYER.gif, in which they move.",
)
def filters(model: str, layer: str | None, out_dir: str) -> None:
    """Show the kernels of MODEL's first layers as small clips.

    MODEL is a .keras file or a run's folder. Grey is no weight; kernels over optical flow are
    coloured as flow is.
    """
    from kvideo.files import check_writable, make_folder, write_bytes_atomic

    check_writable(out_dir)
    network, _ = _load(model, "filters are shown of")
    from kvideo.visualization import first_filters

    found = first_filters(network, layer)
    folder = make_folder(out_dir)
    for each in found:
        stem = folder / each.layer.replace("/", "-")
        for path, data in ((f"{stem}.png", each.png()), (f"{stem}.gif", each.gif())):
            write_bytes_atomic(path, data)
            click.echo(f"Wrote {path}", err=True)


@visualize.command()
@click.argument("model")
@click.argument("video")
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="What speaks for it is shown.  [default: what the video most probably shows]",
)
@click.option(
    "--layer", default="feature_map", show_default=True, help="Whose map is weighted (5D)."
)
@click.option("-o", "--out", metavar="FILE", help="The video with the activation over it, .mp4.")
@click.option("--timeline", metavar="FILE", help="When something speaks for the class, .png.")
@precision_option
@decoder_option
@json_option
def cam(
    model: str,
    video: str,
    class_name: str | None,
    layer: str,
    out: str | None,
    timeline: str | None,
    precision: str,
    decoder: str,
    as_json: bool,
) -> None:
    """Show which places and moments of VIDEO speak for a class: Grad-CAM over space and time.

    Without -o or --timeline the film goes to NAME-cam.mp4 and the picture to NAME-cam.png.
    """
    from kvideo.data.encoding import check_film_target
    from kvideo.errors import UsageError
    from kvideo.files import check_target, write_bytes_atomic

    if out is None and timeline is None:
        stem = Path(video).stem
        out, timeline = f"{stem}-cam.mp4", f"{stem}-cam.png"
    if out is not None:
        check_film_target(out, video)
        check_target(out)
    if timeline is not None:
        if not timeline.lower().endswith(".png"):
            raise UsageError(f"a timeline is written as .png, not as {timeline}.")
        check_target(timeline)
    network, info = _load(model, "what a video speaks for is asked of", precision)
    from kvideo.data.pipeline import clip_reader
    from kvideo.progress import Progress
    from kvideo.registry import get_decoder
    from kvideo.visualization import class_activation, write_activation_video
    from kvideo.visualization.cam_plot import activation_png

    label = None if class_name is None else _class_number(info.class_names, class_name)
    with Progress(None, "looking", unit="clip") as progress:
        found = class_activation(
            network, video, clip_reader(info.clip_spec, decoder), info.class_names,
            label=label, layer=layer, on_clips=progress.update,
        )  # fmt: skip
    if timeline is not None:
        write_bytes_atomic(timeline, activation_png(found))
        click.echo(f"Wrote {timeline}", err=True)
    if out is not None:
        write_activation_video(out, found, get_decoder(decoder))
        click.echo(f"Wrote {out}", err=True)
    if as_json:
        print_json(found.to_json())
    else:
        times, strength = found.curve()
        click.echo(
            f"{video}: {found.label} {found.probabilities.mean():.1%}; most speaks for it at "
            f"{times[strength.argmax()]:.2f} s."
        )


def _load(model: str, what: str, precision: str = "float32") -> tuple[Any, ModelInfo]:
    """A classifier and what is known of it; wrong files are refused before TensorFlow comes."""
    from kvideo.cli.startup import import_quietly
    from kvideo.saving import check_single, load_model, model_file, read_info

    file = model_file(model)
    info = read_info(file)
    check_single(info, what)
    import_quietly()
    from kvideo.hardware import choose_precision

    return load_model(file, precision=choose_precision(precision)), info


def _class_number(names: tuple[str, ...], name: str) -> int:
    """The number of a class by name.

    Raises:
        UnknownNameError: there is none; the message suggests a near one.
    """
    import difflib

    from kvideo.errors import UnknownNameError
    from kvideo.text import enumerate_words

    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"It knows {enumerate_words(list(names), 8)}."
    raise UnknownNameError(f'the model has no class "{name}". {hint}')
