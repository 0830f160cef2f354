"""What does an explanation cost on a device, beside the prediction, and does it agree with the processor?

Networks with random weights, as a pair of files over one set of weights, on tensors of torch that stay on the device
(`ProductionExplainer.bind`); medians, and differences relative to the largest relevance. On a GPU: not measured.

    python -m benchmarks.device --device cuda --networks resnet18 vgg16 --rules z+ epsilon --batches 1 64
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torchvision import models

import relcompile
from relcompile.runtime.binding import Bound
from relcompile.runtime.options import GpuOptions


@dataclass(frozen=True)
class Row:
    """One rule at one size of the batch; milliseconds."""

    network: str
    rule: str
    batch: int
    predict: float
    explain: float
    ratio: float
    difference: float


def compared(network: str, rule: str, chosen: argparse.Namespace) -> list[Row]:
    """One row a size of the batch."""
    torch.manual_seed(0)
    sides, gpu, rows = (3, chosen.size, chosen.size), GpuOptions(cuda_graph=chosen.cuda_graph), list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "e.onnx")
        model = models.get_model(network).eval()
        relcompile.compile(model, torch.randn(2, *sides), rule=rule).save(path, pair=True)
        for batch in chosen.batches:
            x = torch.randn(batch, *sides)
            predict, explain, difference = measure(path, x, chosen.device, gpu, chosen.rounds)
            rows.append(Row(network, rule, batch, predict, explain, explain / predict, difference))
    return rows


def measure(path: Path, x: torch.Tensor, device: Any, gpu: GpuOptions, rounds: int) -> tuple[float, float, float]:
    """Milliseconds of the prediction and of the explanation, and the difference to the processor."""
    loaded, target = relcompile.load(path, device=device, gpu=gpu), torch.zeros(len(x), dtype=torch.int64)
    there = {"input": x.to(device), "target": target.to(device)}
    explains = loaded.bind(there)
    predicts = Bound(loaded.predictor, {"input": there["input"]}, gpu)
    times = _median(predicts.run, rounds), _median(explains.run, rounds)
    found = torch.from_dlpack(explains.run()["relevance"]).cpu()
    truth = relcompile.load(path, device="cpu").explain(x.numpy(), target=0).relevance
    return *times, float(abs(found.numpy() - truth).max() / abs(truth).max())


def _median(run: Callable[[], object], rounds: int) -> float:
    run()
    seconds = list[float]()
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda", "tensorrt"], default="cuda")
    parser.add_argument("--networks", nargs="+", default=["resnet18"], help="torchvision names")
    parser.add_argument("--rules", nargs="+", default=["z+", "epsilon"], help="see `relcompile rules`")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--size", type=int, default=224, help="side of the input image")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cuda-graph", action="store_true", help="record launches and replay them")
    chosen = parser.parse_args(arguments)
    rows = [row for network in chosen.networks for rule in chosen.rules for row in compared(network, rule, chosen)]
    table = Table(*Row.__dataclass_fields__, title=f"ONNX Runtime on {chosen.device}", title_justify="left")
    for row in rows:
        table.add_row(*(f"{value:.2g}" if isinstance(value, float) else str(value) for value in astuple(row)))
    Console().print(table)
    return rows


if __name__ == "__main__":
    main()
