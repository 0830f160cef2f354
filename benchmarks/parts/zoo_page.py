"""What was measured of one model of the zoo, and the page that shows it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass
class Row:
    """One model.

    Attributes:
        parameters: how many the model has.
        compiled: an explainer came out.
        gradient: largest difference from autograd, of the largest gradient; float64.
        unaccounted: what is left of the score once relevance and what was absorbed on the way are taken off, of the
            score, under cp-lrp; float64.
        parity: largest difference between ONNX Runtime and PyTorch, of the largest value of each output; float32.
        seconds: that all of it took.
        failure: the step that failed and the first lines of its error; "" if none did.
        steps: those that passed.
    """

    library: str
    family: str
    model: str
    parameters: int = 0
    compiled: bool = False
    gradient: float | None = None
    unaccounted: float | None = None
    parity: float | None = None
    seconds: float = 0.0
    failure: str = ""
    steps: tuple[str, ...] = ()


def markdown(rows: Iterable[Row]) -> str:
    """One line a model."""
    lines = [
        "| library | family | model | gradient | unaccounted | ONNX Runtime | s | failure |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.library, row.family, row.model)):
        numbers = ["" if x is None else f"{x:.0e}" for x in (row.gradient, row.unaccounted, row.parity)]
        failure = row.failure.replace("|", "\\|")
        cells = [row.library, row.family, row.model, *numbers, f"{row.seconds:g}", failure]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_page(rows: Iterable[Row], path: Path) -> None:
    """The page of the documentation."""
    path.write_text(markdown(rows))


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """All columns."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))
