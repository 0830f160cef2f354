"""What an explanation costs, beside the forward pass and beside other libraries.

All ways of one case run in turns in one process, so that a busy machine slows all: medians and quartiles of the
rounds, and the median ratio to the forward pass of the same round. `limit` counts passes: forward, denominators and K
adjoint passes. Random weights. What the documentation shows, on two quiet cores in a quarter of an hour (without
`--sample` everything, in hours):

    python -m benchmarks.performance --sample --write docs

That writes performance.csv, the table of performance.md and images/growth.png in that folder (`--csv`, `--markdown` and
`--plot` one by one). Files are written after every case, and what the CSV file holds is not measured again. A part:

    python -m benchmarks.performance --networks resnet50 --rules z+ --batches 1 --threads 2 --questions 1 10 --no-growth
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final, TypeAlias

import torch
from rich.console import Console

from benchmarks.parts.report import Row, case_of, plot, read_csv, write_csv, write_markdown
from benchmarks.parts.ways import AUTOGRAD, FORWARD, OURS, WAYS, ZENNIT, Bench, Case, File
from benchmarks.speed import Run

NETWORKS: Final = ("resnet18", "resnet50", "vgg16", "mobilenet_v2", "densenet121", "convnext_tiny", "vit_b_16")
Plan: TypeAlias = tuple[Sequence[Case], Sequence[str]]  # cases, and the ways that are compared
DEPTHS: Final = ("resnet18", "resnet34", "resnet50", "resnet101")
_PEAK: Final = """
import pathlib, sys, numpy, onnxruntime
path, threads, batch, questions, size = sys.argv[1], *map(int, sys.argv[2:])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
image, *target = session.get_inputs()
feeds = {image.name: numpy.zeros((batch, 3, size, size), numpy.float32)}
feeds |= {entry.name: numpy.zeros((batch, questions)[: len(entry.shape)], numpy.int64) for entry in target}
session.run(None, feeds)
words = pathlib.Path("/proc/self/status").read_text().split()  # getrusage knows the peak of the parent, too
print(words[words.index("VmHWM:") + 1])
"""
_say = partial(Console(stderr=True).print, markup=False, highlight=False, soft_wrap=True)


def measure(bench: Bench, case: Case, ways: Sequence[str], rounds: int, *, memory: bool) -> list[Row]:
    """All ways of one case, in turns; the forward pass first."""
    torch.set_num_threads(case.threads)
    runs, failures = dict[str, Run](), dict[str, str]()
    for way in dict.fromkeys((FORWARD, *ways)):
        _say(f"prepare {case}: {way}")
        try:
            runs[way] = WAYS[way](bench, case)
            runs[way]()
        except (
            Exception
        ) as error:  # other libraries refuse with whatever they like, and nothing else is to stop for that
            runs.pop(way, None)
            failures[way] = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    times = in_turns(runs, rounds)
    return [
        *(_row(case, way, times, bench.file(way, case), memory=memory) for way in runs),
        *(_failed(case, way, failure) for way, failure in failures.items()),
    ]


def in_turns(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round."""
    times = {way: list[float]() for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            start = time.perf_counter()
            run()
            times[way].append(1e3 * (time.perf_counter() - start))
    return times


def _row(case: Case, way: str, times: Mapping[str, Sequence[float]], file: File | None, *, memory: bool) -> Row:
    own = times[way]
    low, middle, high = statistics.quantiles(own, n=4) if len(own) > 1 else [own[0]] * 3
    ratios = [a / b for a, b in zip(own, times.get(FORWARD, own), strict=True)]
    row = replace(_failed(case, way, ""), ms=middle, low=low, high=high, ratio=statistics.median(ratios))
    if file is None:
        return row
    made = replace(row, file_mb=file.megabytes, nodes=file.nodes, torch_s=file.torch_s, own_s=file.own_s)
    return replace(made, peak_mb=_peak_memory(file.path, case)) if memory else made


def _failed(case: Case, way: str, failure: str) -> Row:
    return Row(**asdict(case), way=way, limit=1 if way == FORWARD else case.passes, failure=failure)


def _peak_memory(path: Path, case: Case) -> float:
    """Megabytes of a process that does nothing but run the file once (Linux)."""
    numbers = map(str, (case.threads, case.batch, case.questions, case.size))
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path), *numbers], capture_output=True, check=True)
    return int(done.stdout) / 1024


def growth(first: Case) -> dict[str, list[Case]]:
    """Cases that differ in one quantity."""
    return {
        "batch": [replace(first, batch=batch) for batch in (1, 2, 4, 8)],
        "side of the image": [replace(first, size=size) for size in (112, 160, 224, 288)],
        "classes explained": [replace(first, questions=questions) for questions in (1, 2, 5, 10, 20)],
        "depth": [replace(first, network=network) for network in DEPTHS],
    }


