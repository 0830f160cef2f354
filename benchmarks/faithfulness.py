"""Is the explanation faithful? Area between perturbation curves, sensitivity to the class, convergence.

Two small nets are trained on Fashion-MNIST (Debian package `dataset-fashion-mnist`) and kept in a folder; with a
folder of photographs and a table of their classes EfficientNet-Lite0 joins them. The measures are those of `relcompile
evaluate`; the area is the symmetric relevance gain, averaged over the occluders. Images before --start were used to
choose the defaults of `root` and are not reported.

    python -m benchmarks.faithfulness --cache nets --images 1000 --json faithfulness.json
    python -m benchmarks.faithfulness --networks efficientnet-lite0 --photographs FOLDER --table FILE.tsv
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import relcompile
from benchmarks.parts import networks
from relcompile.evaluation.metrics import convergence, perturbation
from relcompile.evaluation.metrics.intervals import estimate
from relcompile.methods.composites import Composite, Entry
from relcompile.presets import RULES, Given, named

RULE_NAMES = (
    *("root", "root=0", "root=5", "z+", "epsilon", "gamma", "gamma=0.1", "epsilon-plus"),
    *("root@w2", "z+@w2", "epsilon@w2", "gamma@w2", "epsilon-plus@w2"),
    *("root@flat", "z+@flat", "epsilon@flat", "gamma@flat", "epsilon-plus@flat"),
    *("gradient*input", "deeplift-revealcancel", "root-v1", "root-v2", "root-v3"),
)


@dataclass(frozen=True)
class Row:
    """One rule on one network.

    Attributes:
        area: mean area between the curves; low and high bound its 95 % interval.
        gain: mean over the images of (area of the first rule of the table - this one's), with its interval.
        cosine: median over images of the cosine between the maps of the two most probable classes.
        csc: median cosine similarity convergence at the input of the first layer, where it was asked for.
        areas: of every image.
    """

    network: str
    rule: str
    images: int
    area: float
    low: float
    high: float
    gain: tuple[float, float, float]
    cosine: float
    csc: float | None
    seconds: float
    areas: list[float]


def composite(name: str, subject: networks.Subject) -> Composite:
    """A rule by name; "RULE@FIRST" has another rule in the first layer."""
    rule, _, first = name.partition("@")
    made = named(rule, Given(bounds=subject.bounds))
    return made.with_entries(Entry(RULES[first].build(), kind="affine", first=True)) if first else made


def relevance(subject: networks.Subject, rule: Composite, classes: torch.Tensor) -> torch.Tensor:
    """Maps of every image for every column of `classes`: (columns, N, C, H, W)."""
    explainer = relcompile.compile(subject.network, subject.images[:2], rule=rule)
    size = 4 if subject.images.shape[-1] > 64 else 50
    with torch.no_grad():
        columns = [
            torch.cat([explainer(*pair)[1] for pair in zip(subject.images.split(size), k.split(size), strict=True)])
            for k in classes.T
        ]
    return torch.stack(columns)


def srg(
    subject: networks.Subject, classes: torch.Tensor, maps: torch.Tensor, shares: Sequence[float]
) -> NDArray[np.float64]:
    """Area between the perturbation curves of every picture, (N,), a mean over the occluders."""

    def probability(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs = torch.cat([subject.network(part) for part in images.split(64)])
        return outputs.softmax(1).gather(1, classes[:, None])[:, 0]

    images = subject.images
    segments = perturbation.patches(images.shape[2], images.shape[3], subject.patch)
    rank = perturbation.ranks(maps.double().sum(1), segments)
    areas = [
        perturbation.srg(
            perturbation.curves(probability, images, occlude(images), rank, segments, shares).numpy(), shares
        )
        for occlude in perturbation.OCCLUDERS.values()
    ]
    return np.mean(areas, axis=0)


def csc(subject: networks.Subject, rule: Composite, images: int = 20, vectors: int = 5) -> float:
    """Median cosine similarity convergence at the input, over pairs, places and pictures (seed 0)."""
    x = subject.images[:images]
    explainer = relcompile.compile(subject.network, x[:2], rule=rule, target="seed")
    with torch.no_grad():
        shape = subject.network(x[:1]).shape[1:]
        seeds = torch.randn(vectors, len(x), *shape, generator=torch.Generator().manual_seed(0))
        maps = torch.stack([explainer(x, seed)[1] for seed in seeds])
    cosines = torch.cat([convergence.csc(of_one) for of_one in maps.unbind(1)])
    return float(convergence.quantiles(cosines, (0.5,))[0])


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over pictures."""
    found = estimate(values, resamples=10_000)
    return found.low, found.high


def measure(subject: networks.Subject, name: str, shares: Sequence[float], *, converge: bool, base: Row | None) -> Row:
    """One row of the table."""
    start = time.process_time()
    with torch.no_grad():
        outputs = torch.cat([subject.network(part) for part in subject.images.split(50)])
    classes = outputs.topk(2, 1).indices
    rule = composite(name, subject)
    maps = relevance(subject, rule, classes)
    areas = srg(subject, classes[:, 0], maps[0], shares)
    gain = areas * 0 if base is None else base.areas - areas
    return Row(
        subject.name,
        name,
        len(areas),
        float(areas.mean()),
        *interval(areas),
        (float(gain.mean()), *interval(gain)),
        torch.cosine_similarity(maps[0].flatten(1), maps[1].flatten(1)).median().item(),
        csc(subject, rule) if converge else None,
        time.process_time() - start,
        areas.tolist(),
    )


def show(rows: Sequence[Row]) -> None:
    """Print them."""
    table = Table(title=f"{rows[0].network}, {rows[0].images} images", title_justify="left")
    table.add_column("rule")
    for heading in ("area", "95 %", f"gain of {rows[0].rule}", "95 %", "cosine of classes", "1 - CSC"):
        table.add_column(heading, justify="right")
    for row in rows:
        gain, low, high = row.gain
        cells = (f"{row.area:.3f}", f"{row.low:.3f}..{row.high:.3f}", f"{gain:+.3f}", f"{low:+.3f}..{high:+.3f}")
        table.add_row(row.rule, *cells, f"{row.cosine:.2f}", "" if row.csc is None else f"{1 - row.csc:.1e}")
    Console(width=120).print(table)


def subjects(options: argparse.Namespace) -> Mapping[str, Callable[[], networks.Subject]]:
    """The networks that were asked for, by name."""
    known: dict[str, Callable[[], networks.Subject]] = {
        name: lambda name=name: networks.trained(name, options.cache) for name in networks.TRAINED
    }
    if options.photographs and options.table:
        known["efficientnet-lite0"] = lambda: networks.efficientnet(options.photographs, options.table)
    return {name: known[name] for name in options.networks or known}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", help="vgg, resnet14, efficientnet-lite0; all that are there")
    parser.add_argument("--rules", nargs="+", default=RULE_NAMES, help="RULE, or RULE@FIRST; the first is compared")
    parser.add_argument("--cache", type=Path, default=Path("nets"), help="folder of the trained nets")
    parser.add_argument("--photographs", type=Path, help="folder of pictures for EfficientNet-Lite0")
    parser.add_argument("--table", type=Path, help="their classes: a tsv with the columns file and class_id")
    parser.add_argument("--start", type=int, default=160, help="position of the first image")
    parser.add_argument("--images", type=int, default=1000, help="their number")
    parser.add_argument("--shares", type=float, nargs="+", default=perturbation.SHARES, help="removed shares")
    parser.add_argument("--converge", nargs="*", default=("root", "z+"), help="rules whose CSC is measured")
    parser.add_argument("--threads", type=int, default=1, help="of one operator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = list[Row]()
    for load in subjects(options).values():
        subject, own = load().part(options.start, options.start + options.images), list[Row]()
        for name in options.rules:
            base = own[0] if own else None
            own.append(measure(subject, name, options.shares, converge=name in options.converge, base=base))
            if options.json:
                options.json.write_text(json.dumps([asdict(row) for row in (*rows, *own)]), encoding="utf-8")
        show(own)
        rows += own
    return rows


if __name__ == "__main__":
    main()
