"""Which rule goes where: ordered entries, first match wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from passes.operators.call import KINDS, Kind
from passes.relevance.refuse import Refuse
from passes.relevance.rule import AnyRule
from passes.views.layer import Layer
from relcompile.errors import CompositeError
from relcompile.methods.sampling import Sampling

Start: TypeAlias = Literal["score", "magnitude", "one", "cotangent", "signal"]
Result: TypeAlias = Literal["relevance", "multiplier", "contrast", "activation-map"]
_EQUAL = ("kind", "module_type", "operator", "first", "last", "residual", "bottleneck", "at_output", "after")


@dataclass(frozen=True)
class Entry:
    """Gives `rule` to the operators that it is defined for and that fulfil every condition which is not None.

    Args:
        rule: the rule.
        kind: one of `Kind`.
        name: glob on the user's layer name, for example "features.*"; an entry with a name is always required.
        module_type: class name of the layer's module, for example "Conv2d".
        operator: aten name, for example "convolution".
        first: no affine layer lies between the input and this one.
        last: no affine layer lies between this one and the output.
        bottleneck: every way from the input to the output leads through it.
        depth: (from, below): how far up the network the layer lies, 0 at the first affine layer, 1 at the last.
        residual: it belongs to a residual block.
        at_output: it is the explained output, or its values are only moved on the way there.
        after: aten name of the affine layer before it, for example "linear".
        required: it is an error if no operator gets the rule from this entry.

    Raises:
        CompositeError: `kind` does not exist.
    """

    rule: AnyRule
    kind: Kind | None = None
    name: str | None = None
    module_type: str | None = None
    operator: str | None = None
    first: bool | None = None
    last: bool | None = None
    bottleneck: bool | None = None
    depth: tuple[float, float] | None = None
    residual: bool | None = None
    at_output: bool | None = None
    after: str | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise CompositeError(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")

    def matches(self, layer: Layer) -> bool:
        """Whether the rule is defined for the operator and every condition holds."""
        return issubclass(layer.call, self.rule.applies_to) and self.fits(layer)

    def fits(self, layer: Layer) -> bool:
        """Whether every condition holds."""
        wanted = {key: getattr(self, key) for key in _EQUAL}
        if any(value is not None and getattr(layer, key) != value for key, value in wanted.items()):
            return False
        if self.depth is not None and not self.depth[0] <= layer.position < self.depth[1]:
            return False
        return self.name is None or fnmatchcase(layer.name, self.name)


@dataclass(frozen=True)
class Composite:
    """One attribution method: the rule of every operator, how relevance starts and what is returned.

    Args:
        name: as printed and as stored in the explainer.
        entries: first match wins; an operator without a match is refused.
        start: "score": the target's score is distributed; "magnitude": the magnitude of it; "one": relevance 1 at
            the target; "cotangent": multiplier 1 at the target, and the target mode "seed" is read as a multiplier,
            not as relevance; "signal": the same with the target's score in place of 1.
        result: "relevance" returns x ⊙ m, "multiplier" returns m (a gradient), "contrast" what speaks for the target
            more than for the other classes, "activation-map" Grad-CAM's map of a layer.
        sampling: copies of the input that are explained in its place, and averaged over.
        reference: value of the input that differences are taken from, unless the user gives another; None: the
            method takes no differences.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    start: Start = "score"
    result: Result = "relevance"
    sampling: Sampling | None = None
    reference: float | None = None

    def choose(self, layer: Layer) -> AnyRule:
        """The rule for one operator; a refusal if no entry is for it."""
        return next((entry.rule for entry in self.entries if entry.matches(layer)), self._without_entry(layer))

    def _without_entry(self, layer: Layer) -> Refuse:
        return Refuse(f"{self.name} says nothing about {layer.kind} operators; give it Entry(..., kind={layer.kind!r})")

    def check(self, layers: Sequence[Layer]) -> None:
        """Refuse entries that ask for operators without their rule being defined there, and required ones without any.

        An entry without conditions asks for nothing: its rule goes where it is defined.

        Raises:
            CompositeError: names the entry, and why it has no effect.
        """
        left = list(layers)
        for entry in self.entries:
            asked = [layer for layer in left if entry.fits(layer)]
            undefined = [layer for layer in asked if not entry.matches(layer)]
            if undefined and (entry.kind or entry.operator or (undefined == asked and _conditions(entry))):
                kinds = ", ".join(dict.fromkeys(f"{layer.kind} ({layer.operator})" for layer in undefined))
                raise CompositeError(f"{entry.rule} is not defined for {_conditions(entry)}: {kinds}")
            if not asked and (entry.required or entry.name is not None):
                raise CompositeError(_without_effect(entry, layers))
            left = [layer for layer in left if not entry.matches(layer)]

    def with_entries(self, *entries: Entry) -> Composite:
        """The same, with entries that win over all others."""
        return dataclasses.replace(self, entries=(*entries, *self.entries))


def _without_effect(entry: Entry, layers: Sequence[Layer]) -> str:
    if any(map(entry.fits, layers)):
        return (
            f"no layer is left for {entry.rule} ({_conditions(entry)}): entries before it take them all, and the first "
            "that matches wins; put the narrower one first, or leave one out"
        )
    names = ", ".join(dict.fromkeys(layer.name for layer in layers if layer.kind == "affine"))
    return f"no layer matches {_conditions(entry)}; the affine layers are: {names}"


def _conditions(entry: Entry) -> str:
    given = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name not in ("rule", "required")}
    return ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None)
