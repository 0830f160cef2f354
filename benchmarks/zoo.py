"""Which networks compile? Models of torchvision, timm, transformers and others, random weights, one process each.

Steps, each for the models that passed the one before: `gradient` (captured and compiled, and the gradient is that of
autograd, float64), `conserve` (what `cp-lrp` hands out and absorbs is the score, float64), `file` (`attnlrp` in ONNX
Runtime is that of PyTorch, float32). What was measured is kept in a JSON-lines file and not measured again, so that an
interrupted run goes on where it was; with --again, what failed is.

    python -m benchmarks.zoo --libraries torchvision transformers --results zoo.jsonl --page docs/zoo.md
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from torch import nn

import relcompile
from benchmarks.parts.specimen import Inputs, Specimen, explained
from benchmarks.parts.zoo_models import LIBRARIES
from benchmarks.parts.zoo_page import Row, page, write_csv
from relcompile.backend.onnx_file import save

_IMPORTED: Final = (
    "torch._dynamo",
    "torch.export",
    "torch.onnx",
    "onnxscript",
    "onnxruntime",
)  # once for all processes


def _gradient(specimen: Specimen, row: Row) -> None:
    model, inputs = _built(specimen, torch.float64)
    row.parameters = sum(p.numel() for p in model.parameters())
    target = _targets(inputs)
    expected = specimen.gradient(model, inputs, target)
    explainer = relcompile.compile(model, inputs, rule="gradient*input")
    row.compiled = True
    with torch.no_grad():
        found = explainer(*inputs.values(), target)[len(explainer.metadata.outputs)]
    row.gradient = float((found - expected).abs().max() / expected.abs().max())


def _conserve(specimen: Specimen, row: Row) -> None:
    model, inputs = _built(specimen, torch.float64)
    target = _targets(inputs)
    explainer = relcompile.compile(model, inputs, rule="cp-lrp", absorbed=True)
    with torch.no_grad():
        found = explainer(*inputs.values(), target)
    count = len(explainer.metadata.outputs)  # behind them: the relevance of every input, and what was absorbed
    score = explained(found[:count])[torch.arange(len(target)), target].reshape(len(target), -1).sum(1)
    left = score - sum(part.flatten(1).sum(1) for part in found[count:])
    row.unaccounted = float((left / score).abs().max())


def _file(specimen: Specimen, row: Row) -> None:
    model, inputs = _built(specimen, torch.float32)
    explainer = relcompile.compile(model, inputs, rule="attnlrp")
    with tempfile.TemporaryDirectory() as folder:
        parity = save(explainer, Path(folder, "x.onnx"))
    row.parity = None if parity is None else parity.worst


STEPS: Final[Mapping[str, Callable[[Specimen, Row], None]]] = {
    "gradient": _gradient,
    "conserve": _conserve,
    "file": _file,
}
"""What is measured, in order; each fills its part of the row."""


def examine(specimen: Specimen, row: Row, steps: Sequence[str]) -> None:
    """Take the steps that are not behind `row` yet; the first that fails is the last."""
    start = time.perf_counter()
    for step in (step for step in steps if step not in row.steps and not row.failure):
        try:
            STEPS[step](specimen, row)
            row.steps = (*row.steps, step)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()][:4]
            row.failure = f"{step}: {type(error).__name__}: {' | '.join(lines)}"
    row.seconds += round(time.perf_counter() - start, 1)


def _built(specimen: Specimen, dtype: torch.dtype) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    model, inputs = specimen.build()
    return model.to(dtype).eval(), {k: x.to(dtype) if x.is_floating_point() else x for k, x in inputs.items()}


def _targets(inputs: Inputs) -> torch.Tensor:
    return torch.arange(len(next(iter(inputs.values()))))


def _run(specimen: Specimen, row: Row, steps: Sequence[str], pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # here: a pool of threads does not survive the fork
    examine(specimen, row, steps)
    pipe.send(row)


def examined(specimen: Specimen, row: Row, steps: Sequence[str], limit: float) -> Row:
    """The row of one model, filled in a process of its own: a crash or a hang is a failure like any other."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(specimen, row, steps, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(limit) else replace(row, failure=f"no answer within {limit:g} s")
    except EOFError:
        return replace(row, failure="the process died: out of memory?")
    finally:
        process.kill()
        process.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", nargs="*", choices=LIBRARIES, default=list(LIBRARIES), help="none: only write")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--only", default="", help="run the models whose name holds this text")
    parser.add_argument("--smallest", action="store_true", help="run the first model of each family")
    parser.add_argument("--again", action="store_true", help="run what failed again")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a model may take")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--page", type=Path, help="the table in Markdown")
    parser.add_argument("--csv", type=Path, help="the same as CSV")
    options = parser.parse_args(arguments)
    rows = _read(options.results)
    specimens = [s for library in options.libraries for s in LIBRARIES[library]() if options.only in s.name]
    first = {s.family: s for s in reversed(specimens)}
    _run_all([s for s in specimens if not options.smallest or first[s.family] is s], rows, options)
    if options.page:
        known = [(s.library, s.name) for specimens in LIBRARIES.values() for s in specimens()]
        options.page.write_text(page(rows.values(), known))
    if options.csv:
        write_csv(rows.values(), options.csv)
    return 0


def _run_all(specimens: Sequence[Specimen], rows: dict[tuple[str, str], Row], options: argparse.Namespace) -> None:
    console = Console(stderr=True)
    for name in _IMPORTED:
        importlib.import_module(name)
    for position, specimen in enumerate(specimens, start=1):
        key = (specimen.library, specimen.name)
        row = rows.get(key, Row(specimen.library, specimen.family, specimen.name))
        row = replace(row, failure="") if options.again else row
        if row.failure or set(options.steps) <= set(row.steps):
            continue
        rows[key] = row = examined(specimen, row, options.steps, options.limit)
        with options.results.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        console.print(f"{position}/{len(specimens)} {row.library} {row.model}: {row.failure or 'ok'}", markup=False)


def _read(path: Path) -> dict[tuple[str, str], Row]:
    """The last line about a model counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row.library, row.model): row for row in map(_row, lines)}


def _row(line: str) -> Row:
    values: dict[str, Any] = json.loads(line)
    values["steps"] = tuple(values["steps"])
    return Row(**values)


if __name__ == "__main__":
    sys.exit(main())
