"""Which rule goes where: ordered entries, first match wins, and the named presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from passes.assign_rules import Layer
from passes.messages import AnyRule
from relcompile.errors import CompositeError
from relcompile.rules.adjoint import Adjoint
from relcompile.rules.affine import Epsilon, ZPlus
from relcompile.rules.pointwise import PassThrough, SignalTakesAll

Form: TypeAlias = Literal["relevance", "multiplier"]


@dataclass(frozen=True)
class Entry:
    """Gives `rule` to the operators that fulfil every condition which is not None.

    Args:
        rule: the rule.
        kind: affine, pool, activation, sum, shift, scale, product or structure.
        name: glob on the user's layer name, for example "features.*".
        module_type: class name of the layer's module, for example "Conv2d".
        operator: aten name, for example "convolution".
        first: no affine layer lies between the input and this one.
        last: no affine layer lies between this one and the output.
    """

    rule: AnyRule
    kind: str | None = None
    name: str | None = None
    module_type: str | None = None
    operator: str | None = None
    first: bool | None = None
    last: bool | None = None

    def matches(self, layer: Layer) -> bool:
        """Whether every condition holds for `layer`."""
        wanted = {key: getattr(self, key) for key in ("kind", "module_type", "operator", "first", "last")}
        fits = all(value is None or getattr(layer, key) == value for key, value in wanted.items())
        return fits and (self.name is None or fnmatchcase(layer.name, self.name))


@dataclass(frozen=True)
class Composite:
    """An attribution method: the rule of every operator, how it starts and what it returns.

    Args:
        name: as printed and as stored in the explainer.
        entries: first match wins; an operator without a match gets `fallback`.
        start: "multiplier" seeds with ones at the target (relevance = the target's score);
            the `seed` target is read in this form.
        result: "relevance" returns x ⊙ m, "multiplier" returns m (a gradient).
        required: entries that must match some layer, else `check` raises.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    fallback: AnyRule = field(default_factory=Adjoint)
    start: Form = "relevance"
    result: Form = "relevance"

    def choose(self, layer: Layer) -> AnyRule:
        """The rule for one operator."""
        return next((entry.rule for entry in self.entries if entry.matches(layer)), self.fallback)


_PASS: tuple[Entry, ...] = (
    Entry(PassThrough(), kind="activation"),
    Entry(SignalTakesAll(), kind="product"),
)
_KEEP_BIAS_OUT: tuple[Entry, ...] = (Entry(PassThrough(), kind="shift"),)


def gradient() -> Composite:
    """∂ output[target] / ∂ input."""
    return Composite("gradient", start="multiplier", result="multiplier")


def gradient_times_input() -> Composite:
    """Input ⊙ ∂ output[target] / ∂ input."""
    return Composite("gradient*input", start="multiplier")


def lrp_0() -> Composite:
    """LRP-0: proportional to the contributions, no stabiliser; activations pass relevance on."""
    return Composite("lrp-0", _PASS)


def epsilon(epsilon: float = 1e-6) -> Composite:
    """LRP-ε on every affine layer."""
    return Composite("epsilon", (Entry(Epsilon(epsilon), kind="affine"), *_PASS))


def z_plus(epsilon: float = 1e-9, bias: Literal["none", "positive", "full"] = "none") -> Composite:
    """z⁺ on every affine layer: Deep Taylor Decomposition's inner rule, LRP-α1β0."""
    entries = (Entry(ZPlus(bias, epsilon), kind="affine"), *_PASS, *_KEEP_BIAS_OUT)
    return Composite("z+", entries)


PRESETS: Mapping[str, Callable[..., Composite]] = {
    "gradient": gradient,
    "gradient*input": gradient_times_input,
    "lrp-0": lrp_0,
    "epsilon": epsilon,
    "z+": z_plus,
}


def named(name: str) -> Composite:
    """The preset called `name`; its first parameter may follow, as in "epsilon=0.25".

    Raises:
        CompositeError: the name is not known (the nearest ones are listed), or takes no parameter.
    """
    key, equals, value = name.partition("=")
    factory = PRESETS.get(key.strip().lower())
    if factory is None:
        near = get_close_matches(key, PRESETS, n=3, cutoff=0.3)
        raise CompositeError(f"rule {key!r} is not known; nearest: {', '.join(near or PRESETS)}")
    if not equals:
        return factory()
    try:
        return factory(float(value))
    except (TypeError, ValueError) as error:
        raise CompositeError(f"rule {name!r}: {key} takes no parameter {value!r}") from error
