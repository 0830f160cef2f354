"""How much slower than the plain forward pass is prediction + relevance?

All files run in turns in one process in ONNX Runtime on the CPU, with the same session options, so that a busy
machine slows all. The limit is the number of convolution passes that a rule needs: 3 for z+, 2 for epsilon.

    python -m benchmarks.speed --networks resnet18 resnet50 --rules z+ epsilon --json speed.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torchvision import models

import relcompile

LIMITS = {
    "forward": 1, "z+": 3, "epsilon": 2, "lrp-0": 2, "gradient": 2, "gradient*input": 2,
    "attnlrp": 2.04, "cp-lrp": 1.82,  # ViT-B/16 at 197 tokens
}  # fmt: skip
Run = Callable[[], Any]
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run (medians), and the median over the rounds of (this / the first run of the round)."""

    wall_ms: float
    wall_ratio: float
    cpu_ms: float
    cpu_ratio: float


@dataclass(frozen=True)
class Row:
    """One file."""

    network: str
    rule: str
    limit: float | None
    compile_s: float
    megabytes: float
    nodes: int
    timing: Timing


def interleaved(runs: Mapping[str, Run], rounds: int) -> dict[str, Timing]:
    """Time every run once a round; the first one is what the others are compared with."""
    walls, cpus = ({name: list[float]() for name in runs} for _ in range(2))
    for _ in range(rounds + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    return {name: Timing(*_median(walls, name), *_median(cpus, name)) for name in runs}


def _median(times: dict[str, list[float]], name: str) -> tuple[float, float]:
    """Milliseconds, and the ratio to the first run; the first round only warms up."""
    base = next(iter(times.values()))
    ratios = [a / max(b, 1e-9) for a, b in zip(times[name][1:], base[1:], strict=True)]
    return 1e3 * statistics.median(times[name][1:]), statistics.median(ratios)


def onnx_run(path: Path, x: torch.Tensor, threads: int) -> Run:
    """A function that runs the file once, on class 0 if it takes a target, on normal numbers if it takes noise."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    first, *others = session.get_inputs()
    feeds = {first.name: x.numpy()} | {entry.name: _argument(entry, len(x)) for entry in others}
    return lambda: session.run(None, feeds)


def _argument(entry: Any, batch: int) -> np.ndarray:
    shape = [size if isinstance(size, int) else batch for size in entry.shape]
    is_class = entry.type == "tensor(int64)"
    return np.zeros(shape, np.int64) if is_class else np.random.default_rng(0).standard_normal(shape, np.float32)


def export_forward(model: torch.nn.Module, x: torch.Tensor, path: Path) -> float:
    """Write the network without explanation, dynamic batch; the seconds it took."""
    start = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):  # the exporter's, about its own internals
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.onnx.export(model, (torch.cat([x, x]),), dynamo=True, dynamic_shapes=shapes, verbose=False)
        assert program is not None
        onnx.save_model(program.model_proto, str(path))
    return time.perf_counter() - start


def compare(
    network: str, model: torch.nn.Module, x: torch.Tensor, rules: Sequence[str], rounds: int, threads: int
) -> list[Row]:
    """The forward file and one explainer file per rule, timed in turns on `x`."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{k}.onnx") for k, name in enumerate(("forward", *rules))}
        seconds = {"forward": export_forward(model, x, paths["forward"])}
        for rule in rules:
            start = time.perf_counter()
            relcompile.compile(model, x, rule=rule).save(paths[rule])
            seconds[rule] = time.perf_counter() - start
        timings = interleaved({name: onnx_run(path, x, threads) for name, path in paths.items()}, rounds)
        sizes = {name: (path.stat().st_size / 1e6, len(onnx.load(path).graph.node)) for name, path in paths.items()}
    limits = {name: LIMITS.get(name.partition("=")[0]) for name in paths}
    return [Row(network, name, limits[name], seconds[name], *sizes[name], timings[name]) for name in paths]


def show(rows: Sequence[Row]) -> None:
    """Print them."""
    table = Table("network", "rule", title="ONNX Runtime, CPU, batch 1", title_justify="left")
    for heading in ("wall ms", "x forward", "CPU ms", "x forward", "limit", "compile s", "MB", "nodes"):
        table.add_column(heading, justify="right")
    for row in rows:
        t, limit = row.timing, str(row.limit or "")
        times = (f"{t.wall_ms:.1f}", f"{t.wall_ratio:.2f}", f"{t.cpu_ms:.1f}", f"{t.cpu_ratio:.2f}")
        size = (f"{row.compile_s:.0f}", f"{row.megabytes:.1f}", str(row.nodes))
        table.add_row(row.network, row.rule, *times, limit, *size)
    Console(width=120).print(table)


def reported(
    names: Iterable[str],
    measure: Callable[[str], list[Measured]],
    show: Callable[[list[Measured]], None],
    file: Path | None,
) -> list[Measured]:
    """The rows of all networks: those of one are shown as soon as they are there, all are written to `file`."""
    rows = list[Measured]()
    for name in names:
        found = measure(name)
        show(found)
        rows += found
    if file:
        file.write_text(json.dumps([asdict(cast("Any", row)) for row in rows], indent=2), encoding="utf-8")
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"], help="torchvision names")
    parser.add_argument("--rules", nargs="+", default=["z+", "epsilon"], help="see `relcompile rules`")
    parser.add_argument("--size", type=int, default=224, help="side of the input image")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds")
    parser.add_argument("--threads", type=int, default=1, help="of one operator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    x = torch.randn(1, 3, options.size, options.size)

    def compared(name: str) -> list[Row]:
        return compare(name, models.get_model(name).eval(), x, options.rules, options.rounds, options.threads)

    return reported(options.networks, compared, show, options.json)


if __name__ == "__main__":
    main()
