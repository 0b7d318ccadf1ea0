"""What a video model learned and what it looks at, as pictures and films."""

from kvideo.visualization.attention import Attention, attention_of
from kvideo.visualization.cam import Activation, class_activation, write_activation_video
from kvideo.visualization.embedding import coordinates, map_html
from kvideo.visualization.filters import Filters, first_filters
from kvideo.visualization.maximize import Maximized, MaximizeSettings, maximize
from kvideo.visualization.shift import ShiftTest, shift_test

__all__ = [
    "Activation",
    "Attention",
    "Filters",
    "Maximized",
    "MaximizeSettings",
    "ShiftTest",
    "attention_of",
    "class_activation",
    "coordinates",
    "first_filters",
    "map_html",
    "maximize",
    "shift_test",
    "write_activation_video",
]
