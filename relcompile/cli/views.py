"""What the command line prints: rich tables on stdout, errors and progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from relcompile.files.paths import identity
from relcompile.files.records import InputRecord, LayerRecord, RootsRecord
from relcompile.files.text import printable
from relcompile.metadata import FALLBACK, Metadata

if TYPE_CHECKING:
    from relcompile.evaluation.verdict import Verdict
    from relcompile.methods.catalogue import Description
    from relcompile.pictures.text import ColouredText

_out = Console()
_err = Console(stderr=True)
_STRONGEST = 6  # tokens whose relevance is printed as a number


def plain(text: str) -> Text:
    """`text` as it stands: no markup is read in it, and no control character reaches the terminal."""
    return Text(printable(text))


def error(message: str) -> None:
    """One message on stderr."""
    _err.print(Text("error: ", "bold red").append(_lines(message)), soft_wrap=True)


def note(message: str) -> None:
    """One line on stderr."""
    _err.print(_lines(message), soft_wrap=True)


@contextmanager
def replacing(paths: Iterable[Path]) -> Generator[None]:
    """Say in the end, however it comes, which of the files that are there now were replaced."""
    before = {path: known for path in paths if (known := identity(path)) is not None}
    try:
        yield
    finally:
        gone = [path for path, known in before.items() if identity(path) != known]
        further = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        if gone:
            note(f"output: {gone[0]}{further} (what was there is replaced)")


def _lines(message: str) -> Text:
    return Text("\n").join(map(plain, message.split("\n")))


@contextmanager
def progress(what: str) -> Generator[Callable[[str], None]]:
    """A spinner with the current step and the time; yields what is told the name of each step.

    A line a step where nobody watches a terminal.
    """
    if not _err.is_terminal:
        yield lambda step: note(f"{what}: {step}")
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True) as bar:
        task = bar.add_task(what)
        yield lambda step: bar.update(task, description=printable(f"{what}: {step}"))


@contextmanager
def progress_bar(what: str, total: int, done: int = 0) -> Generator[Callable[[int], None]]:
    """A bar with the time that is left; yields what is told how many of `total` are done.

    A line a time where nobody watches a terminal.
    """
    if not _err.is_terminal:
        yield lambda count: note(f"{what}: {count} of {total}")
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.update(task, completed=count)


def facts(title: str, rows: Mapping[str, str]) -> None:
    """Two columns: what, and its value."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, plain(value))
    _out.print(table)


def layers(records: Sequence[LayerRecord]) -> None:
    """One row per operator that relevance passes through."""
    table = Table("layer", "operator", "kind", "rule", title=f"{len(records)} operators", title_justify="left")
    table.add_column("parameters", justify="right")
    for record in records:
        cells = map(plain, (record.name, record.operator, record.kind, record.rule, f"{record.parameters:,}"))
        table.add_row(*cells)
    _out.print(table)


def summary(records: Sequence[LayerRecord]) -> None:
    """One row per kind of operator and rule."""

    def key(record: LayerRecord) -> tuple[str, str, str]:
        return record.kind, record.operator, record.rule

    table = Table("kind", "operator", "rule", "layers", title="rules", title_justify="left")
    table.add_column("number", justify="right")
    table.add_column("parameters", justify="right")
    for (kind, operator, rule), group in groupby(sorted(records, key=key), key):
        members = list(group)
        names = members[0].name if len(members) == 1 else f"{members[0].name}, ..., {members[-1].name}"
        total = sum(member.parameters for member in members)
        table.add_row(*map(plain, (kind, operator, rule, names, str(len(members)), f"{total:,}")))
    _out.print(table)


def roots(record: RootsRecord, rows: Sequence[Sequence[float]], title: str) -> None:
    """One row per layer whose root was learned."""
    table = Table("layer", title=plain(title), title_justify="left")
    for quantity in record.quantities:
        table.add_column(plain(quantity), justify="right")
    for layer, values in zip(record.layers, rows, strict=True):
        table.add_row(plain(layer), *(f"{value:.3g}" for value in values))
    _out.print(table)


def metadata(data: Metadata) -> None:
    """What an explainer says about itself; what does not apply is left out."""
    facts("explainer", {name: text for name, text in _rows(data).items() if text})


