"""What random relevances at the output become in every layer of VGG-16: compiled, and with zennit's hooks.

The measure is `csc` of `relcompile evaluate`: for each picture several vectors start at the output, and relevance is
read at every layer. Compiled, all vectors share one forward pass; hooks are given the picture once a vector. Both do
the same pictures in turns, in PyTorch, and both are asked whether they found the same.

    python -m benchmarks.csc --size 64 --images 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import relcompile
from relcompile.evaluation.metrics.convergence import csc
from relcompile.evaluation.trial import folded

RULES = ("z+", "alpha2beta1", "epsilon", "gamma")
Relevances = list[Tensor]
Way = Callable[[Tensor, Tensor], Relevances]


@dataclass(frozen=True)
class Row:
    """One rule.

    Attributes:
        rule: its name.
        compilation: seconds of one core until the explainer is there.
        ours: seconds of one core, for all pictures.
        theirs: the same, with hooks.
        difference: largest difference of the relevances of any layer, of the layer's largest one.
        similarity: the largest difference of any layer's median |cos|.
    """

    rule: str
    compilation: float
    ours: float
    theirs: float
    difference: float
    similarity: float

    @property
    def ratio(self) -> float:
        """How many times faster the compiled one is."""
        return self.theirs / self.ours


def network(size: int) -> nn.Module:
    """VGG-16 with random weights (seed 0), its first dense layer as large as the picture wants it."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    made: Any = vgg16()
    made.avgpool = nn.Identity()
    made.classifier[0] = nn.Linear(512 * (size // 32) ** 2, 4096)
    for module in made.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)  # as everywhere else: libraries differ in what biases get
    return made.eval()


def read_layers(model: nn.Module) -> list[str]:
    """Layers with weights, but for the last one: there relevance starts."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)][:-1]


def compiled(captured: relcompile.CapturedModel, rule: str) -> Way:
    """Seeds (K, classes) for a picture (C, H, W) -> relevance of the input and of every layer, (K, ...)."""
    explainer = folded(captured.compile(rule=rule, target="seeds", taps=tuple(read_layers(captured.model))))

    def run(image: Tensor, seeds: Tensor) -> Relevances:
        with torch.no_grad():
            return [found[0] for found in explainer(image[None], seeds[None])[1:]]

    return run


@contextmanager
def hooked(model: nn.Module, rule: str) -> Generator[Way]:
    """The same by zennit, while its hooks are on the model."""
    from zennit.composites import LayerMapComposite
    from zennit.rules import AlphaBeta, Epsilon, Gamma, Pass, ZPlus
    from zennit.types import Activation, Convolution, Linear

    made: Any = {
        "z+": ZPlus,
        "alpha2beta1": lambda: AlphaBeta(alpha=2, beta=1),
        "epsilon": Epsilon,
        "gamma": Gamma,
    }[rule]
    found = dict[str, Tensor]()

    def watch(name: str) -> Callable[..., None]:
        def forward_hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            output.register_hook(lambda grad: found.update({name: grad}))

        return forward_hook

    names = read_layers(model)
    composite = LayerMapComposite([(Activation, Pass()), (Convolution, made()), (Linear, made())])
    with composite.context(model):
        handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]

        def run(image: Tensor, seeds: Tensor) -> Relevances:
            x = image.expand(len(seeds), *image.shape).clone().requires_grad_()
            (relevance,) = torch.autograd.grad(model(x), x, seeds)
            return [relevance, *(found[name] for name in names)]

        yield run
        for handle in handles:
            handle.remove()


def compare(captured: relcompile.CapturedModel, rule: str, images: Tensor, vectors: int) -> Row:
    """Both ways, in turns, picture by picture; one vector for the first of them goes before, untimed."""
    generator = torch.Generator().manual_seed(0)
    start = time.process_time()
    ours = compiled(captured, rule)
    row = Row(rule, time.process_time() - start, 0.0, 0.0, 0.0, 0.0)
    with hooked(captured.model, rule) as theirs:
        classes = captured.model(images[:1]).shape[1]
        seeds = torch.randn(len(images), vectors, classes, generator=generator)
        for way in (ours, theirs):
            way(images[0], seeds[0][:1])
        for image, given in zip(images, seeds, strict=True):
            (found, spent), (wanted, hooks) = (_timed(way, image, given) for way in (ours, theirs))
            pairs = list(zip(found, wanted, strict=True))
            difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
            similarity = max(abs(_median(a) - _median(b)) for a, b in pairs)
            row = Row(
                rule,
                row.compilation,
                row.ours + spent,
                row.theirs + hooks,
                max(row.difference, difference),
                max(row.similarity, similarity),
            )
    return row


def _timed(way: Way, image: Tensor, seeds: Tensor) -> tuple[Relevances, float]:
    start = time.process_time()
    found = way(image, seeds)
    return found, time.process_time() - start


def _median(relevance: Tensor) -> float:
    return float(np.nanmedian(csc(relevance).numpy()))


def show(rows: Sequence[Row], title: str) -> None:
    """Print them, and their sum."""
    table = Table("rule", title=title, title_justify="left")
    for heading in ("compile s", "compiled s", "zennit s", "times faster", "relevance differs", "|cos| differs"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (f"{row.compilation:.1f}", f"{row.ours:.2f}", f"{row.theirs:.2f}", f"{row.ratio:.1f}")
        table.add_row(row.rule, *numbers, f"{row.difference:.0e}", f"{row.similarity:.0e}")
    spent, ours, theirs = (sum(getattr(row, name) for row in rows) for name in ("compilation", "ours", "theirs"))
    table.add_row("all", f"{spent:.1f}", f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}")
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--images", type=int, default=10, help="pictures of noise")
    parser.add_argument("--vectors", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="side of a picture, a multiple of 32")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images = torch.randn(options.images, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    captured = relcompile.capture(network(options.size), images[:2])
    rows = list[Row]()
    for rule in options.rules:
        rows.append(compare(captured, rule, images, options.vectors))
        print(f"{rule}: {rows[-1].ratio:.1f} times faster", flush=True)
    what = f"VGG-16, {options.size} px, {options.images} pictures, {options.vectors} vectors; seconds of one core"
    show(rows, what)
    return rows


if __name__ == "__main__":
    main()
