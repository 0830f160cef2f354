"""What K conditions on the channels of a layer cost: in one run, and in K runs of one condition each.

Both files and zennit's run of one question take turns in one process; one class, batch 1, random weights. The limit
counts passes: forward, denominators and K adjoints over K times (forward, denominators and an adjoint).

    python -m benchmarks.conditions --network vgg16 --layers features.28 features.10 --conditions 8
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchvision import models

import relcompile
from benchmarks import rival
from benchmarks.parts.ways import Case
from benchmarks.performance import in_turns
from benchmarks.speed import Run
from relcompile.runtime.production import load

ONE, TOGETHER, ZENNIT = "one", "together", "zennit"


@dataclass(frozen=True)
class Row:
    """Milliseconds of a run (medians), and what K conditions take in one run over K single runs (of a round, median).

    Attributes:
        limit: the same in passes.
        share_of_zennit: one run over K runs of zennit.
    """

    rule: str
    layer: str
    one: float
    together: float
    share: float
    limit: float
    share_of_zennit: float


def measure(
    model: torch.nn.Module, x: torch.Tensor, rule: str, layer: str, count: int, threads: int, rounds: int
) -> Row:
    """One rule and layer."""
    explain = rival.attribution(copy.deepcopy(model), rule)
    captured, found = relcompile.capture(model, x), dict[str, Run]()
    with tempfile.TemporaryDirectory() as folder:
        for name, target in ((ONE, "index"), (TOGETHER, "indices")):
            path = Path(folder, f"{name}.onnx")
            captured.compile(rule=rule, target=target, masks=[layer]).save(path)
            found[name] = _explain(path, x, layer, count if name == TOGETHER else None, threads)
    times = in_turns({**found, ZENNIT: lambda: explain(x)}, rounds + 1)
    one, together, zennit = (times[name][1:] for name in (ONE, TOGETHER, ZENNIT))  # the first round warms up
    passes = [Case("", rule, x.shape[-1], 1, k, threads).passes or 0 for k in (count, 1)]
    return Row(
        rule=rule,
        layer=layer,
        one=statistics.median(one),
        together=statistics.median(together),
        share=_share(together, one, count),
        limit=passes[0] / (count * passes[1]),
        share_of_zennit=_share(together, zennit, count),
    )


def _explain(path: Path, x: torch.Tensor, layer: str, count: int | None, threads: int) -> Run:
    """Class 0 through the first channel, or through each of the first `count`."""
    explainer = load(path, device="cpu", threads=threads)
    (channels,) = (mask.input.shape[-1] for mask in explainer.metadata.masks)
    first = np.eye(int(channels), dtype=np.float32)[None]
    if count is None:
        return partial(explainer.explain, x.numpy(), target=0, masks={layer: first[:, 0]})
    return partial(explainer.explain, x.numpy(), target=[0] * count, masks={layer: first[:, :count]})


def _share(together: Sequence[float], one: Sequence[float], count: int) -> float:
    return statistics.median(all_of_them / (count * single) for all_of_them, single in zip(together, one, strict=True))


def show(rows: Sequence[Row], network: str, count: int) -> None:
    """Print them."""
    table = Table("rule", "layer", title=f"{count} conditions on {network}, batch 1", title_justify="left")
    for heading in (
        "one, ms",
        f"{count} in one run, ms",
        f"/ {count} single runs",
        "limit",
        f"/ {count} runs of zennit",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = (f"{share:.2f}" for share in (row.share, row.limit, row.share_of_zennit))
        table.add_row(row.rule, row.layer, f"{row.one:.0f}", f"{row.together:.0f}", *shares)
    Console(width=120).print(table)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="vgg16", help="a torchvision name")
    parser.add_argument("--layers", nargs="+", default=["features.28", "features.10"], help="that are masked")
    parser.add_argument(
        "--rules", nargs="+", default=["epsilon", "z+"], choices=["epsilon", "z+"], help="zennit's, too"
    )
    parser.add_argument("--conditions", type=int, default=8, help="channels, K")
    parser.add_argument("--size", type=int, default=224, help="side of the input image")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds")
    parser.add_argument("--threads", type=int, default=2, help="of one operator")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model, x = models.get_model(options.network).eval(), torch.randn(1, 3, options.size, options.size)
    how = (options.conditions, options.threads, options.rounds)
    rows = [measure(model, x, rule, layer, *how) for layer in options.layers for rule in options.rules]
    show(rows, options.network, options.conditions)
    return rows


if __name__ == "__main__":
    main()
