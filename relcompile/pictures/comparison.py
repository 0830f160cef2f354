"""Several maps of one photograph in one figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from relcompile.pictures.heatmap import draw_heatmap

_COLUMNS: Final = 7
_WIDE, _TALL, _TITLE = 1.9, 1.9, 0.5  # inches, of a map and of the title of all


def comparison_figure(view: Image.Image | None, maps: Mapping[str, NDArray[np.floating[Any]]], title: str) -> Figure:
    """The photograph and its maps side by side, every map with its own colours around zero.

    Args:
        view: what the model saw; None draws the maps alone.
        maps: relevance (C, H, W) or (H, W), by what is written above it.
        title: of the figure.

    Raises:
        ExportError: relevance cannot be drawn.
    """
    panels = len(maps) + (view is not None)
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    across = max(_WIDE * columns, 5.0)
    figure = Figure(figsize=(across, _TALL * rows + _TITLE), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(textwrap.wrap(title, int(12 * across))), fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    if view is not None:
        axes[0].imshow(np.asarray(view))
        axes[0].set_title("photograph", fontsize=8)
    for axis, (name, relevance) in zip(axes[int(view is not None) :], maps.items(), strict=False):
        draw_heatmap(axis, relevance, "\n".join(textwrap.wrap(name, 26)))
    return figure
