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
    _check_order(model, video, "VIDEO")
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
    if out is not None:
        write_activation_video(out, found, get_decoder(decoder))
        click.echo(f"Wrote {out}", err=True)
    if timeline is not None:
        write_bytes_atomic(timeline, activation_png(found))
        click.echo(f"Wrote {timeline}", err=True)
    if as_json:
        print_json(found.to_json())
    else:
        times, strength, _ = found.curve()
        click.echo(
            f"{video}: {found.label} {found.probabilities.mean():.1%}; most speaks for it at "
            f"{times[strength.argmax()]:.2f} s."
        )


@visualize.command()
@click.argument("model")
@click.option("--class", "class_name", metavar="NAME", help="What is sought.")
@click.option("--unit", metavar="LAYER:NUMBER", help="A channel of a layer, rather than a class.")
@click.option("--steps", type=int, help="Of gradient ascent.  [default: 200]")
@click.option(
    "--smoothness", type=float, help="Weight of differences between pixels.  [default: 30]"
)
@click.option(
    "--temporal-smoothness",
    type=float,
    help="Weight of differences between frames: 0 shows fast motion, 10 slow motion.  [default: 0]",
)
@click.option("--jitter", type=int, help="Pixels by which the clip is moved.  [default: 4]")
@click.option("--scales", type=int, help="Sizes that the clip is the sum of.  [default: 4]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option(
    "-o", "--out", metavar="STEM", help="For STEM.mp4 and STEM.png.  [default: CLASS-maximized]"
)
@json_option
def maximize(
    model: str,
    class_name: str | None,
    unit: str | None,
    out: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find the clip that MODEL takes most for a class: activation maximization.

    Of a model of pictures and optical flow both are found: STEM-rgb and STEM-flow. The same seed
    gives the same clip.
    """
    from kvideo.errors import UsageError
    from kvideo.files import check_file_target, write_bytes_atomic

    if class_name is None and unit is None:
        raise click.UsageError("say --class NAME or --unit LAYER:NUMBER.")
    if class_name is not None and unit is not None:
        raise click.UsageError("say either --class or --unit, not both.")
    network, info = _load(model, "clips are sought for")
    from kvideo.progress import Progress
    from kvideo.visualization.maximize import LOGITS, MaximizeSettings
    from kvideo.visualization.maximize import maximize as run
    from kvideo.visualization.sheets import png_of, row_of_frames, write_film

    if class_name is not None:
        layer, number, name = LOGITS, _class_number(info.class_names, class_name), class_name
    else:
        layer, _, digits = str(unit).rpartition(":")
        if not layer or not digits.isdecimal():
            raise UsageError(f"a unit is LAYER:NUMBER, such as conv1:3, not {unit}.")
        number, name = int(digits), f"{layer}-{digits}"
    stem = out or f"{name.replace('/', '-')}-maximized"
    if stem.lower().endswith((".mp4", ".png")):
        stem = stem[:-4]
    check_file_target(f"{stem}.png")
    given = {key: value for key, value in settings.items() if value is not None}
    how = MaximizeSettings(**given)
    with Progress(how.steps, "seeking", unit="step") as progress:
        found = run(network, number, layer, how, on_step=progress.update)
    pictures = found.pictures()
    for kind, clip in pictures.items():
        target = stem if len(pictures) == 1 else f"{stem}-{kind}"
        write_bytes_atomic(f"{target}.png", png_of(row_of_frames(clip)))
        write_film(f"{target}.mp4", clip, info.clip_spec.frame_rate)
        click.echo(f"Wrote {target}.png and {target}.mp4", err=True)
    if as_json:
        print_json({"unit": name, "before": found.before, "after": found.after})
    else:
        click.echo(f"{name}: activation {found.before:.2f} at first, {found.after:.2f} now.")


@visualize.command()
@click.argument("model")
@click.argument("video")
@click.option(
    "--point",
    default="0.5,0.5,0.5",
    show_default=True,
    metavar="T,Y,X",
    help="Moment and place from which it looks, as shares of the clip.",
)
@click.option(
    "--at", type=float, metavar="SECONDS", help="The clip's middle.  [default: the video's]"
)
@click.option("--layer", help="A non-local block.  [default: the last one]")
@click.option("-o", "--out", default="attention.png", show_default=True, metavar="FILE")
@decoder_option
@json_option
def attention(
    model: str,
    video: str,
    point: str,
    at: float | None,
    layer: str | None,
    out: str,
    decoder: str,
    as_json: bool,
) -> None:
    """Show where a non-local block of MODEL looks from a point of VIDEO.

    The picture shows frames of the clip, and the same with what is looked at; a cross marks the
    point.
    """
    from kvideo.errors import UsageError
    from kvideo.files import check_file_target, write_bytes_atomic

    try:
        shares = tuple(float(share) for share in point.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3:
        raise UsageError(f"the point is T,Y,X, such as 0.5,0.5,0.5, not {point}.")
    if not out.lower().endswith(".png"):
        raise UsageError(f"attention is written as .png, not as {out}.")
    check_file_target(out)
    _check_order(model, video, "VIDEO")
    network, info = _load(model, "attention is shown of")
    from kvideo.data.pipeline import clip_reader
    from kvideo.visualization.attention import attention_of, attention_picture, clip_around
    from kvideo.visualization.sheets import png_of

    clip = clip_around(clip_reader(info.clip_spec, decoder), video, at)
    found = attention_of(network, clip, (shares[0], shares[1], shares[2]), layer)
    write_bytes_atomic(out, png_of(attention_picture(found, clip)))
    click.echo(f"Wrote {out}", err=True)
    if as_json:
        print_json(
            {"layer": found.layer, "position": found.position, "weights": found.weights.tolist()}
        )


@visualize.command()
@click.argument("model")
@click.argument("data")
@click.option("--layer", default="features", show_default=True, help="Whose output is mapped.")
@click.option("--root", metavar="DIR", help="Folder that a list's paths are relative to.")
@click.option("--split", default="all", show_default=True, help="Which part of DATA.")
@click.option(
    "--clips",
    "num_clips",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Clips of each video, whose mean is mapped.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of t-SNE.")
@click.option("-o", "--out", default="map.html", show_default=True, metavar="FILE")
@decoder_option
def embed(
    model: str,
    data: str,
    layer: str,
    root: str | None,
    split: str,
    num_clips: int,
    seed: int,
    out: str,
    decoder: str,
) -> None:
    """Make a map of DATA: videos that MODEL finds alike lie beside each other.

    The page has thumbnails, needs no network and no script. Features are kept beside the model, as
    `kvideo features` keeps them.
    """
    from kvideo.errors import UsageError
    from kvideo.files import check_file_target, write_text_atomic

    if not out.lower().endswith((".html", ".htm")):
        raise UsageError(f"the map is written as .html, not as {out}.")
    check_file_target(out)
    _check_order(model, data, "DATA")
    network, info = _load(model, "features are mapped of")
    import kvideo
    from kvideo.visualization.mapping import video_map

    found = kvideo.features(
        model, data, layer=layer, root=root, split=split, num_clips=num_clips, decoder=decoder
    )
    page = video_map(
        found,
        info,
        title=f"{Path(data).name or data}, as {network.name} sees it",
        seed=seed,
        layer=layer,
        decoder=decoder,
    )
    write_text_atomic(Path(out), page)
    for failed in found.failures:
        click.echo(f"Warning: not on the map: {failed.path}: {failed.error}", err=True)
    click.echo(f"Wrote {out}", err=True)


@visualize.command()
@click.argument("data")
@click.argument("models", nargs=-1, required=True)
@click.option("--root", metavar="DIR", help="Folder that a list's paths are relative to.")
@click.option("--split", help="Which part of DATA.  [default: test, or else val]")
@click.option(
    "--most",
    type=click.IntRange(1, 200),
    default=8,
    show_default=True,
    help="Frames of shift, both ways.",
)
@click.option("-o", "--out", default="shift.png", show_default=True, metavar="FILE")
@decoder_option
@json_option
def shift(
    data: str,
    models: tuple[str, ...],
    root: str | None,
    split: str | None,
    most: int,
    out: str,
    decoder: str,
    as_json: bool,
) -> None:
    """Test MODELS on the clips of DATA moved in time: what is lost tells them apart.

    A 3D convolution looks for the same at all times, early fusion for something else at each.
    """
    from kvideo.choosing import is_model, short_names
    from kvideo.errors import UsageError
    from kvideo.files import check_file_target, write_bytes_atomic

    if not out.lower().endswith(".png"):
        raise UsageError(f"the picture is written as .png, not as {out}.")
    check_file_target(out)
    if is_model(data):
        raise UsageError(f"{data} is a model: DATA comes first, and the models behind it.")
    loaded = [_load(model, "what is tested is") for model in models]
    from kvideo.data.held_out import TEST_PARTS, read_held_out
    from kvideo.data.pipeline import clip_reader
    from kvideo.progress import Progress
    from kvideo.visualization.shift import shift_test
    from kvideo.visualization.shift_plot import shift_png

    found = []
    for name, (network, info) in zip(short_names(models), loaded, strict=True):
        videos = read_held_out(
            data, prefer=TEST_PARTS, class_names=info.class_names, multi_label=info.multi_label,
            root=root, split=split,
        )  # fmt: skip
        reader = clip_reader(info.clip_spec, decoder)
        with Progress(len(videos.records), f"testing {name}", unit="video") as progress:
            found.append(
                shift_test(
                    network, name, videos, reader, range(-most, most + 1), on_video=progress.update
                )
            )
    write_bytes_atomic(out, shift_png(found))
    click.echo(f"Wrote {out}", err=True)
    if as_json:
        print_json([test.to_json() for test in found])
        return
    width = max(len(test.name) for test in found)
    for test in found:
        middle, least = test.accuracy[len(test.accuracy) // 2], test.accuracy.min()
        worst = f"{least:.1%} at its worst ({test.shifts[test.accuracy.argmin()]:+d} frames)"
        click.echo(
            f"{test.name:<{width}}  {middle:.1%} unmoved, "
            + (worst if least < middle else "and no less when moved")
        )


def _check_order(model: str, data: str, word: str) -> None:
    from kvideo.choosing import is_model
    from kvideo.errors import UsageError

    if is_model(data) and not is_model(model):
        raise UsageError(f"{data} is a model: MODEL comes first, and {word} behind it.")


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
