"""Figure 4: random logit, and weights randomised from the top down; with convergence (figure 5) and perturbation.

python -m examples.when_explanations_lie.sanity                                # a small VGG, trained on Fashion-MNIST
python -m examples.when_explanations_lie.sanity --network squeezenet           # ImageNet weights, eight photographs
python -m examples.when_explanations_lie.sanity --network efficientnet-lite0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import relcompile
from benchmarks.parts import networks
from examples.when_explanations_lie.pretrained import PRETRAINED, pretrained
from relcompile import Options
from relcompile.evaluation import Results, Settings, Subject, evaluate, verdicts
from relcompile.evaluation.metrics.intervals import Estimate
from relcompile.presets import PRESETS

RULES = (
    *("gradient", "smoothgrad", "guided-backprop", "deconvnet", "rectgrad", "dtd", "lrp-0", "alpha1beta0"),
    *("alpha2beta1", "alpha5beta4", "lrp-cmp-a1b0", "lrp-cmp-a2b1", "patternnet", "patternattribution"),
    *("deeplift-rescale", "deeplift-revealcancel", "deeplift-ablation", "root"),
)
_METRICS = ("csc", "random-logit", "cascade", "srg")
_SMALL = "vgg"


def asked(
    rules: Sequence[str], network: torch.nn.Module, images: torch.Tensor, bounds: tuple[float, float]
) -> dict[str, Options]:
    """What the compiler is asked for each rule: the pattern rules get patterns of other pictures than are explained."""
    given: dict[str, Any] = {"bounds": bounds, "calibration": None}
    if any("calibration" in PRESETS[rule].needs for rule in rules):
        given["calibration"] = relcompile.calibrate(network, images.split(100))
    return {rule: Options(rule=rule, **{need: given[need] for need in PRESETS[rule].needs}) for rule in rules}


def show(results: Results) -> None:
    """One row a rule: medians (SRG: the mean) with their intervals, and the verdict."""
    table = Table("rule", "random-logit SSIM", "SSIM, all layers random", "1 - CSC", "SRG", "later layers")
    for verdict in verdicts(results):
        given = verdict.evidence
        cells = [_cell(given.get(name)) for name in ("random-logit SSIM", "cascade SSIM", "SRG")]
        cells.insert(2, f"{1 - given['CSC'].value:.1g}" if "CSC" in given else "")
        table.add_row(verdict.rule, *cells, f"{verdict.standing} {verdict.ignored_above or ''}".strip())
    Console(width=160).print(table)
    for what, reason in results.refused.items():
        print(f"{what}: {reason.splitlines()[0]}")


def _cell(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.2f} ({found.low:.2f}..{found.high:.2f})"


def main(arguments: Sequence[str] | None = None) -> Results:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=[_SMALL, *PRETRAINED], default=_SMALL)
    parser.add_argument("--rules", nargs="+", help="all of the paper's; with photographs, those that learn no patterns")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--size", type=int, default=128, help="side of the photographs")
    parser.add_argument("--cache", type=Path, default=Path("nets"), help="folder of the trained net")
    parser.add_argument("--output", type=Path, help="keep the results in this .parquet file, for `relcompile report`")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    is_small = options.network == _SMALL
    subject = networks.trained(_SMALL, options.cache) if is_small else pretrained(options.network, options.size)
    shown = Subject(subject.network, subject.images[: options.images])
    names = options.rules or [rule for rule in RULES if is_small or "calibration" not in PRESETS[rule].needs]
    rules = asked(names, subject.network, subject.images[-2000:], subject.bounds)
    begun = Results.load(options.output) if options.output and options.output.exists() else None

    def keep(partly: Results) -> None:
        if options.output:
            partly.save(options.output)

    results = evaluate(shown, rules, _METRICS, Settings(), begun=begun, keep=keep)
    show(results)
    return results


if __name__ == "__main__":
    main()