def sample(size: int) -> list[Plan]:
    """What decides: the networks and rules that promises are about, other libraries at batch 1, many classes once."""
    plans = list[Plan]()
    for network in ("resnet50", "vgg16", "mobilenet_v2"):
        first = Case(network, "gradient", size, batch=1, questions=1, threads=2)
        rules = ("epsilon", "z+", *(() if network == "mobilenet_v2" else ("alpha2beta1", "gamma")))
        alone = [replace(first, rule=rule) for rule in rules]
        plans.append(([first], (OURS, AUTOGRAD)))
        plans.append((alone[:2], (OURS, ZENNIT)))
        plans.append((alone[2:], (OURS,)))
        plans.append(([replace(case, batch=8) for case in alone], (OURS,)))
        if network == "resnet50":
            plans.append(([replace(case, questions=10) for case in (first, *alone[:2])], (OURS,)))
    return plans


def everything(options: argparse.Namespace) -> list[Plan]:
    """All cases that were asked for, by all ways."""
    asked = product(options.networks, options.rules, options.batches, options.questions, options.threads)
    return [([Case(name, rule, options.size, *rest) for name, rule, *rest in asked], tuple(options.ways))]


class Suite:
    """All measurements; the files of one network are kept until the next one comes.

    Attributes:
        rows: what was measured.
        table: those that are no part of a curve.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._bench: Bench | None = None
        self.rows = read_csv(options.csv) if options.csv and options.csv.exists() else list[Row]()
        self.table = list[Row]()

    def tabulate(self, plan: Plan) -> None:
        """Measure what becomes a part of the table."""
        for case in plan[0]:
            self.table += self.measure(case, plan[1])
            self.write()

    def write(self) -> None:
        """The page: what was measured so far, and the curves if they were drawn."""
        page, curves = self._options.markdown, self._options.plot
        if page:
            told = f"Medians of {self._options.rounds} rounds, in turns; torch {torch.__version__}, random weights."
            drawn = curves and curves.exists()
            shown = f"![How the cost grows]({os.path.relpath(curves, page.parent)})\n\n" if drawn else ""
            write_markdown(page, self.table, shown + told)

    def measure(self, case: Case, ways: Sequence[str]) -> list[Row]:
        """The rows of a case, which are also written at once."""
        wanted = dict.fromkeys((FORWARD, *ways))
        known = [row for row in self.rows if case_of(row) == case and row.way in wanted]
        if len(known) >= len(wanted):
            return known
        if self._bench is None or self._bench.name != case.network:
            self._bench = Bench(case.network, self._folder)
        found = measure(self._bench, case, ways, self._options.rounds, memory=self._options.memory)
        for row in found:
            _say(f"{case}: {row.way}: {row.failure or f'{row.ms:.1f} ms, {row.ratio:.2f} forward'}")
        self.rows = [row for row in self.rows if row not in known] + found
        if self._options.csv:
            write_csv(self._options.csv, self.rows)
        return found


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.write:
        options.csv, options.markdown = options.write / "performance.csv", options.write / "performance.md"
        options.plot = options.write / "images" / "growth.png"
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(options, Path(folder))
        for plan in sample(options.size) if options.sample else everything(options):
            suite.tabulate(plan)
        first = Case(options.networks[0], options.rules[-1], options.size, 1, 1, options.threads[-1])
        curves = dict[str, list[Row]]()
        for quantity, cases in growth(first).items() if options.growth else ():
            curves[quantity] = [row for case in cases for row in suite.measure(case, (OURS,))]
            if options.plot:
                plot(options.plot, curves)
                suite.write()
    return suite.rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--networks", nargs="+", default=NETWORKS, help="torchvision names")
    add("--rules", nargs="+", default=["gradient", "epsilon", "z+"], help="see `relcompile rules`")
    add("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="what is compared")
    add("--sample", action="store_true", help="what the documentation shows, not all networks, rules, ways, ...")
    add("--size", type=int, default=224, help="side of the input image")
    add("--batches", nargs="+", type=int, default=[1, 8])
    add("--questions", nargs="+", type=int, default=[1, 10], help="classes that are explained of every sample")
    add("--threads", nargs="+", type=int, default=[1, 2], help="of one operator")
    add("--rounds", type=int, default=9, help="timed rounds")
    add(
        "--growth", action=argparse.BooleanOptionalAction, default=True, help="also batch, side, depth and K one by one"
    )
    add("--memory", action=argparse.BooleanOptionalAction, default=True, help="peak memory, in a process of its own")
    add("--write", type=Path, metavar="FOLDER", help="all three files of the documentation in this folder")
    for name in ("csv", "markdown", "plot"):
        add(f"--{name}", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
