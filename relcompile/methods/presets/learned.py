"""What is learned from data, or for every input: patterns and roots."""

from __future__ import annotations

from dataclasses import replace

from relcompile.calibration.store import HOW_TO, Calibration
from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets.lrp import GATE, NO_RULE_FOR_SOFTMAX, PASS_WITHOUT_BIAS, PROPORTIONAL, SCORES, heads
from relcompile.methods.results import AsMultiplier
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.pattern import Normalised, PatternAttribution, PatternNet, Patterns, RelevanceGradient
from relcompile.methods.rules.pointwise import ScoresUnder, SignalTakesAll
from relcompile.methods.rules.residual import SplitByShare
from relcompile.methods.rules.roots.between_roots import BetweenRoots, ContributionsApart
from relcompile.methods.rules.roots.learned_root import LearnedRoot
from relcompile.methods.rules.roots.released_roots import (
    ReleasedActivation,
    ReleasedConvolution,
    ReleasedDense,
    Version,
)
from relcompile.methods.starts import Magnitude, Signal


def pattern_net(calibration: Calibration | None = None, *, normalise: bool = True) -> Composite:
    """PatternNet: the signal that the network saw, by a gradient with patterns in place of weights.

    Signals are normalised at bottlenecks, as iNNvestigate does it: they grow with every layer, in deep networks beyond
    what float32 can hold.

    Equation: s_x = Aᵀ s_z, divided by max|s_z| at bottlenecks
    Conserves: no.
    Use: to see the signal that the network responds to; needs a calibration on data like the input.
    Source: Kindermans et al. 2018.
    """
    rule = PatternNet(_patterns(calibration))
    entries = (Entry(rule, kind="affine"), Entry(Adjoint(), kind="activation"))
    others = (
        Entry(Adjoint(), kind="product"),
        Entry(Adjoint(), kind="softmax", at_output=True),
        NO_RULE_FOR_SOFTMAX,
        *PROPORTIONAL,
    )
    return Composite("patternnet", (*_normalised(entries, normalise), *others), start=Signal(), result=AsMultiplier())


def pattern_attribution(calibration: Calibration | None = None, *, normalise: bool = False) -> Composite:
    """PatternAttribution: what the signal in the input contributes to the score.

    Residual connections, which the paper does not have, share in equal parts.

    Use: for what the signal, without the distractor, contributes to the score; needs a calibration.
    """
    entries = (
        *SCORES,
        Entry(PatternAttribution(_patterns(calibration)), kind="affine"),
        Entry(RelevanceGradient(), kind="activation"),
        Entry(RelevanceGradient(), kind="pool"),
        Entry(SplitByShare("uniform"), kind="sum"),
    )
    return Composite("patternattribution", (*_normalised(entries, normalise), *PASS_WITHOUT_BIAS))


def _normalised(entries: tuple[Entry, ...], normalise: bool) -> tuple[Entry, ...]:
    """The same, and where they stand at a bottleneck, with what arrives divided by its largest magnitude."""
    narrow = [replace(entry, rule=Normalised(entry.rule), bottleneck=True) for entry in entries] if normalise else []
    return (*narrow, *entries)


def pattern_rule(calibration: Calibration | None = None) -> PatternAttribution:
    """PatternAttribution for one layer."""
    return PatternAttribution(_patterns(calibration))


def _patterns(calibration: Calibration | None) -> Patterns:
    if calibration is None:
        raise CompositeError(
            f"pattern rules need patterns of this model: make them with `{HOW_TO}`, then give them with "
            "--calibration patterns.safetensors (calibration=Calibration.load(...) in Python)"
        )
    return calibration.patterns


def released_roots(version: Version, *, unrolled: bool = False) -> Composite:
    """Root learning as released, in closed form: the search hardly moves, and is written out only if `-unrolled`.

    Conserves: no; version 2 does in convolutions.
    Use: to reproduce the released code; `root` for anything else.
    Source: Zhang et al. 2024, released code (versions 1 and 2: April 2024; 3: June 2024).
    """
    closed = not unrolled
    entries = (
        *heads(ScoresUnder(magnitude=True)),
        Entry(ReleasedConvolution(version, closed, ones=True), operator="convolution", first=True),
        Entry(ReleasedConvolution(version, closed), operator="convolution"),
        Entry(ReleasedDense(version, closed), kind="affine"),
        Entry(SplitByShare("absolute"), kind="sum"),
        *([Entry(ReleasedActivation(closed), kind="activation", residual=False)] if version > 1 else []),
        *PASS_WITHOUT_BIAS,
    )
    name = f"root-v{version}-unrolled" if unrolled else f"root-v{version}"
    return Composite(name, entries, start=Magnitude())


def learned_root(steps: float = 1) -> Composite:
    """A root learned in every affine layer, in so many steps; activations are averaged on the way to their roots.

    Use: as the most faithful map measured here, at about ten forward passes; bounds and calibration are not needed.
    """
    hidden = root_rule(steps)
    entries = (
        *SCORES,
        Entry(replace(hidden, gamma=0), kind="affine", last=True),
        Entry(hidden, kind="affine"),
        Entry(BetweenRoots(), kind="activation"),
        *(Entry(ContributionsApart(), kind=kind) for kind in ("sum", "scale", "shift")),
        GATE,
        Entry(SignalTakesAll(), kind="product"),
        *PROPORTIONAL,
    )
    return Composite("root", entries)


def root_rule(steps: float = 1) -> LearnedRoot:
    """The rule of the preset `root`.

    Raises:
        CompositeError: `steps` is not a whole number from 0 to 100.
    """
    if not float(steps).is_integer():
        raise CompositeError(f"root={steps:g}: the number of steps must be whole")
    return LearnedRoot(int(steps))
