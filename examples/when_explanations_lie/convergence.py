"""Figure 5 on the 6-layer CIFAR architecture with random weights: 1 - CSC (median) at every layer, for every rule."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Sequence
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
_LAYERS = ("fc5", "conv4", "conv3", "conv2", "conv1", "input")


def cifar_net() -> nn.Module:
    """Four convolutions, two max pools, two dense layers; Glorot weights, no biases to speak of (seed 0)."""
    sizes, layers, channels = (32, 64, 128, 128), OrderedDict[str, nn.Module](), 3
    for k, width in enumerate(sizes, start=1):
        layers[f"conv{k}"], layers[f"relu{k}"] = nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()
        layers |= {f"pool{k}": nn.MaxPool2d(2)} if k % 2 == 0 else {}
        channels = width
    layers |= {"flat": nn.Flatten(), "fc5": nn.Linear(8192, 1024), "relu5": nn.ReLU(), "fc6": nn.Linear(1024, 10)}
    network = nn.Sequential(layers)
    return randomise(network, layers_with_weights(network), 0).eval()


def main(arguments: Sequence[str] | None = None) -> Results:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--images", type=int, default=10, help="of noise in 0..1: no data is needed")
    parser.add_argument("--vectors", type=int, default=5)
    parser.add_argument("--output", type=Path, help="keep the results in this .parquet file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images = torch.rand(options.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rules = {name: Options(rule=name) for name in options.rules}
    results = evaluate(Subject(cifar_net(), images), rules, ["csc"], Settings(vectors=options.vectors))
    table = Table("rule", *_LAYERS, title="1 - CSC, median")
    for rule in rules:
        found = [1 - np.nanmedian(results.of(rule, "csc", layer=layer, step=0.5)) for layer in _LAYERS]
        table.add_row(rule, *(f"{value:.1e}" for value in found))
    Console(width=120).print(table)
    if options.output:
        results.save(options.output)
    return results


if __name__ == "__main__":
    main()
