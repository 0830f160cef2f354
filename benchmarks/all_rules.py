"""Every rule of the catalogue on any torchvision network: does it compile, how fast and how large is it, does it agree?

A rule is timed in turns with the plain forward pass of the same network, in one process in ONNX Runtime on the CPU.
Rules that need bounds or a calibration get bounds of ±3 and a calibration on noise: they cost the same with any.

    python -m benchmarks.all_rules --networks resnet50 vgg16 --size 224 --json all_rules.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from rich.console import Console
from rich.table import Table
from torchvision import models

import relcompile
from benchmarks.speed import Run, export_forward, interleaved, onnx_run, reported
from relcompile.backend.onnx_file import save
from relcompile.errors import RelcompileError
from relcompile.presets import PRESETS, Given, named

RULES = [name for name in PRESETS if not name.endswith("-unrolled")]  # minutes of compiling for up to 50 steps
_BOUNDS, _SAMPLES = (-3.0, 3.0), 4


@dataclass(frozen=True)
class Row:
    """One rule on one network; of a rule that does not compile only the reason.

    Attributes:
        ratio: time over that of the plain forward pass, the median over the rounds.
        parity: largest difference between ONNX Runtime and PyTorch, of the largest value of each output.
        size_ratio: size of the file over that of the plain network.
    """

    network: str
    rule: str
    ratio: float = 0.0
    milliseconds: float = 0.0
    parity: float = 0.0
    megabytes: float = 0.0
    size_ratio: float = 0.0
    nodes: int = 0
    compile_s: float = 0.0
    failure: str = ""


def measure(network: str, model: torch.nn.Module, x: torch.Tensor, rules: Sequence[str], rounds: int) -> list[Row]:
    """One row a rule."""
    given = Given(_BOUNDS, _calibration(model, x))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "forward.onnx")
        export_forward(model, x, plain)
        forward, size = onnx_run(plain, x, threads=1), plain.stat().st_size
        rows = list[Row]()
        for rule in rules:
            rows.append(_row(network, model, x, rule, given, {"forward": forward}, rounds, size))
            print(rows[-1], file=sys.stderr, flush=True)  # a whole table takes an hour
        return rows


def _calibration(model: torch.nn.Module, x: torch.Tensor) -> relcompile.Calibration | None:
    """From noise; None if the network cannot be calibrated, which the rules that need it will then say."""
    try:
        return relcompile.calibrate(model, [torch.randn(_SAMPLES, *x.shape[1:])])
    except RelcompileError:
        return None


def _row(
    network: str,
    model: torch.nn.Module,
    x: torch.Tensor,
    rule: str,
    given: Given,
    base: Mapping[str, Run],
    rounds: int,
    size: int,
) -> Row:
    """Compile, write, time; the file is gone afterwards."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "explainer.onnx")
        try:
            explainer = relcompile.compile(model, x, rule=named(rule, given))
            parity = save(explainer, path)
        except (RelcompileError, relcompile.PassError) as error:
            return Row(network, rule, failure=str(error).partition("\n")[0])
        seconds = time.perf_counter() - start
        timing = interleaved({**base, rule: onnx_run(path, x, threads=1)}, rounds)[rule]
        written = path.stat().st_size
        return Row(
            network,
            rule,
            ratio=timing.wall_ratio,
            milliseconds=timing.wall_ms,
            parity=parity.worst if parity else 0.0,
            megabytes=written / 1e6,
            size_ratio=written / size,
            nodes=len(onnx.load(path).graph.node),
            compile_s=seconds,
        )


def show(rows: Sequence[Row]) -> None:
    """Print them."""
    table = Table("network", "rule", title="ONNX Runtime, CPU, one thread, batch 1", title_justify="left")
    for heading in ("x forward", "ms", "ORT - PyTorch", "MB", "x network", "nodes", "compile s"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = (f"{row.ratio:.2f}", f"{row.milliseconds:.1f}", f"{row.parity:.0e}")
        size = (f"{row.megabytes:.1f}", f"{row.size_ratio:.2f}", str(row.nodes), f"{row.compile_s:.0f}")
        table.add_row(row.network, row.rule, *((row.failure,) if row.failure else (*times, *size)))
    Console(width=140).print(table)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "vgg16"], help="torchvision names")
    parser.add_argument("--rules", nargs="+", default=RULES, help="default: all of them, unrolled searches apart")
    parser.add_argument("--size", type=int, default=224, help="side of the input image")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    x = torch.randn(1, 3, options.size, options.size)

    def measured(name: str) -> list[Row]:
        return measure(name, models.get_model(name).eval(), x, options.rules, options.rounds)

    return reported(options.networks, measured, show, options.json)


if __name__ == "__main__":
    main()
