"""Which rule goes where: ordered entries, first match wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from passes.operators.call import KINDS, Kind
from passes.relevance.protocol.refuse import Refuse
from passes.relevance.protocol.rule import AnyRule
from passes.views.layer import Layer
from passes.views.roles import Role
from relcompile.errors import CompositeError
from relcompile.methods.results import AsRelevance, Result
from relcompile.methods.rules.residual import OneBranch
from relcompile.methods.sampling import Sampling
from relcompile.methods.starts import Cotangent, Score, Start


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
        role: one of its operands is to the other what `passes.views.roles` calls so, for example "statistic".
        required: it is an error if no operator gets the rule from this entry.

    Raises:
        CompositeError: `kind` does not exist, or `rule` is no rule.
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
    role: Role | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise CompositeError(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")
        lacking = [name for name in ("applies_to", "reads", "propagate") if not hasattr(self.rule, name)]
        if lacking:
            raise CompositeError(f"{self.rule!r} is no rule: it has no {', '.join(lacking)} (see relcompile.rules)")

    def matches(self, layer: Layer) -> bool:
        """Whether the rule is defined for the operator and every condition holds."""
        return issubclass(layer.call, self.rule.applies_to) and self.fits(layer)

    def fits(self, layer: Layer) -> bool:
        """Whether every condition holds."""
        tests = {"name": _globs, "depth": _lies_between, "role": _has_operand}
        return all(tests.get(key, _equals)(layer, key, wanted) for key, wanted in self.conditions.items())

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions that are not None."""
        values = {key: getattr(self, key) for key in Entry.written()}
        return {key: value for key, value in values.items() if value is not None}

    @property
    def label(self) -> str:
        """What tells it from others in the name of an explainer: conditions, and the sort of rule."""
        return f"{','.join(map(str, self.conditions.values())) or '*'}={type(self.rule).__name__}"

    @classmethod
    @cache
    def written(cls) -> dict[str, type]:
        """Every condition, and the type that it has in a composite file."""
        hints = {key: hint for key, hint in get_type_hints(cls).items() if key not in ("rule", "required")}
        return {key: _plain_type(get_args(hint)[0]) for key, hint in hints.items()}


def _plain_type(hint: Any) -> type:
    """The type of the values that a TOML file holds for `hint`."""
    origin = get_origin(hint)
    return hint if origin is None else str if origin is Literal else list


def _equals(layer: Layer, key: str, wanted: Any) -> bool:
    return getattr(layer, key) == wanted


def _globs(layer: Layer, _key: str, wanted: str) -> bool:
    return fnmatchcase(layer.name, wanted)


def _has_operand(layer: Layer, _key: str, wanted: Role) -> bool:
    return wanted in layer.roles


def _lies_between(layer: Layer, _key: str, wanted: tuple[float, float]) -> bool:
    start, below = wanted
    return start <= layer.position < below


@dataclass(frozen=True)
class Composite:
    """One attribution method: the rule of every operator, how relevance starts and what is returned.

    Args:
        name: as printed and as stored in the explainer.
        entries: first match wins; an operator without a match is refused.
        start: what the target is worth at the output: its score, its magnitude, 1, ...
        result: what the user gets of what arrives: relevance, a multiplier (a gradient), a contrast, Grad-CAM's map.
        sampling: copies of the input that are explained in its place, and averaged over.
        reference: value of the input that differences are taken from, unless the user gives another; None: the
            method takes no differences.
        fallback: the rule of an operator that is refused otherwise; None: it stays refused.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    start: Start = field(default_factory=Score)
    result: Result = field(default_factory=AsRelevance)
    sampling: Sampling | None = None
    reference: float | None = None
    fallback: AnyRule | None = None

    @property
    def is_gradient(self) -> bool:
        """It takes derivatives of the score, modified or not; DeepLIFT takes differences."""
        return isinstance(self.start, Cotangent) and self.reference is None

    @property
    def chooses_branches(self) -> bool:
        """A sum hands all to one of its branches, so that these are not merged."""
        return any(isinstance(entry.rule, OneBranch) for entry in self.entries)

    @property
    def shares_the_score(self) -> bool:
        """It hands out shares of the score."""
        return isinstance(self.start, Score) and isinstance(self.result, AsRelevance)

    def choose(self, layer: Layer) -> AnyRule:
        """The rule for one operator; the fallback, or a refusal, if no entry is for it."""
        rule = next((entry.rule for entry in self.entries if entry.matches(layer)), self._without_entry(layer))
        return self.fallback if self.fallback is not None and isinstance(rule, Refuse) else rule

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
    return ", ".join(f"{key}={value!r}" for key, value in entry.conditions.items())
