"""Pictures for lessons: graphs, gradient checks, images and maps, training curves, animations.

Matplotlib is imported when the first picture is drawn.
"""

from .animation import Animation, animate_sampling
from .curves import plot_arms, plot_history, plot_runs
from .gradients import draw_gradcheck
from .graph import draw_graph
from .maps import show_attention, show_channel_weights, show_feature_maps, show_images
from .style import COLOURS, panels, use_style

__all__ = [
    "COLOURS",
    "Animation",
    "animate_sampling",
    "draw_gradcheck",
    "draw_graph",
    "panels",
    "plot_arms",
    "plot_history",
    "plot_runs",
    "show_attention",
    "show_channel_weights",
    "show_feature_maps",
    "show_images",
    "use_style",
]
