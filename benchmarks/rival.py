"""relcompile beside the shortest way to the same file without it: trace an attribution library, then export.

The rival is `make_fx` over a zennit attribution call. Its trace holds autograd's backward operators; five
decompositions turn them into operators that the ONNX exporter knows. Batch, shapes and target are fixed in its file.

    python -m benchmarks.rival --rules epsilon z+
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch.fx.experimental.proxy_tensor import make_fx

import relcompile
from benchmarks.speed import Timing, export_forward, interleaved, onnx_run

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Row:
    """One way to one file; `difference` is that of the relevance from zennit's, of its maximum."""

    rule: str
    way: str
    seconds: float
    nodes: int
    megabytes: float
    convolutions: int
    dynamic_batch: bool
    difference: float
    timing: Timing


def _convolution(
    gradient: Any, x: Any, weight: Any, _bias: Any, stride: Any, padding: Any, dilation: Any, *rest: Any
) -> tuple[Any, None, None]:
    """The gradient of the input only, as a transposed convolution."""
    transposed, _, groups, wanted = rest
    if transposed or not wanted[0]:
        raise NotImplementedError("only the input's gradient of an ordinary convolution")
    geometry = zip(x.shape[2:], gradient.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    extra = [size - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for size, n, k, s, p, d in geometry]
    ours = aten.convolution(gradient, weight, None, stride, padding, dilation, True, extra, groups)
    return ours, None, None


def _max_pool(gradient: Any, x: Any, *arguments: Any) -> Any:
    """Every value goes back to where the maximum was."""
    flat = torch.zeros_like(x).flatten(2)
    return flat.scatter_add(2, arguments[-1].flatten(2), gradient.flatten(2)).view(x.shape)


def _average_pool(gradient: Any, x: Any) -> Any:
    """Of a pool to 1 x 1 only."""
    return (gradient / (x.shape[2] * x.shape[3])).expand(x.shape)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten._adaptive_avg_pool2d_backward.default: _average_pool,
    aten.threshold_backward.default: lambda gradient, y, threshold: torch.where(y > threshold, gradient, 0.0),
    aten.detach.default: lambda x: x,
}


def attribution(model: torch.nn.Module, rule: str) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Prediction and relevance of class 0 by the eager library: one rule on every convolution and linear layer."""
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import Epsilon, ZPlus
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Convolution, Linear

    made = {"epsilon": Epsilon, "z+": lambda: ZPlus(zero_params="bias")}[rule]
    layers = [*layer_map_base(), (Convolution, made()), (Linear, made())]
    composite = LayerMapComposite(layers, canonizers=[ResNetCanonizer()])

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attributor = Gradient(model=model, composite=composite, attr_output=_score_of_class_0)
        with attributor:
            result: Any = attributor(x)
        return result

    return run


def _score_of_class_0(output: torch.Tensor) -> torch.Tensor:
    return torch.cat([output[:, :1], torch.zeros_like(output[:, 1:])], dim=1)


def export_rival(model: torch.nn.Module, rule: str, x: torch.Tensor, path: Path) -> float:
    """Trace, decompose, export; the seconds it took."""
    start = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        traced = make_fx(attribution(model, rule), decomposition_table=DECOMPOSITIONS)(x)
        program = torch.onnx.export(traced, (x,), dynamo=True, verbose=False)
        assert program is not None
        onnx.save_model(program.model_proto, str(path))
    return time.perf_counter() - start


def export_relcompile(model: torch.nn.Module, rule: str, x: torch.Tensor, path: Path) -> float:
    """The same file by relcompile; the seconds it took."""
    start = time.perf_counter()
    relcompile.compile(model, x, rule=rule).save(path)
    return time.perf_counter() - start


def compare(model: torch.nn.Module, x: torch.Tensor, rule: str, rounds: int, threads: int) -> list[Row]:
    """Both files, timed in turns with the plain forward pass, on another input than they were built with."""
    ways = {"zennit + make_fx": export_rival, "relcompile": export_relcompile}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{k}.onnx") for k, name in enumerate(("forward", *ways))}
        export_forward(model, x, paths["forward"])
        seconds = {name: export(model, rule, x, paths[name]) for name, export in ways.items()}
        new = torch.randn_like(x)
        runs = {name: onnx_run(path, new, threads) for name, path in paths.items()}
        timings = interleaved(runs, rounds)
        wanted = attribution(model, rule)(new.clone())[1].detach().numpy()
        return [
            _row(rule, name, seconds[name], paths[name], _difference(runs[name]()[1], wanted), timings[name])
            for name in ways
        ]


def _difference(found: Any, wanted: Any) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _row(rule: str, way: str, seconds: float, path: Path, difference: float, timing: Timing) -> Row:
    model = onnx.load(path)
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node)
    dynamic = bool(model.graph.input[0].type.tensor_type.shape.dim[0].dim_param)
    size = path.stat().st_size / 1e6
    return Row(rule, way, seconds, len(model.graph.node), size, convolutions, dynamic, difference, timing)


def show(rows: Sequence[Row]) -> None:
    """Print the rows."""
    table = Table("rule", "way", "batch", title="ResNet-18, ONNX Runtime, CPU, batch 1", title_justify="left")
    for heading in ("build s", "nodes", "conv", "MB", "ms", "x forward", "(CPU)", "from zennit"):
        table.add_column(heading, justify="right")
    for row in rows:
        batch = "dynamic" if row.dynamic_batch else "fixed"
        counts = (f"{row.seconds:.0f}", str(row.nodes), str(row.convolutions), f"{row.megabytes:.1f}")
        ratios = (f"{row.timing.wall_ms:.1f}", f"{row.timing.wall_ratio:.2f}", f"{row.timing.cpu_ratio:.2f}")
        table.add_row(row.rule, row.way, batch, *counts, *ratios, f"{row.difference:.1e}")
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", default=["z+", "epsilon"], choices=["z+", "epsilon"])
    parser.add_argument("--size", type=int, default=224, help="side of the input image")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds")
    parser.add_argument("--threads", type=int, default=1, help="threads within one operator")
    options = parser.parse_args(arguments)
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model, x = resnet18().eval(), torch.randn(1, 3, options.size, options.size)
    rows = [row for rule in options.rules for row in compare(model, x, rule, options.rounds, options.threads)]
    show(rows)
    return rows


if __name__ == "__main__":
    main()
