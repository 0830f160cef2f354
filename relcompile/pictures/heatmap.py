"""A relevance map as a picture: photograph, signed heatmap, and both on top of each other."""

import textwrap
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from numpy.typing import NDArray
from PIL import Image

from relcompile.errors import ExportError
from relcompile.files.paths import atomic_path

_COLOURS = "RdBu_r"  # blue against, white nothing, red for: colour-blind readers can tell them apart
_PERCENTILE = 99.5  # of |R|: one bright pixel must not fade all others
_AREA = 0.1  # share of the picture inside the outline
_STRONGEST_ALPHA = 0.85  # some of the photograph shows through everywhere
_DARKEST_GREY = -128  # black of the photograph becomes a middle grey, on which dark red and blue stand out
_DPI = 150
# Lengths in inches.
_PANEL, _TALLEST, _NARROWEST, _LEAST_WIDTH = 4.2, 6.5, 1.6, 5.5
_MARGIN, _GAP, _PANEL_TITLE, _TITLE_LINE, _NOTE_LINE = 0.25, 0.2, 0.35, 0.26, 0.19
_BAR, _BAR_WITH_LABELS = 0.2, 1.3


@dataclass(frozen=True, eq=False)
class _Map:
    """A relevance map that can be drawn.

    Args:
        values: Relevance (H, W), summed over the channels.
        limit: > 0; the colours span -limit..limit.
        strongest: max|R|.
    """

    values: NDArray[np.float64]
    limit: float
    strongest: float

    @property
    def norm(self) -> Normalize:
        """From relevance to 0..1, with zero in the middle."""
        return Normalize(-self.limit, self.limit)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the map in its own pixels, for a photograph of another size."""
        height, width = self.values.shape
        return (-0.5, width - 0.5, height - 0.5, -0.5)


def heatmap_title(label: str, score: float, relevance: NDArray[np.floating[Any]]) -> str:
    """The title for `save_heatmap`: what was explained, its score, and how much relevance was found.

    Args:
        label: The class, "Egyptian cat (285)".
        score: The model's output for this class.
        relevance: All of the map, (C, H, W) or (H, W).
    """
    total = float(np.asarray(relevance, dtype=np.float64).sum())
    return f"{label}  ·  score {score:.4g}  ·  sum of relevance {total:.4g}"


@dataclass(frozen=True)
class Style:
    """How a map is drawn.

    Args:
        colormap: a name of matplotlib; its middle is no relevance.
        overlay_only: only the map over the photograph, in exactly the photograph's pixels, without text.

    Raises:
        ExportError: matplotlib has no such colours.
    """

    colormap: str = _COLOURS
    overlay_only: bool = False

    def __post_init__(self) -> None:
        if self.colormap not in colormaps:
            near = get_close_matches(self.colormap, list(colormaps), n=3) or ["RdBu_r", "seismic", "PiYG"]
            raise ExportError(f"matplotlib has no colormap {self.colormap!r}; nearest: {', '.join(near)}")


def heatmap_figure(
    relevance: NDArray[np.floating[Any]], image: Image.Image | None, title: str, style: Style = Style()
) -> Figure:
    """The photograph, the heatmap, and the heatmap over the grey photograph.

    The heatmap is the sum over the channels, with the middle of the colours at zero and equal limits on both sides: the
    99.5th percentile of |R|, which the picture states. An outline encloses the tenth of the area with the
    largest smoothed |R| (or less, if less has any), so that colour is not the only cue. pyplot and its global
    figures are not touched.

    Args:
        relevance: (C, H, W) or (H, W), finite.
        image: The part of the photograph that the model saw, at any size; None draws the heatmap alone.
        title: Shown on top, in three lines at most; see `heatmap_title`.
            Signs that matplotlib's font lacks (Chinese, say) are drawn as question marks.
        style: Colours, and what is drawn.

    Raises:
        ExportError: The relevance has another rank, no pixels, NaN or infinity.
    """
    found = _summarise(title, relevance)
    if style.overlay_only:
        return _overlay_alone(found, image, style)
    panels = 1 if image is None else 3
    figure, axes, bar = _lay_out(found, panels, title, _describe(found, style, outlined=image is not None))
    heat = axes[min(1, panels - 1)]
    colours = heat.imshow(found.values, cmap=style.colormap, norm=found.norm)
    heat.set_title("Relevance")
    if image is not None:
        axes[0].imshow(np.asarray(image.convert("RGB")), extent=found.extent)
        axes[0].set_title("Photograph")
        _draw_overlay(axes[2], image, found, style)
        axes[2].set_title("Overlay")
    figure.colorbar(colours, cax=bar, extend="both" if found.strongest > found.limit else "neither")
    ticks = [found.limit * part for part in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    bar.set_yticks(ticks, labels=["0" if tick == 0 else f"{tick:+.2g}" for tick in ticks])
    bar.set_ylabel("relevance of a pixel")
    return figure


def save_heatmap(
    path: Path,
    relevance: NDArray[np.floating[Any]],
    image: Image.Image | None,
    title: str,
    style: Style = Style(),
) -> None:
    """Write `heatmap_figure` as a PNG, whatever the suffix; title and what the colours mean are stored in it.

    Raises:
        ExportError: `path` cannot be written, or the relevance cannot be drawn.
    """
    try:
        figure = heatmap_figure(relevance, image, title, style)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    note = _describe(_summarise(title, relevance), style, outlined=image is not None)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Title": title, "Description": note})


def _overlay_alone(found: _Map, image: Image.Image | None, style: Style) -> Figure:
    """One pixel of the figure for one pixel of the photograph."""
    height, width = found.values.shape
    across, up = (width, height) if image is None else image.size
    figure = Figure(figsize=(across / _DPI, up / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    _draw_overlay(axis, image or Image.new("L", (width, height), "white"), found, style)
    axis.set_aspect("auto")
    return figure


def draw_heatmap(axes: Axes, relevance: NDArray[np.floating[Any]], title: str) -> None:
    """Draw the heatmap of `save_heatmap`, alone and with a colour bar of its own, for figures with many of them.

    Args:
        axes: where; the frame is hidden.
        relevance: (C, H, W) or (H, W), finite.
        title: above it.

    Raises:
        ExportError: the relevance has another rank, no pixels, NaN or infinity.
    """
    found = _summarise(title, relevance)
    colours = axes.imshow(found.values, cmap=_COLOURS, norm=found.norm)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
    bar = axes.figure.colorbar(colours, ax=axes, fraction=0.046, pad=0.03)
    bar.set_ticks([-found.limit, 0.0, found.limit], labels=[f"{-found.limit:.1g}", "0", f"{found.limit:+.1g}"])
    bar.ax.tick_params(labelsize=6, length=2)


def _summarise(what: str, relevance: NDArray[np.floating[Any]]) -> _Map:
    """The channel sum and its colour limit."""
    values = np.asarray(relevance, dtype=np.float64)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ExportError(f"cannot draw {what}: the relevance is {values.shape}, not (C, H, W) or (H, W)")
    broken = int(np.count_nonzero(~np.isfinite(values)))
    if broken:
        raise ExportError(f"cannot draw {what}: {broken} of {values.size} relevance values are NaN or infinite")
    summed = values.sum(axis=0) if values.ndim == 3 else values
    strongest = float(np.abs(summed).max())
    # A map that is zero nearly everywhere has a percentile of zero, and an all-zero map has no scale at all.
    limit = float(np.percentile(np.abs(summed), _PERCENTILE)) or strongest or 1.0
    return _Map(summed, limit, strongest)


def _describe(found: _Map, style: Style, *, outlined: bool) -> str:
    """What the picture means, in numbers."""
    if found.strongest == 0:
        return "All relevance is zero."
    end = f"the {_PERCENTILE}th percentile of |relevance|; the largest is {found.strongest:.3g}"
    if found.limit == found.strongest:
        end = "the largest |relevance|"
    usual = "Red speaks for the explained output, blue against it, white is zero."
    other = f"The upper end of {style.colormap} speaks for the explained output, the lower against it."
    sentences = [
        usual if style.colormap == _COLOURS else other,
        f"Colours end at ±{found.limit:.3g}, {end}.",
        f"The outline encloses at most {_AREA:.0%} of the area, with the most |relevance| (smoothed)." * outlined,
    ]
    return " ".join(sentences).strip()


def _lay_out(found: _Map, panels: int, title: str, note: str) -> tuple[Figure, list[Axes], Axes]:
    """The figure with its texts, the panels, and a colour bar as tall as they are."""
    height, width = found.values.shape
    tall = float(np.clip(_PANEL * height / width, _NARROWEST / 2, _TALLEST))
    wide = float(np.clip(tall * width / height, _NARROWEST, _PANEL))
    content = panels * (wide + _GAP) + _BAR_WITH_LABELS
    across = max(content + 2 * _MARGIN, _LEAST_WIDTH)
    heading = textwrap.wrap(title, int(8.5 * across), max_lines=3, placeholder=" …")
    notes = textwrap.wrap(note, int(14 * (across - 2 * _MARGIN)))
    bottom = 1.5 * _MARGIN + len(notes) * _NOTE_LINE
    up = bottom + tall + _PANEL_TITLE + _TITLE_LINE * len(heading) + 1.5 * _MARGIN
    figure = Figure(figsize=(across, up), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.5, _MARGIN / up, "\n".join(notes), ha="center", va="bottom", fontsize=9, color="0.25")
    text = figure.text(0.5, 1 - _MARGIN / up, "", ha="center", va="top", fontsize=13, fontweight="bold")
    drawable = get_font(findfont(text.get_fontproperties())).get_charmap()
    heading = ["".join(sign if ord(sign) in drawable else "?" for sign in line) for line in heading]
    text.set(text="\n".join(heading), parse_math=False)  # "$" is a dollar
    room = figure.bbox.width * (1 - 2 * _MARGIN / across)
    text.set_fontsize(13 * min(1.0, room / max(text.get_window_extent().width, 1.0)))
    lefts = [(across - content) / 2 + i * (wide + _GAP) for i in range(panels + 1)]
    axes = [figure.add_axes((left / across, bottom / up, wide / across, tall / up)) for left in lefts[:-1]]
    for axis in axes:
        axis.set_axis_off()
    bar = figure.add_axes((lefts[-1] / across, bottom / up, _BAR / across, tall / up))
    return figure, axes, bar


def _draw_overlay(axis: Axes, image: Image.Image, found: _Map, style: Style) -> None:
    """The grey photograph, over it the heatmap as opaque as |R| is large, over both the outline."""
    grey = np.asarray(image.convert("L"))
    axis.imshow(grey, cmap="gray", vmin=_DARKEST_GREY, vmax=255, extent=found.extent)
    alpha = _STRONGEST_ALPHA * np.clip(np.abs(found.values) / found.limit, 0.0, 1.0)
    axis.imshow(found.values, cmap=style.colormap, norm=found.norm, alpha=alpha)
    smooth = _blur(np.abs(found.values), sigma=max(found.values.shape) / 60)
    # If less than that area has relevance at all, the outline is that of anything worth mentioning.
    level = float(np.quantile(smooth, 1 - _AREA)) or float(smooth.max()) / 100
    if min(smooth.shape) < 2 or not smooth.min() < level < smooth.max():
        return  # there is no outline of a constant
    # Black on white stands out from every colour below it.
    for colour, thickness in (("white", 2.6), ("black", 1.1)):
        axis.contour(smooth, levels=[level], colors=colour, linewidths=thickness)


def _blur(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian blur (H, W) -> (H, W), `sigma` in pixels; beyond the border the border's value goes on."""
    radius = round(3 * sigma)
    if radius == 0:
        return values
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pads = [(radius, radius) if i == axis else (0, 0) for i in range(2)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, pads, mode="edge"), len(kernel), axis)
        values = windows @ kernel
    return values
