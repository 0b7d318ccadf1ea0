"""Writes tables of models into pages, from the models themselves.

`<!-- fields: MODEL -->` becomes the sizes and receptive fields of a model's layers, as the lecture
has them; `<!-- costs: MODEL -->` its sizes, parameters and multiply-adds.
"""

import re

from kvideo.summarizing import summary

MARK = re.compile(r"^<!-- (fields|costs): (\w+) -->$", re.M)


def on_page_markdown(markdown, page, **_):
    """The hook that mkdocs calls for each page."""
    return MARK.sub(lambda match: table(match[1], match[2]), markdown)


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
