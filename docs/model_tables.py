"""Writes tables of models into pages, from the models themselves.

`<!-- fields: MODEL -->` becomes the sizes and receptive fields of a model's layers, as the lecture
has them; `<!-- costs: MODEL -->` its sizes, parameters and multiply-adds; `<!-- zoo -->` a table of
all models that kvideo itself registers.
"""

import inspect
import re

from kvideo.analysis import count_macs, count_parameters
from kvideo.registry import MODELS, entries
from kvideo.summarizing import summary
from kvideo.weights.published import PUBLISHED

MARK = re.compile(r"^<!-- (fields|costs): (\w+) -->$", re.M)
ZOO = "<!-- zoo -->"


def on_page_markdown(markdown, page, **_):
    """The hook that mkdocs calls for each page."""
    if ZOO in markdown:
        markdown = markdown.replace(ZOO, zoo())
    return MARK.sub(lambda match: table(match[1], match[2]), markdown)


def zoo():
    """A Markdown table of the built-in models: clip, views, size, cost, published weights."""
    lines = [
        "| model | what it is | clip | views | parameters | multiply-adds | published weights |",
        "| --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for name, entry in entries(MODELS).items():
        if entry.builtin:
            lines.append(_model(name, entry.load()))
    return "\n".join(lines)


def _model(name, builder):
    model, spec, views = builder(400), builder.clip_spec, builder.views
    what = inspect.getdoc(builder).splitlines()[0].split(" Arguments as for")[0].rstrip(".")
    clip = "×".join(map(str, (spec.num_frames, *spec.size))) + f", {spec.frame_rate:g}/s"
    if spec.modality != "rgb":
        clip += f", {spec.modality}"
    weights = ", ".join(f"`{key}`" for key in PUBLISHED.get(name, ()))
    parameters, macs = count_parameters(model), count_macs(model)
    return (
        f"| `{name}` | {what} | {clip} | {views.num_clips}×{views.num_crops} "
        f"| {_short(parameters)} | {_short(macs)} | {weights} |"
    )


def _short(number):
    """With three digits and a letter."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {letter}"
    return str(number)


def table(kind, model):
    """A Markdown table of a registered model with its default clip."""
    return (_fields if kind == "fields" else _costs)(model)


def _fields(model):
    found = summary(model, num_classes=6)
    frames, height, width, channels = found.input_shape
    lines = [
        "| layer | size (C×T×H×W) | receptive field (T×H×W) |",
        "| --- | --- | --- |",
        f"| input | {channels}×{frames}×{height}×{width} | |",
    ]
    for layer in found.main_layers:
        if layer.kind in ("Dense", "FramesToChannels"):
            continue
        _, *places, count = layer.output_shape
        if len(layer.output_shape) == 4 and layer.output_shape[0] == frames:
            places = [frames, *places]  # frames that are a batch
        size = "×".join(map(str, [count, *places]))
        lines.append(f"| {layer.name} ({layer.kind}) | {size} | {layer.field} |")
    return "\n".join(lines)


def _costs(model):
    found = summary(model)
    lines = [
        "| layer | size (C×T×H×W) | parameters | multiply-adds | receptive field (T×H×W) |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for layer in found.main_layers:
        _, *places, count = layer.output_shape
        macs = f"{layer.macs / 1e9:.3f} G" if layer.macs else ""
        parameters = f"{layer.parameters:,}" if layer.parameters else ""
        size = "×".join(map(str, [count, *places]))
        lines.append(f"| {layer.name} | {size} | {parameters} | {macs} | {layer.field} |")
    lines.append(f"| all | | {found.parameters:,} | {found.macs / 1e9:.2f} G | |")
    return "\n".join(lines)
