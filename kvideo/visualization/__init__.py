"""What a video model learned and what it looks at, as pictures and films."""

from kvideo.visualization.cam import Activation, class_activation, write_activation_video
from kvideo.visualization.filters import Filters, first_filters

__all__ = [
    "Activation",
    "Filters",
    "class_activation",
    "first_filters",
    "write_activation_video",
]
