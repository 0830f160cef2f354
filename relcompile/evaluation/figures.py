"""Results -> figures like those of the papers, as plotly draws them, each with its description and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from relcompile.evaluation.metrics.intervals import Estimate, estimate
from relcompile.evaluation.results import Results
from relcompile.evaluation.verdict import CSC, SSIM

_FLOOR: Final = 1e-8  # of 1 - CSC: float32 knows no smaller difference
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""That colour-blind readers can tell apart (Okabe and Ito)."""
_WHOLE: Final = "all layers random"


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
        name: unique, for links.
        title: what it shows.
        alt: the same for those who do not see it.
        json: for plotly.
        header: of the table of its numbers.
        cells: rows of that table.
    """

    name: str
    title: str
    alt: str
    json: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def figures(results: Results) -> list[Drawn]:
    """Those for which there are numbers."""
    return [drawn for draw in _FIGURES for drawn in draw(results)]


def convergence(results: Results) -> Iterator[Drawn]:
    """1 - CSC over layers, from the top down; logarithmic, as in figure 5."""
    rules = [rule for rule in results.rules if results.layers(rule, "csc")]
    if not rules:
        return
    figure, cells = go.Figure(), list[tuple[str, ...]]()
    for rule in rules:
        layers = results.layers(rule, "csc")[::-1]
        found = [estimate(results.of(rule, "csc", layer=layer, step=0.5), np.median) for layer in layers]
        figure.add_scatter(x=layers, y=[max(_FLOOR, 1 - e.value) for e in found], name=rule, mode="lines+markers")
        cells += [(rule, layer, f"{1 - e.value:.2e}") for layer, e in zip(layers, found, strict=True)]
    first = rules[0]
    layers = results.layers(first, "csc")[::-1]
    chance = [1 - _middle(results, first, "csc-random", layer) for layer in layers]
    figure.add_scatter(x=layers, y=chance, name="random vectors", mode="lines", line={"dash": "dot", "color": "grey"})
    figure.add_hline(y=1 - CSC.value, line_dash="dash", line_color="grey")
    figure.update_yaxes(type="log", autorange="reversed", title="1 - CSC (median)", exponentformat="power")
    figure.update_xaxes(title="layer, from the output to the input", type="category")
    alt = f"Lines of 1 minus CSC over layers for {_and(rules)}; below {1 - CSC.value:.2g} relevance has converged."
    yield _drawn("convergence", "Cosine similarity convergence", alt, figure, ("rule", "layer", "1 - CSC"), cells)


def random_logit(results: Results) -> Iterator[Drawn]:
    """Boxes of SSIM between the maps of two classes, as in figure 4a."""
    metric = "random-logit-flipped"
    rules = [rule for rule in results.rules if len(results.of(rule, metric))]
    if not rules:
        return
    figure, cells = go.Figure(), list[tuple[str, ...]]()
    for rule in rules:
        values = results.of(rule, metric)
        figure.add_box(y=values.tolist(), name=rule, boxpoints="all")
        cells.append((rule, str(estimate(values, np.median))))
    figure.add_hline(y=SSIM.value, line_dash="dash", line_color="grey")
    figure.update_yaxes(title="SSIM, up to the sign")
    figure.update_layout(showlegend=False)
    alt = f"Boxes of the similarity of maps for two classes, for {_and(rules)}; near 1 the class makes no difference."
    yield _drawn("random-logit", "Random logit", alt, figure, ("rule", "median SSIM"), cells)


def cascade(results: Results) -> Iterator[Drawn]:
    """Median SSIM with random weights from the top down, with its interval, as in figure 4b."""
    metric = "cascade-flipped"
    rules = [rule for rule in results.rules if results.layers(rule, metric)]
    if not rules:
        return
    figure, cells = go.Figure(), list[tuple[str, ...]]()
    for rule in rules:
        layers = results.layers(rule, metric)
        found = [estimate(results.of(rule, metric, layer=layer), np.median) for layer in layers]
        figure.add_scatter(x=layers, y=[e.value for e in found], error_y=_bars(found), name=rule, mode="lines+markers")
        cells += [(rule, layer, str(e)) for layer, e in zip(layers, found, strict=True)]
    figure.add_hline(y=SSIM.value, line_dash="dash", line_color="grey")
    figure.update_yaxes(title="SSIM, up to the sign")
    figure.update_xaxes(title=f"lowest layer with random weights; rightmost: {_WHOLE}", type="category")
    alt = f"Lines of the similarity to the trained network's map as layers lose their weights, for {_and(rules)}."
    header = ("rule", "random down to", "median SSIM")
    yield _drawn("cascade", "Cascading parameter randomisation", alt, figure, header, cells)


def perturbation(results: Results) -> Iterator[Drawn]:
    """Mean curves: the least relevant patches removed first, and the most relevant ones."""
    rules = [rule for rule in results.rules if len(results.of(rule, "srg"))]
    if not rules:
        return
    figure, cells = go.Figure(), list[tuple[str, ...]]()
    for k, rule in enumerate(rules):
        shares = sorted({row.step for row in results.rows_of(rule, "lerf")})
        for metric, dash in (("lerf", "solid"), ("morf", "dash")):
            means = [_or_nan(np.mean, results.of(rule, metric, step=share)) for share in shares]
            line = {"dash": dash, "color": _COLOURS[k % len(_COLOURS)]}
            figure.add_scatter(x=shares, y=means, name=f"{rule}, {_ORDER[metric]}", line=line, mode="lines+markers")
        for occluder in results.layers(rule, "srg"):
            cells.append((rule, occluder, str(estimate(results.of(rule, "srg", layer=occluder)))))
    figure.update_xaxes(title="share of the picture that is removed")
    figure.update_yaxes(title="probability of the class")
    alt = f"Probability as patches are removed, for {_and(rules)}; the further apart a rule's two lines, the better."
    yield _drawn("perturbation", "Perturbation curves", alt, figure, ("rule", "occluder", "SRG"), cells)


def conservation(results: Results) -> Iterator[Drawn]:
    """The sum of relevance at every layer, as a share of what starts; and what layers absorb."""
    rules = [rule for rule in results.rules if results.layers(rule, "conservation")]
    if not rules:
        return
    figure, cells = go.Figure(), list[tuple[str, ...]]()
    for rule in rules:
        layers = results.layers(rule, "conservation")
        sums = [_middle(results, rule, "conservation", layer) for layer in layers]
        figure.add_scatter(x=layers[::-1], y=sums[::-1], name=rule, mode="lines+markers")
        for layer in layers:
            lost = results.of(rule, "absorbed", layer=layer)
            share = f"{np.median(lost):.3g}" if len(lost) else ""
            cells.append((rule, layer, f"{_middle(results, rule, 'conservation', layer):.4g}", share))
        known = [*layers]
        others = [layer for layer in results.layers(rule, "absorbed") if layer not in known]
        cells += [(rule, layer, "", f"{_middle(results, rule, 'absorbed', layer):.3g}") for layer in others]
    figure.update_yaxes(title="ΣR / ΣR at the last layer (median)", rangemode="tozero")
    figure.update_xaxes(title="layer, from the output to the input", type="category")
    alt = f"Lines of the sum of relevance at every layer, as a share of the sum at the last one, for {_and(rules)}."
    header = ("rule", "layer", "ΣR", "absorbed")
    yield _drawn("conservation", "Conservation ledger", alt, figure, header, cells)


def singular(results: Results) -> Iterator[Drawn]:
    """σ1 / σ2 of the weights of every layer, as in figure 3."""
    layers = results.layers("", "singular-ratio")
    if not layers:
        return
    values = [float(results.of("", "singular-ratio", layer=layer)[0]) for layer in layers]
    figure = go.Figure()
    figure.add_bar(x=layers, y=[value if np.isfinite(value) else None for value in values])
    figure.update_yaxes(title="σ1 / σ2", type="log")
    figure.update_xaxes(title="layer", type="category")
    cells = [(layer, f"{value:.3g}") for layer, value in zip(layers, values, strict=True)]
    alt = "Bars of the ratio of the two largest singular values of every layer's weights; large ones are near rank 1."
    yield _drawn("singular", "Singular values of the weights", alt, figure, ("layer", "σ1 / σ2"), cells)


_FIGURES: Final[tuple[Callable[[Results], Iterator[Drawn]], ...]] = (
    convergence,
    random_logit,
    cascade,
    perturbation,
    conservation,
    singular,
)
_ORDER: Final = {"lerf": "least relevant first", "morf": "most relevant first"}


def _drawn(
    name: str, title: str, alt: str, figure: Any, header: tuple[str, ...], cells: Sequence[tuple[str, ...]]
) -> Drawn:
    figure.update_layout(margin={"l": 60, "r": 20, "t": 20, "b": 60}, height=460, template="none", colorway=_COLOURS)
    figure.update_xaxes(automargin=True, title_standoff=12)
    return Drawn(name, title, alt, figure.to_json().replace("</", "<\\/"), header, tuple(cells))


def _bars(found: Sequence[Estimate]) -> dict[str, Any]:
    above, below = [e.high - e.value for e in found], [e.value - e.low for e in found]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def _middle(results: Results, rule: str, metric: str, layer: str) -> float:
    return _or_nan(np.median, results.of(rule, metric, layer=layer))


def _or_nan(statistic: Callable[[NDArray[np.float64]], Any], values: NDArray[np.float64]) -> float:
    """The statistic over samples; NaN if there are none."""
    return float(statistic(values)) if len(values) else float("nan")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
