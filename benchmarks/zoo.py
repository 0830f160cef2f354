"""Which networks compile? Models of torchvision, timm and transformers with random weights, one process each.

For every model: captured, compiled; `gradient` against autograd in float64; what `cp-lrp` hands out and absorbs against
the score; the ONNX file against PyTorch; or the reason of the first failure. Results are kept in a JSON-lines file and
models that stand there are not run again, so that an interrupted run goes on where it was.

    python -m benchmarks.zoo --libraries torchvision transformers --results zoo.jsonl --markdown zoo.md
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console

import relcompile
from benchmarks.parts.zoo_models import LIBRARIES, Specimen
from relcompile.backend.onnx_file import save


@dataclass
class Row:
    """One model.

    Attributes:
        gradient: largest difference from autograd, of the largest gradient; float64.
        unaccounted: what is left of the score once relevance and what was absorbed on the way are taken off, of the
            score, under cp-lrp.
        parity: largest difference between ONNX Runtime and PyTorch, of the largest value of each output; float32.
        failure: the step that failed and the first lines of its error; "" if none did.
    """

    library: str
    family: str
    model: str
    captured: bool = False
    compiled: bool = False
    gradient: float | None = None
    unaccounted: float | None = None
    parity: float | None = None
    seconds: float = 0.0
    failure: str = ""


def examine(specimen: Specimen, row: Row) -> Iterator[str]:
    """Fill `row`; yields the name of each step before it is taken."""
    yield "build"
    model, inputs = specimen.build()
    model = model.double().eval()
    inputs = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    target = torch.arange(len(next(iter(inputs.values()))))
    yield "autograd"
    expected = specimen.gradient(model, inputs, target)
    yield "compile gradient"
    explainer = relcompile.compile(model, inputs, rule="gradient*input")
    row.captured = row.compiled = True
    with torch.no_grad():
        found = explainer(*inputs.values(), target)[len(explainer.metadata.outputs)]
    row.gradient = float((found - expected).abs().max() / expected.abs().max())
    yield "compile cp-lrp"
    explainer = relcompile.compile(model, inputs, rule="cp-lrp", absorbed=True)
    with torch.no_grad():
        output, *_, relevance, absorbed = explainer(*inputs.values(), target)
    score = output[torch.arange(len(target)), target]
    left = score - relevance.flatten(1).sum(1) - absorbed.flatten(1).sum(1)
    row.unaccounted = float((left / score).abs().max())
    yield "export"
    single = {name: x.float() if x.is_floating_point() else x for name, x in inputs.items()}
    explainer = relcompile.compile(model.float(), single, rule="attnlrp")
    with tempfile.TemporaryDirectory() as folder:
        parity = save(explainer, Path(folder, "x.onnx"))
    row.parity = None if parity is None else parity.worst


def _run(specimen: Specimen, row: Row, pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start, steps = time.perf_counter(), ["start"]
    try:
        steps.extend(examine(specimen, row))
    except Exception as error:
        row.captured = row.captured or not isinstance(error, relcompile.CaptureError)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()][:3]
        row.failure = f"{steps[-1]}: {type(error).__name__}: {' | '.join(lines)}"
    row.seconds = round(time.perf_counter() - start, 1)
    pipe.send(row)


def examined(specimen: Specimen, limit: float) -> Row:
    """The row of one model, made in a process of its own: a crash or a hang is a failure like any other."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    row = Row(specimen.library, specimen.family, specimen.name)
    process = context.Process(target=_run, args=(specimen, row, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(limit) else _failed(row, f"no answer within {limit:g} s")
    except EOFError:
        return _failed(row, "the process died")
    finally:
        process.kill()
        process.join()


def _failed(row: Row, reason: str) -> Row:
    row.failure = reason
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--only", help="run the models whose name holds this text")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a model may take")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    rows = _read(options.results)
    known = {(row.library, row.model) for row in rows}
    specimens = [s for library in options.libraries for s in LIBRARIES[library]()]
    left = [s for s in specimens if (s.library, s.name) not in known and (options.only or "") in s.name]
    for position, specimen in enumerate(left, start=1):
        row = examined(specimen, options.limit)
        rows.append(row)
        with options.results.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        console.print(f"{position}/{len(left)} {row.library} {row.model}: {row.failure or 'ok'}", markup=False)
    if options.markdown:
        options.markdown.write_text(markdown(rows))
    if options.csv:
        _write_csv(rows, options.csv)
    return 0


def markdown(rows: Sequence[Row]) -> str:
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


def _read(path: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))


if __name__ == "__main__":
    sys.exit(main())
