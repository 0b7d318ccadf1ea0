"""A model layer by layer: sizes, parameters, multiply-adds, receptive fields; as text and files."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import keras

from kvideo.analysis.costs import cost_of
from kvideo.analysis.fields import ALL, AXES, PAST, WINDOW, Field
from kvideo.analysis.receptive_fields import Tracker
from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import UsageError
from kvideo.graphs import clip_tensor, trace
from kvideo.text import cut, pad, plural

Triple = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """What one value of a layer's output depends on.

    Attributes:
        size: (T, H, W) frames and pixels. Windows may reach into the padding, and beyond the clip.
        stride: (T, H, W) from one value to the next; 0 along axes of one value.
        offset: (T, H, W) where the first value's window begins: below 0, in the padding.
        kinds: of each axis: `"window"`; `"past"`: all frames up to a value's own; `"all"`.
        seconds: of the clip, that T stands for.
    """

    size: Triple
    stride: tuple[float, float, float]
    offset: Triple
    kinds: tuple[str, str, str]
    seconds: float | None = None

    @classmethod
    def of(cls, field: Field, frame_rate: float | None) -> ReceptiveField:
        """The summary of a `Field`."""
        spans = [field.spans[axis] for axis in AXES]
        return cls(
            size=tuple(span.size for span in spans),  # type: ignore[arg-type]
            stride=tuple(span.stride if len(span) > 1 else 0.0 for span in spans),  # type: ignore[arg-type]
            offset=tuple(int(span.low[0]) for span in spans),  # type: ignore[arg-type]
            kinds=tuple(span.kind for span in spans),  # type: ignore[arg-type]
            seconds=spans[0].size / frame_rate if frame_rate else None,
        )

    def __str__(self) -> str:
        return "×".join(str(size) for size in self.size)

    @property
    def note(self) -> str:
        """`"everything"`, `"all of the past"` …, or nothing for windows."""
        if all(kind == ALL for kind in self.kinds):
            return "everything"
        if self.kinds[0] == PAST:
            return "all of the past"
        named = dict(zip(("frames", "rows", "columns"), self.kinds, strict=True))
        seen = [name for name, kind in named.items() if kind == ALL]
        if seen == ["rows", "columns"]:
            return "whole frames"
        return f"all {' and '.join(seen)}" if seen else ""


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One call of one layer, for one clip.

    Attributes:
        name: the layer's name; of a layer in a nested model `outer/inner`.
        kind: its class.
        output_shape: with a batch of one clip, so a layer that sees frames as a batch has T first.
        parameters: 0 when the layer was called before.
        macs: multiply-adds; None if they are not known.
        field: None if it is not known.
        changes: whether the field or the number of parameters is another than before the layer.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int | None
    field: ReceptiveField | None
    changes: bool = True


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """A model layer by layer.

    Attributes:
        name: the model's.
        input_shape: of one clip.
        clip: what a clip is; None where the model does not say.
        views: of a video in a test; None where the model does not say.
        layers: in the order in which they are called.
        unknown: sentences about layers that could not be analyzed.
    """

    name: str
    input_shape: tuple[int, ...]
    clip: ClipSpec | None
    views: Views | None
    layers: tuple[LayerSummary, ...]
    unknown: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """As `count_parameters` counts."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one clip; None if those of a layer are not known."""
        if any(layer.macs is None for layer in self.layers):
            return None
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def main_layers(self) -> tuple[LayerSummary, ...]:
        """Without layers that neither hold weights nor widen the view: activations and the like."""
        return tuple(layer for layer in self.layers if layer.changes)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        views = None if self.views is None else dataclasses.asdict(self.views)
        count = len(self.views) if self.views is not None else 1
        return {
            "model": self.name,
            "input_shape": list(self.input_shape),
            "frame_rate": None if self.clip is None else self.clip.frame_rate,
            "views": views,
            "parameters": self.parameters,
            "macs": self.macs,
            "macs_of_all_views": None if self.macs is None else self.macs * count,
            "unknown": list(self.unknown),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }

    def to_csv(self, all_layers: bool = True) -> str:
        """A row for each layer."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fields = [
            f"{what}_{axis.lower()}" for what in ("field", "stride", "offset") for axis in AXES
        ]
        writer.writerow(
            ["layer", "kind", "output_shape", "parameters", "macs", *fields, "seconds", "note"]
        )
        for layer in self.layers if all_layers else self.main_layers:
            field = layer.field
            numbers: list[Any] = [""] * 9 if field is None else [
                *field.size, *(f"{each:g}" for each in field.stride), *field.offset,
            ]  # fmt: skip
            seconds = "" if field is None or field.seconds is None else f"{field.seconds:.4g}"
            writer.writerow(
                [layer.name, layer.kind, _sizes(layer.output_shape[1:]), layer.parameters,
                 "" if layer.macs is None else layer.macs, *numbers, seconds,
                 "unknown" if field is None else field.note]
            )  # fmt: skip
        return text.getvalue()

    def to_markdown(self, all_layers: bool = False) -> str:
        """A table, and the totals below."""
        heads, rows = self._table(all_layers)
        right = {"parameters", "MACs", "seconds"}
        lines = [
            f"| {' | '.join(heads)} |",
            f"| {' | '.join('---:' if head in right else '---' for head in heads)} |",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
        return "\n".join([*lines, "", *self.totals]) + "\n"

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, all_layers: bool = False) -> str:
        """A table for a terminal, and the totals below."""
        heads, rows = self._table(all_layers)
        rows = [[cut(row[0], 44), *row[1:]] for row in rows]
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        right = {heads.index(name) for name in ("parameters", "MACs", "seconds") if name in heads}
        lines = [
            "  ".join(
                cell.rjust(width) if i in right else pad(cell, width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [heads, ["-" * width for width in widths], *rows]
        ]
        return "\n".join([*lines, "", *self.totals])

    @property
    def totals(self) -> list[str]:
        """Parameters and multiply-adds, in sentences."""
        crop = _sizes(self.input_shape[:3])
        lines = [f"{self.name}: {self.parameters:,} parameters."]
        if self.macs is not None:
            line = f"{_count(self.macs)} MACs for one clip of {crop}"
            if self.views is not None and len(self.views) > 1:
                line += (
                    f"; {_count(self.macs * len(self.views))} for a video of "
                    f"{plural(self.views.num_clips, 'clip')} × "
                    f"{plural(self.views.num_crops, 'crop')}"
                )
            lines.append(line + ".")
        return [*lines, *self.unknown]

    def _table(self, all_layers: bool) -> tuple[list[str], list[list[str]]]:
        timed = self.clip is not None
        heads = ["layer", "kind", "output", "parameters", "MACs", "receptive field", "stride"]
        heads += ["begins at", *(["seconds"] if timed else []), ""]
        rows = []
        for layer in self.layers if all_layers else self.main_layers:
            field = layer.field
            row = [
                layer.name,
                layer.kind,
                _sizes(layer.output_shape[1:]),
                f"{layer.parameters:,}" if layer.parameters else "",
                "?" if layer.macs is None else _count(layer.macs) if layer.macs else "",
            ]
            if field is None:
                row += ["?", "", "", *([""] if timed else []), ""]
            else:
                windows = any(kind == WINDOW for kind in field.kinds)
                row.append(str(field))
                stride = [float(f"{step:.3g}") for step in field.stride]  # a mean, in some models
                row += [_sizes(stride), _sizes(field.offset, ", ")] if windows else ["", ""]
                row += [f"{field.seconds:.2f}"] if timed and field.seconds is not None else []
                row.append(field.note)
            rows.append(row)
        return heads, rows


def summarize(
    model: keras.Model,
    input_shape: Sequence[int] | None = None,
    *,
    clip: ClipSpec | None = None,
    views: Views | None = None,
) -> ModelSummary:
    """Goes through a model layer by layer.

    A layer of another package takes part by methods `macs(input_shape, output_shape)` and
    `receptive_field(fields, input_shape, output_shape)`, or by `register_layer`; one that has
    neither, and is none of Keras's, is named in `unknown`, and what lies behind it has no receptive
    field.

    Args:
        model: a functional or sequential model of one clip.
        input_shape: (T, H, W, C), where the model leaves sizes open.
        clip: gives the frame rate, for seconds.
        views: of a video, for the multiply-adds of a test.

    Raises:
        UsageError: a size is unknown, the model is not functional, or has several inputs.
    """
    beginning = clip_tensor(model, input_shape)
    tracker = Tracker(beginning, model.name)
    rate = None if clip is None else clip.frame_rate
    seen: set[int] = set()
    layers: list[LayerSummary] = []
    unknown: list[str] = []

    def visit(name: str, operation: Any, given: list[Any], outputs: Any) -> None:
        before = [tracker.of(each) for each in given]
        field = tracker.follow(operation, given, outputs)
        if field is None and before and None not in before:
            unknown.append(
                f"The receptive field of {name} ({type(operation).__name__}) is not known, nor "
                "of what lies behind it; a method receptive_field of the layer would tell."
            )
        if not isinstance(operation, keras.Layer):
            return
        row = _row(name, operation, given, outputs, seen, unknown)
        seeing = None if field is None else ReceptiveField.of(field, rate)
        same = seeing is not None and all(
            each is not None and _alike(seeing, ReceptiveField.of(each, None)) for each in before
        )
        layers.append(dataclasses.replace(row, field=seeing, changes=not same or bool(row.macs)))

    trace(model, beginning, visit)
    shape = tuple(beginning.shape[1:])
    return ModelSummary(model.name, shape, clip, views, tuple(layers), tuple(unknown))


def _row(
    name: str, layer: Any, given: list[Any], outputs: Any, seen: set[int], unknown: list[str]
) -> LayerSummary:
    try:
        cost = cost_of(name, layer, given, outputs, seen)
    except UsageError as error:
        unknown.append(str(error))
        shape = tuple(keras.tree.flatten(outputs)[0].shape)
        return LayerSummary(name, type(layer).__name__, shape, layer.count_params(), None, None)
    return LayerSummary(name, cost.kind, cost.output_shape, cost.parameters, cost.macs, None)


def _alike(one: ReceptiveField, two: ReceptiveField) -> bool:
    return (one.size, one.stride, one.kinds) == (two.size, two.stride, two.kinds)


def _sizes(sizes: Sequence[float], between: str = "×") -> str:
    return between.join(f"{size:g}" for size in sizes)


def _count(number: int) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {letter}"
    return str(number)
