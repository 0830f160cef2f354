"""Which ONNX files compile? Files of several exporters and opsets, and trained ones of packages, one process each.

For every file: its output as a torch module against ONNX Runtime on the file itself; `gradient` against central
differences of ONNX Runtime; what `z+` hands out and absorbs against the score; the explainer in ONNX Runtime against
PyTorch; or the reason of the first failure. Results are kept in a JSON-lines file, and files that stand there are not
run again.

    python -m benchmarks.onnx_zoo --results onnx_zoo.jsonl --markdown onnx_zoo.md
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import relcompile
from benchmarks.parts.onnx_models import OnnxSpecimen, specimens
from relcompile.backend.onnx_file import save
from relcompile.cli.input_specs import example_inputs
from relcompile.frontend.onnx.model import OnnxModel
from relcompile.frontend.onnx.original import Original, check_original

DIRECTIONS = 4
REACHES, STEPS = (3e-5, 1e-4, 3e-4, 1e-3, 4e-3, 1.6e-2), 128  # how far, and how many; inputs are standard normal
ROUNDING = 2e-3  # standard error that differences may have by the rounding of float32, of the largest slope
Tensors = Mapping[str, torch.Tensor]


@dataclass
class Row:
    """One file.

    Attributes:
        opset: of its standard operators.
        nodes: that depend on its inputs.
        output: largest difference of the torch module from ONNX Runtime on the file, of the largest value.
        gradient: largest difference of directional derivatives from central differences of ONNX Runtime, of the
            largest of them.
        unaccounted: what is left of the score once relevance and what was absorbed on the way are taken off, of the
            score, under z+.
        parity: largest difference between the explainer in ONNX Runtime and in PyTorch.
        failure: the step that failed and the first lines of its error; "" if none did.
    """

    origin: str
    file: str
    opset: int | None = None
    nodes: int | None = None
    output: float | None = None
    gradient: float | None = None
    unaccounted: float | None = None
    parity: float | None = None
    seconds: float = 0.0
    failure: str = ""


def examine(specimen: OnnxSpecimen, row: Row, folder: Path) -> Iterator[str]:
    """Fill `row`; yields the name of each step before it is taken."""
    yield "write"
    path = specimen.place(folder)
    yield "read"
    model = relcompile.read_model(path)
    assert isinstance(model, OnnxModel)
    row.opset, row.nodes = model.graph.nodes[0].opset, len(model.graph.nodes)
    inputs = example_inputs(model, specimen.inputs)
    yield "compare with ONNX Runtime"
    row.output = max(check_original(model, inputs).values())
    name = model.graph.outputs[specimen.output].identifier
    captured = relcompile.capture(model, inputs)
    yield "gradient"
    if not model.is_quantised:  # what rounds has no slope
        explainer = captured.compile(rule="gradient", output=specimen.output)
        row.gradient = slope_error(model, explainer, inputs, specimen.output, name)
    yield "z+"
    explainer = captured.compile(rule="z+", output=specimen.output, absorbed=True)
    row.unaccounted = unaccounted(model, explainer, inputs, specimen.output)
    yield "export"
    parity = save(explainer, folder / "explainer.onnx")
    row.parity = None if parity is None else parity.worst


def slope_error(model: OnnxModel, explainer: relcompile.Explainer, inputs: Tensors, output: int, name: str) -> float:
    """`gradient` along random directions, against central differences of ONNX Runtime on the file."""
    target = targets(explainer, inputs, output)
    with torch.no_grad():
        slopes = explainer(*inputs.values(), target)[len(explainer.metadata.outputs) :]
    explained = dict(zip([k for k, x in inputs.items() if x.is_floating_point()], slopes, strict=True))
    classes, original, generator = target.tolist(), Original(model), torch.Generator().manual_seed(1)
    found, along = list[float](), list[Callable[[float], float]]()
    for _ in range(DIRECTIONS):
        ways = {k: torch.randn(inputs[k].shape, generator=generator) for k in explained}
        found.append(sum(float((explained[k] * ways[k]).double().sum()) for k in ways))
        along.append(lambda h, ways=ways: score(original.run(moved(inputs, ways, h))[name], classes))
    wanted = central_differences(along)
    return float(np.abs(np.subtract(found, wanted)).max() / np.abs(wanted).max())


def central_differences(functions: Sequence[Callable[[float], float]]) -> NDArray[np.float64]:
    """f'(0) of each: a line through the differences of many steps.

    Far ones cross kinks, which bend the line unseen; near ones see the rounding of float32, which scatters. The nearest
    reach counts at which it does not scatter: the choice knows nothing of the answer.
    """
    noise, best = np.inf, np.zeros(len(functions))
    for reach in REACHES:
        slopes, errors = np.transpose([_line(f, reach) for f in functions])
        scatter = errors.max() / np.abs(slopes).max()
        noise, best = min((noise, best), (scatter, slopes), key=lambda pair: pair[0])
        if noise < ROUNDING:
            break
    return best


def _line(f: Callable[[float], float], reach: float) -> tuple[float, float]:
    """Slope through the origin, and its standard error."""
    h = np.arange(1, STEPS + 1) * reach / STEPS
    rise = np.array([(f(step) - f(-step)) / 2 for step in h])
    slope = float((h * rise).sum() / (h * h).sum())
    return slope, float(np.sqrt(((rise - slope * h) ** 2).sum() / (STEPS - 1) / (h * h).sum()))


def targets(explainer: relcompile.Explainer, inputs: Tensors, output: int) -> torch.Tensor:
    """The best class of every sample."""
    first = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.int64)
    if explainer.metadata.target.classes is None:
        return first
    with torch.no_grad():
        scores = explainer(*inputs.values(), first)[output]
    return scores.reshape(*scores.shape[:2], -1).sum(2).argmax(1)


def moved(inputs: Tensors, ways: Tensors, step: float) -> dict[str, NDArray[Any]]:
    """The inputs, a step further along some ways."""
    return {name: (x + step * ways[name] if name in ways else x).numpy() for name, x in inputs.items()}


def score(y: NDArray[Any], classes: Sequence[int]) -> float:
    """What is explained: the score of the class of every sample, at all places."""
    return float(sum((row[k] if row.ndim else row).astype(np.float64).sum() for row, k in zip(y, classes, strict=True)))


def unaccounted(model: OnnxModel, explainer: relcompile.Explainer, inputs: Tensors, output: int) -> float:
    """The part of the score that is neither relevance nor absorbed; of a softmax, z+ explains the scores under it."""
    node = next(n for n in model.graph.nodes if model.graph.outputs[output].name in n.outputs)
    under = list[torch.Tensor]()
    handle = model.get_step(node.name).register_forward_pre_hook(lambda _module, given: under.append(given[0]))
    with torch.no_grad():
        target = targets(explainer, inputs, output)
        results = explainer(*inputs.values(), target)
        model(*inputs.values())
    handle.remove()
    count = len(explainer.metadata.outputs)
    y = under[0] if node.operator == "Softmax" else results[output]
    explained = torch.stack([(row[k] if row.dim() else row).sum() for row, k in zip(y, target.tolist(), strict=True)])
    left = explained - sum(r.flatten(1).sum(1) for r in results[count:])
    return float((left / explained).abs().max())


def _run(specimen: OnnxSpecimen, row: Row, pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start, steps = time.perf_counter(), ["start"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            steps.extend(examine(specimen, row, Path(folder)))
        except Exception as error:
            lines = [line.strip().replace(folder, "") for line in str(_bottom(error)).splitlines() if line.strip()][:3]
            row.failure = f"{steps[-1]}: {type(error).__name__}: {' | '.join(lines)}"
    row.seconds = round(time.perf_counter() - start, 1)
    pipe.send(row)


def _bottom(error: BaseException) -> BaseException:
    """What an exporter's error is about; relcompile's own say it."""
    own = isinstance(error, relcompile.RelcompileError | relcompile.PassError)
    return error if own or error.__cause__ is None else _bottom(error.__cause__)


def examined(specimen: OnnxSpecimen, limit: float) -> Row:
    """The row of one file, made in a process of its own: a crash or a hang is a failure like any other."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    row = Row(specimen.origin, specimen.name)
    process = context.Process(target=_run, args=(specimen, row, theirs))
    process.start()
    theirs.close()
    try:
        if ours.poll(limit):
            return ours.recv()
        row.failure = f"no answer within {limit:g} s"
    except EOFError:
        row.failure = "the process died"
    finally:
        process.kill()
        process.join()
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the files whose origin and name hold this text")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a file may take")
    parser.add_argument("--results", type=Path, default=Path("onnx_zoo.jsonl"))
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    known = {(row.origin, row.file) for row in rows}
    for specimen in specimens():
        if (specimen.origin, specimen.name) in known or options.only not in f"{specimen.origin}: {specimen.name}":
            continue
        row = examined(specimen, options.limit)
        rows.append(row)
        with options.results.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        console.print(f"{row.origin}: {row.file}: {row.failure or 'ok'} {row}", markup=False)
    if options.markdown:
        options.markdown.write_text(markdown(rows))
    return 0


def markdown(rows: Sequence[Row]) -> str:
    """One line a file."""
    lines = [
        "| written by, or in | file | opset | nodes | output | gradient | unaccounted | explainer | s | failure |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = ["" if x is None else f"{x:.0e}" for x in (row.output, row.gradient, row.unaccounted, row.parity)]
        counts = ["" if x is None else str(x) for x in (row.opset, row.nodes)]
        failure = row.failure.replace("|", "\\|")
        cells = [row.origin, row.file, *counts, *numbers, f"{row.seconds:g}", failure]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
