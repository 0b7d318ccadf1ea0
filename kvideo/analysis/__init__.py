"""What a model is made of, layer by layer: sizes, parameters, multiply-adds, receptive fields."""

from kvideo.analysis.costs import (
    LayerCost,
    count_layer_parameters,
    count_macs,
    count_parameters,
    layer_costs,
    layer_macs,
)
from kvideo.analysis.fields import Field, Span
from kvideo.analysis.layer_registration import register_layer
from kvideo.analysis.receptive_fields import receptive_fields
from kvideo.analysis.summary import LayerSummary, ModelSummary, ReceptiveField, summarize

__all__ = [
    "Field",
    "LayerCost",
    "LayerSummary",
    "ModelSummary",
    "ReceptiveField",
    "Span",
    "count_layer_parameters",
    "count_macs",
    "count_parameters",
    "layer_costs",
    "layer_macs",
    "receptive_fields",
    "register_layer",
    "summarize",
]
