"""One line a rule: what the numbers say of it, by thresholds that are stated here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from relcompile.evaluation.measures import INPUT
from relcompile.evaluation.metrics.intervals import Estimate, estimate
from relcompile.evaluation.results import Results

Standing: TypeAlias = Literal["ignores", "sensitive", "mixed", "unknown"]


@dataclass(frozen=True)
class Threshold:
    """A number that a judgement hangs on.

    Attributes:
        value: the number.
        meaning: what is said of what reaches it.
        source: where it is from.
    """

    value: float
    meaning: str
    source: str


CSC: Final = Threshold(
    0.99,
    "random relevances at the output have become one map",
    "Sixt et al. 2020, figure 5: the methods that fail reach 0.99 at the bottom, the others do not come near",
)
SSIM: Final = Threshold(
    0.9,
    "two maps are one picture, up to their sign",
    "Sixt et al. 2020, figure 4: methods that fail are near 1, the others between 0.4 and 0.8; 0.9 is half way between",
)


@dataclass(frozen=True)
class Verdict:
    """What is said of one rule.

    Attributes:
        rule: its name.
        standing: whether it depends on what the later layers know.
        sentence: one line.
        ignored_above: relevance does not depend on what lies above this layer; None if it does, or is not known.
        evidence: the numbers behind it, by what they are.
    """

    rule: str
    standing: Standing
    sentence: str
    ignored_above: str | None
    evidence: dict[str, Estimate]


def verdicts(results: Results) -> list[Verdict]:
    """One for every rule, in the order in which they were asked for."""
    return [verdict(results, rule) for rule in results.rules]


def verdict(results: Results, rule: str) -> Verdict:
    """What the numbers say of one rule."""
    layers = csc_layers(results, rule)
    evidence = {
        "CSC": _median(results, rule, "csc", layers[0] if layers else None, 0.5),
        "random-logit SSIM": _median(results, rule, "random-logit-flipped"),
        "cascade SSIM": _lowest_cascade(results, rule),
        "SRG": _mean(results, rule, "srg"),
        "sensitivity-n": _mean(results, rule, "sensitivity-n"),
        "relevance mass in the mask": _mean(results, rule, "mass"),
        "relevance rank in the mask": _mean(results, rule, "rank"),
        "max-sensitivity": _median(results, rule, "max-sensitivity"),
    }
    found = {name: value for name, value in evidence.items() if value.samples}
    standing = _standing(found)
    above = _ignored_above(results, rule, layers) if standing == "ignores" else None
    return Verdict(rule, standing, _sentence(results, rule, standing, above, found), above, found)


def csc_layers(results: Results, rule: str) -> list[str]:
    """Where convergence is judged, from the input up; the input has no direction to speak of if it is grey."""
    layers = results.layers(rule, "csc")
    return [layer for layer in layers if layer != INPUT or results.facts["shape"][1] > 1]


def _standing(evidence: dict[str, Estimate]) -> Standing:
    marks = [
        evidence[name].value >= threshold.value
        for name, threshold in (("CSC", CSC), ("random-logit SSIM", SSIM))
        if name in evidence
    ]
    if not marks:
        return "unknown"
    return "ignores" if all(marks) else "mixed" if any(marks) else "sensitive"


def _ignored_above(results: Results, rule: str, layers: Sequence[str]) -> str | None:
    """The highest layer at which relevance has converged, or from which on random weights change nothing."""
    converged = [layer for layer in layers if _median(results, rule, "csc", layer, 0.5).value >= CSC.value]
    if converged:
        return None if converged[-1] == INPUT else converged[-1]  # nothing but the network is above the input
    kept = None
    for layer in results.layers(rule, "cascade-flipped"):  # from the top down
        if _median(results, rule, "cascade-flipped", layer).value < SSIM.value:
            break
        kept = layer
    return kept


def _sentence(results: Results, rule: str, standing: Standing, above: str | None, evidence: dict[str, Estimate]) -> str:
    place = f"everything above {above}" if above else "the class"
    start = {
        "ignores": f"ignores {place}",
        "sensitive": "class-sensitive",
        "mixed": "converges, and yet differs between classes"
        if evidence.get("CSC") and evidence["CSC"].value >= CSC.value
        else "looks alike for other classes, and yet does not converge",
        "unknown": "dependence on later layers: not measured",
    }[standing]
    shown = ("random-logit SSIM", "CSC", "SRG") if standing in ("ignores", "mixed") else ("SRG", "random-logit SSIM")
    numbers = [f"{name} {_number(name, evidence[name])}" for name in shown if name in evidence]
    chance = ["its order of pixels is no better than chance"] if _is_chance(evidence.get("SRG")) else []
    refused = [text for key, text in results.refused.items() if key.startswith(f"{rule} ") and not evidence]
    return "; ".join([f"{start}{': ' if numbers else ''}{', '.join(numbers)}", *chance, *refused[:1]])


def _is_chance(srg: Estimate | None) -> bool:
    return srg is not None and not srg.low > 0


def _number(name: str, found: Estimate) -> str:
    if name == "CSC":
        return f"1 - {1 - found.value:.1e}" if found.value > CSC.value else f"{found.value:.2f}"
    if np.isnan(found.low):
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.low:.3f}..{found.high:.3f})"


def _median(results: Results, rule: str, metric: str, layer: str | None = None, step: float | None = None) -> Estimate:
    return estimate(results.of(rule, metric, layer=layer, step=step), np.median)


def _mean(results: Results, rule: str, metric: str) -> Estimate:
    """Over samples; what was measured several times for a sample (occluders, shares) is averaged for it first."""
    by_sample = dict[int, list[float]]()
    for row in results.rows_of(rule, metric):
        by_sample.setdefault(row.sample, []).append(row.value)
    return estimate(np.array([np.mean(values) for values in by_sample.values()]))


def _lowest_cascade(results: Results, rule: str) -> Estimate:
    """With all layers random."""
    layers = results.layers(rule, "cascade-flipped")
    return _median(results, rule, "cascade-flipped", layers[-1] if layers else "")
