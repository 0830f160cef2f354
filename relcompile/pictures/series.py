"""Relevance of a series: the signal as a line, and under it its relevance, channel by channel."""

from __future__ import annotations

import textwrap
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from relcompile.errors import ExportError

_FOR, _AGAINST, _SIGNAL = "#b2182b", "#2166ac", "0.15"
_MOST: Final = 8  # channels; what has more is drawn for those with most relevance
_WIDTH, _CHANNEL, _HEAD = 10.0, 1.9, 1.0  # inches


def series_figure(signal: NDArray[Any], relevance: NDArray[Any], title: str) -> Figure:
    """A panel a channel: the signal, over bars of its relevance with one scale for all, red for and blue against.

    Args:
        signal: (T,) or (C, T); of more than eight channels those with most relevance are drawn.
        relevance: the same shape, finite.
        title: on top; see `relcompile.pictures.heatmap.heatmap_title`.

    Raises:
        ExportError: the shapes differ, are of another rank or empty, or the relevance is not finite.
    """
    values, shares = (np.atleast_2d(np.asarray(array, np.float64)) for array in (signal, relevance))
    if values.shape != shares.shape or values.ndim != 2 or values.size == 0 or not np.isfinite(shares).all():
        raise ExportError(
            f"cannot draw {title}: want a series (T,) or (C, T) and finite relevance in its shape, "
            f"not {np.shape(signal)} and {np.shape(relevance)}"
        )
    drawn = sorted(np.argsort(-np.abs(shares).sum(1))[:_MOST])
    limit = float(np.abs(shares).max()) or 1.0
    up = _HEAD + _CHANNEL * len(drawn)
    figure = Figure(figsize=(_WIDTH, up), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, 100), fontsize=11, fontweight="bold", parse_math=False)
    grid: Any = figure.subplots(2 * len(drawn), 1, sharex=True, squeeze=False, height_ratios=[3, 2] * len(drawn))
    for row, channel in enumerate(drawn):
        _draw(grid[2 * row][0], grid[2 * row + 1][0], values[channel], shares[channel], limit)
        grid[2 * row][0].set_ylabel("signal" if len(values) == 1 else f"channel {channel}", fontsize=8)
    note = f"{len(drawn)} of {len(values)} channels, those with most relevance. " if len(drawn) < len(values) else ""
    grid[-1][0].set_xlabel(f"step. {note}Red speaks for the explained output, blue against it.", fontsize=8)
    return figure


def _draw(above: Axes, below: Axes, signal: NDArray[np.float64], relevance: NDArray[np.float64], limit: float) -> None:
    steps = np.arange(len(signal))
    above.plot(steps, signal, color=_SIGNAL, linewidth=0.9)
    for sign, colour in ((1, _FOR), (-1, _AGAINST)):
        part = np.where(sign * relevance > 0, relevance, 0.0)
        below.fill_between(steps, part, step="mid", color=colour, linewidth=0)
    below.axhline(0, color="0.5", linewidth=0.5)
    below.set_ylim(-1.05 * limit, 1.05 * limit)
    below.set_ylabel("relevance", fontsize=8)
    for axes in (above, below):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.005)
