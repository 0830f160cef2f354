"""An evaluation as one HTML page that needs nothing else: no network, no second file."""

from __future__ import annotations

import base64
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

from relcompile.evaluation.figures import figures
from relcompile.evaluation.measures import MEASURES, QUESTIONS
from relcompile.evaluation.pictures import COLOURS
from relcompile.evaluation.results import Results
from relcompile.evaluation.verdict import CSC, SSIM, verdicts

_TEMPLATE: Final = "report.html.j2"


def page(results: Results) -> str:
    """The whole page as text.

    Args:
        results: whole, or not yet.

    Returns:
        HTML with its scripts, styles and pictures; text of the results is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = _base64
    return environment.get_template(_TEMPLATE).render(
        facts=results.facts,
        verdicts=verdicts(results),
        refused=results.refused,
        figures=figures(results),
        gallery=_gallery(results),
        layers={rule: kept.layers for rule, kept in results.shown.items()},
        thresholds={"CSC": CSC, "SSIM": SSIM},
        questions={text: _measures(name) for name, text in QUESTIONS.items()},
        gradient=_gradient(),
        plotly=get_plotlyjs(),
    )


def _measures(question: str) -> list[tuple[str, str]]:
    return [(measure.name, measure.summary) for measure in MEASURES.values() if measure.question == question]


def _gallery(results: Results) -> list[dict[str, Any]]:
    """One entry a sample: the picture, and the map of every rule."""
    shown = results.shown.items()
    pictures = [{"rule": rule, **asdict(picture)} for rule, kept in shown for picture in kept.pictures]
    pictures.sort(key=lambda picture: picture["sample"])
    rows = [list(group) for _, group in groupby(pictures, lambda picture: picture["sample"])]
    return [{"sample": row[0]["sample"], "target": row[0]["target"], "maps": row} for row in rows]


def _gradient() -> str:
    """The colours of the maps, as CSS has them."""
    return ", ".join(to_hex(colormaps[COLOURS](k / 8)) for k in range(9))


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()
