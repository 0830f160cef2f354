"""What the report of a compilation warns of: measures of the explainer, and from where on they are worth a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relcompile.backend import absorbed, cancellation, magnitude
from relcompile.backend.compiled import Compiled


@dataclass(frozen=True)
class Doubt:
    """A row of the report, if `measure` is above `limit`.

    Args:
        title: of the row.
        text: what it says; `{}` is the value.
        measure: of the explainer; None where it does not apply.
        limit: see where the measure is.
        of_shares: asked only of methods that hand out shares of the score.
    """

    title: str
    text: str
    measure: Callable[[Compiled], float | None]
    limit: float
    of_shares: bool = True


DOUBTS: Final = (
    Doubt(
        "largest |R| over |score|",
        "{:.3g}: relevance cancels; a rule with an absolute split bounds it",
        cancellation.largest_share,
        cancellation.SUSPICIOUS,
    ),
    Doubt(
        "absorbed on the way",
        "{:.0%} of the score: the map is of the rest; root and z+,absorbed=shared hand it back; --absorbed says where",
        absorbed.absorbed_share,
        absorbed.MOST,
    ),
    Doubt(
        "largest number inside",
        "{:.1e} of the largest that float32 holds: relevance may be NaN for other inputs; scale weights or inputs down",
        magnitude.nearest_to_overflow,
        magnitude.SUSPICIOUS,
        of_shares=False,
    ),
)


def doubts(explainer: Compiled, *, shares: bool) -> dict[str, str]:
    """The rows that apply; `shares`: the method hands out shares of the score."""
    asked = [doubt for doubt in DOUBTS if shares or not doubt.of_shares]
    values = [(doubt, doubt.measure(explainer)) for doubt in asked]
    return {d.title: d.text.format(value) for d, value in values if value is not None and value > d.limit}