def _rows(data: Metadata) -> dict[str, str]:
    target = ", ".join(data.target.description)
    seen = data.preprocessing
    fallen = [record for record in data.layers if record.rule == FALLBACK]
    return {
        "model": data.model or "",
        "rule": rule(data),
        "inputs": ", ".join(map(_tensor, data.inputs)),
        "outputs": ", ".join(data.output_names),
        "explained": data.explained if data.quantity == "the output" else f"{data.explained}: {data.quantity}",
        "target": target if data.target.classes is None else f"{target} of {data.target.classes}",
        "weights sha256": data.weights_sha256,
        "written by": f"relcompile {data.relcompile}, torch {data.torch}",
        "read at layer": data.at or "",
        "starts at layer": data.start or "",
        "taps": ", ".join(f"{tap.name} ({_shape(tap.shape)})" for tap in data.taps),
        "masks": ", ".join(_tensor(mask.input) for mask in data.masks),
        "ways around masks": "cut" if data.exclude_parallel else "",
        "relevance as": ", ".join(filter(None, (data.reduce and f"{data.reduce} over channels", data.output_dtype))),
        "mean over": data.sampling or "",
        "noise": ", ".join(map(_tensor, data.noise)),
        "reference": data.reference or "",
        "gradient as fallback": ", ".join(f"{record.name} ({record.operator})" for record in fallen),
        "rules of layers": ", ".join(data.layer_rules),
        "preprocessing": ", ".join(f"{k}={v}" for k, v in vars(seen).items() if v is not None) if seen else "",
        "photographs": photographs(data) if seen else "",
    }


def _tensor(record: InputRecord) -> str:
    return f"{record.name} ({_shape(record.shape)}) {record.dtype}"


def _shape(sizes: Iterable[object]) -> str:
    return " x ".join(map(str, sizes))


def rule(data: Metadata) -> str:
    """The rule, and why it is this one if nobody chose it."""
    return data.rule if data.chosen is None else f"{data.rule}, chosen as {data.chosen}"


def photographs(data: Metadata) -> str:
    """What happens to a photograph, for the first input that one becomes."""
    image = next((i.shape for i in data.inputs if len(i.shape) == 4), None)
    if data.preprocessing is None or image is None:
        return ""
    height, width = (size if isinstance(size, int) else 0 for size in image[2:])
    return data.preprocessing.steps(height, width)


def classes(title: str, rows: Sequence[tuple[str, float]]) -> None:
    """The best classes of one photograph."""
    table = Table("class", title=plain(title), title_justify="left")
    table.add_column("score", justify="right")
    for name, score in rows:
        table.add_row(plain(name), f"{score:.3f}")
    _out.print(table)


def coloured_text(text: ColouredText) -> None:
    """A text whose tokens have the colour of their relevance; what speaks against is underlined, too."""
    line = Text()
    for run in text.runs():
        shown = plain(run.text)
        if run.value is not None:
            colour = "#{:02x}{:02x}{:02x}".format(*text.colour(run.value))
            shown.stylize(f"black on {colour}{' underline' if run.value < 0 else ''}")
        line.append_text(shown)
    _out.print(plain(text.title), style="bold")
    _out.print(line, soft_wrap=True)
    strongest = sorted(zip(text.pieces, text.relevance, strict=True), key=lambda pair: -abs(pair[1]))[:_STRONGEST]
    words = ", ".join(f"{piece.token} {value:+.3g}" for piece, value in strongest)
    _out.print(plain(f"{words}{'. ' if text.note else ''}{text.note}"), style="dim", soft_wrap=True)


def rules(descriptions: Sequence[Description]) -> None:
    """Every rule name with its equation, conservation and source."""
    for description in descriptions:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column()
        for label, text in (("", description.summary), *description.facts):
            grid.add_row(label.lower(), plain(text))
        _out.print(Text(description.name, "bold"))
        _out.print(Padding(grid, (0, 0, 1, 4)))


def operators(names: Mapping[str, Sequence[str]]) -> None:
    """Supported operators by kind."""
    table = Table("kind", "operators", title="supported operators", title_justify="left")
    for kind, members in names.items():
        table.add_row(kind, ", ".join(members))
    _out.print(table)


def verdicts(found: Sequence[Verdict], refused: Mapping[str, str]) -> None:
    """One line a rule, and what could not be measured."""
    table = Table("rule", "verdict", title="verdict", title_justify="left")
    for verdict in found:
        table.add_row(plain(verdict.rule), plain(verdict.sentence))
    _out.print(table)
    for unit, reason in refused.items():
        note(f"not measured: {unit}: {reason}")
