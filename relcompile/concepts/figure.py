"""Concepts as a picture: a row a channel, with crops of the photographs in which it is most relevant."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from relcompile.files.text import printable
from relcompile.pictures.heatmap import draw_heatmap

Array = NDArray[np.floating[Any]]
_SIDES: Final = (0.25, 0.35, 0.5, 0.7)  # of crops, in sides of what the model sees
_SHARE: Final = 0.6  # of |R| that a crop holds
_SIZE, _TITLE = 1.3, 0.6  # inches, of a crop and of the title


@dataclass(frozen=True, eq=False)
class Row:
    """One channel.

    Attributes:
        title: what is written beside it.
        crops: the references, the most relevant one first.
        own: its map of the picture that is explained, if there is one.
    """

    title: str
    crops: Sequence[Image.Image]
    own: Array | None = None


def crop(view: Image.Image, relevance: Array) -> Image.Image:
    """The part of `view` that relevance lies in: of a few squares the smallest that holds most of |R|.

    Args:
        view: what the model saw.
        relevance: (C, H, W) or (H, W), of a photograph that the view is of.
    """
    magnitude = np.abs(relevance.reshape(-1, *relevance.shape[-2:]).astype(np.float64).sum(0))
    height, width = magnitude.shape
    table = np.pad(magnitude.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    box = (0, 0, width, height)
    for share in _SIDES:
        side = max(1, round(share * min(height, width)))
        held = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
        top, left = (int(place) for place in np.unravel_index(held.argmax(), held.shape))
        if held[top, left] >= _SHARE * table[-1, -1] > 0:
            box = (left, top, left + side, top + side)
            break
    across, down = view.width / width, view.height / height
    return view.crop((round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)))


def concepts_figure(rows: Sequence[Row], title: str) -> Figure:
    """A row a channel: its map of the picture, if there is one, and its references."""
    own = any(row.own is not None for row in rows)
    columns = 1 + own + max([1, *(len(row.crops) for row in rows)])
    figure = Figure(figsize=(_SIZE * columns, _SIZE * len(rows) + _TITLE), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(textwrap.wrap(printable(title), 14 * columns)), fontsize=8)
    for row, axes in zip(rows, figure.subplots(len(rows), columns, squeeze=False), strict=True):
        for axis in axes:
            axis.set_axis_off()
        axes[0].text(0.5, 0.5, row.title, ha="center", va="center", fontsize=7, transform=axes[0].transAxes)
        _draw(row, axes[1:], own)
    return figure


def _draw(row: Row, axes: Sequence[Axes], own: bool) -> None:
    if row.own is not None:
        draw_heatmap(axes[0], row.own, "")
    for axis, picture in zip(axes[int(own) :], row.crops, strict=False):
        axis.imshow(np.asarray(picture))
