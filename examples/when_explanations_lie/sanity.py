"""Figure 4 on a small VGG-like net trained on Fashion-MNIST: random logit, and weights randomised from the top down."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import relcompile
from benchmarks.parts.networks import trained
from relcompile import Options
from relcompile.evaluation import Results, Settings, Subject, evaluate, verdicts
from relcompile.presets import PRESETS

RULES = (
    *("gradient", "smoothgrad", "guided-backprop", "deconvnet", "rectgrad", "dtd", "lrp-0", "alpha1beta0"),
    *("alpha2beta1", "alpha5beta4", "lrp-cmp-a1b0", "lrp-cmp-a2b1", "patternnet", "patternattribution"),
    *("deeplift-rescale", "deeplift-revealcancel", "deeplift-ablation", "root"),
)
_METRICS = ("csc", "random-logit", "cascade", "srg")


def asked(
    rules: Sequence[str], network: torch.nn.Module, images: torch.Tensor, bounds: tuple[float, float]
) -> dict[str, Options]:
    """What the compiler is asked for each rule: the pattern rules get patterns of other pictures than are explained."""
    given: dict[str, Any] = {"bounds": bounds, "calibration": None}
    if any("calibration" in PRESETS[rule].needs for rule in rules):
        given["calibration"] = relcompile.calibrate(network, images.split(100))
    return {rule: Options(rule=rule, **{need: given[need] for need in PRESETS[rule].needs}) for rule in rules}


def main(arguments: Sequence[str] | None = None) -> Results:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--cache", type=Path, default=Path("nets"), help="folder of the trained net")
    parser.add_argument("--output", type=Path, help="keep the results in this .parquet file, for `relcompile report`")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    subject = trained("vgg", options.cache)
    shown = Subject(subject.network, subject.images[: options.images])
    rules = asked(options.rules, subject.network, subject.images[-2000:], subject.bounds)
    begun = Results.load(options.output) if options.output and options.output.exists() else None

    def keep(partly: Results) -> None:
        if options.output:
            partly.save(options.output)

    results = evaluate(shown, rules, _METRICS, Settings(), begun=begun, keep=keep)
    table = Table("rule", "verdict")
    for verdict in verdicts(results):
        table.add_row(verdict.rule, verdict.sentence)
    Console(width=160).print(table)
    return results


if __name__ == "__main__":
    main()
