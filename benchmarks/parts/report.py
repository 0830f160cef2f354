"""Measurements as CSV, as a table of Markdown and as a plot."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.parts.ways import Case

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


@dataclass(frozen=True)
class Row:
    """One way in one case: milliseconds (median, and the quartiles), and the median ratio to the forward pass."""

    network: str
    rule: str
    size: int
    batch: int
    questions: int
    threads: int
    way: str
    limit: int | None
    failure: str
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    peak_mb: float | None = None
    file_mb: float | None = None
    nodes: int | None = None
    torch_s: float | None = None
    own_s: float | None = None


Number = Callable[[Case], float]
GROWTH: Final[dict[str, Number]] = {
    "batch": lambda case: case.batch,
    "side of the image": lambda case: case.size,
    "classes explained": lambda case: case.questions,
    "depth": lambda case: depth_of(case.network),
}


def depth_of(network: str) -> int:
    """Layers, by the name of the network; 0 without any in it."""
    return int((re.findall(r"\d+", network) or ["0"])[0])


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line a row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_csv(path: Path) -> list[Row]:
    """What `write_csv` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = {}
    for field in fields(Row):
        text, kind = line[field.name], str(field.type).partition(" ")[0]
        empty = "" if kind == "str" else None
        values[field.name] = {"str": str, "int": int, "float": float}[kind](text) if text else empty
    return Row(**values)


def markdown(rows: Sequence[Row]) -> str:
    """The table, without ways that lead nowhere; these follow in words."""
    head = ("network", "rule", "way", "side", "batch", "K", "threads", "ms (quartiles)", "/ forward", "limit")
    lines = [_line((*head, "peak MB", "file MB", "nodes", "compiled: torch + ours")), _line(["---"] * (len(head) + 4))]
    for row in (row for row in rows if not row.failure):
        times = f"{row.ms:.1f} ({row.low:.1f} to {row.high:.1f})"
        made = "" if row.torch_s is None else f"{row.torch_s:.0f} + {row.own_s:.0f} s"
        numbers = (_shown(row.ratio, ".2f"), _shown(row.limit, "d"), _shown(row.peak_mb, ".0f"))
        where = (row.size, row.batch, row.questions, row.threads)
        rest = (_shown(row.file_mb, ".1f"), _shown(row.nodes, "d"), made)
        lines.append(_line((row.network, f"`{row.rule}`", row.way, *map(str, where), times, *numbers, *rest)))
    failed = sorted({f"* {row.way}, `{row.rule}`, {row.network}: {row.failure}" for row in rows if row.failure})
    return "\n".join([*lines, *(["", "Not measured:", "", *failed] if failed else [])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def write_markdown(path: Path, rows: Sequence[Row], introduction: str) -> None:
    """Put the table between the marks of a page that has them; append both to one that has not."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if BEGIN not in text:
        text += f"\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    behind = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{introduction}\n\n{markdown(rows)}\n{END}{behind}", encoding="utf-8")


def plot(path: Path, series: dict[str, list[Row]]) -> None:
    """How the cost grows: a panel for each quantity of `GROWTH` that was varied, a line for each way."""
    figure = Figure(figsize=(3.6 * max(len(series), 1), 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(len(series), 1), squeeze=False)[0]
    for panel, (quantity, rows) in zip(panels, series.items(), strict=False):
        for way in dict.fromkeys(row.way for row in rows):
            points = sorted((GROWTH[quantity](case_of(row)), row.ms) for row in rows if row.way == way and row.ms)
            panel.plot(*zip(*points, strict=True), marker="o", label=way)
        panel.set(xlabel=quantity, ylabel="ms", ylim=(0, None))
        panel.set_title(f"{rows[0].rule} of {', '.join(dict.fromkeys(row.network for row in rows))}", fontsize=8)
    panels[0].legend(fontsize=7)
    figure.savefig(path)


def case_of(row: Row) -> Case:
    """What was measured."""
    return Case(row.network, row.rule, row.size, row.batch, row.questions, row.threads)
