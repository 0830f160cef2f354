"""Figure 5 on architectures with random weights: 1 - CSC (median) at several layers, for every rule.

python -m examples.when_explanations_lie.convergence                                          # 6 layers, 32 px
python -m examples.when_explanations_lie.convergence --network vgg16 --size 64 --images 2
python -m examples.when_explanations_lie.convergence --network resnet50 --size 64 --images 2
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from relcompile import Options
from relcompile.evaluation import Results, Settings, Subject, evaluate
from relcompile.evaluation.randomised import layers_with_weights, randomise

RULES = (
    *("alpha1beta0", "alpha2beta1", "alpha5beta4", "lrp-0", "gradient", "guided-backprop", "deconvnet"),
    *("deeplift-rescale", "deeplift-ablation", "root"),
)


@dataclass(frozen=True)
class Architecture:
    """A network without weights, and where relevance is looked at, from the top down."""

    made: Callable[[], nn.Module]
    layers: Sequence[str]


def _of_torchvision(name: str) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        from torchvision import models

        return models.get_model(name)

    return made


def cifar_net() -> nn.Module:
    """Four convolutions, two max pools, two dense layers."""
    sizes, layers, channels = (32, 64, 128, 128), OrderedDict[str, nn.Module](), 3
    for k, width in enumerate(sizes, start=1):
        layers[f"conv{k}"], layers[f"relu{k}"] = nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()
        layers |= {f"pool{k}": nn.MaxPool2d(2)} if k % 2 == 0 else {}
        channels = width
    layers |= {"flat": nn.Flatten(), "fc5": nn.Linear(8192, 1024), "relu5": nn.ReLU(), "fc6": nn.Linear(1024, 10)}
    return nn.Sequential(layers)


ARCHITECTURES = {
    "cifar": Architecture(cifar_net, ("fc5", "conv4", "conv3", "conv2", "conv1", "input")),
    "vgg16": Architecture(
        _of_torchvision("vgg16"),
        ("classifier.3", "features.28", "features.21", "features.14", "features.5", "features.0", "input"),
    ),
    "resnet50": Architecture(
        _of_torchvision("resnet50"),
        ("layer4.2.conv3", "layer3.5.conv3", "layer2.3.conv3", "layer1.2.conv3", "conv1", "input"),
    ),
}


def untrained(architecture: Architecture) -> nn.Module:
    """Glorot weights, no biases, neutral norms (seed 0)."""
    network = architecture.made()
    return randomise(network, layers_with_weights(network), 0).eval()


def main(arguments: Sequence[str] | None = None) -> Results:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(ARCHITECTURES), default="cifar")
    parser.add_argument("--size", type=int, default=32, help="side of the pictures")
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--images", type=int, default=10, help="of noise in 0..1: no data is needed")
    parser.add_argument("--vectors", type=int, default=5)
    parser.add_argument("--output", type=Path, help="keep the results in this .parquet file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    architecture = ARCHITECTURES[options.network]
    images = torch.rand(options.images, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    rules = {name: Options(rule=name) for name in options.rules}
    results = evaluate(Subject(untrained(architecture), images), rules, ["csc"], Settings(vectors=options.vectors))
    table = Table("rule", *architecture.layers, title="1 - CSC, median")
    for rule in rules:
        if f"{rule} csc" in results.refused:
            table.add_row(rule, results.refused[f"{rule} csc"].splitlines()[0])
            continue
        found = [1 - np.nanmedian(results.of(rule, "csc", layer=layer, step=0.5)) for layer in architecture.layers]
        table.add_row(rule, *(f"{value:.1e}" for value in found))
    Console(width=120).print(table)
    if options.output:
        results.save(options.output)
    return results


if __name__ == "__main__":
    main()
