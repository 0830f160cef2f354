"""What can be compiled, as data: every rule and every operator, read from the objects that do the work."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from passes.operators.table import OPERATORS
from relcompile.calibration.store import Calibration
from relcompile.methods.preset import Given
from relcompile.methods.presets import PRESETS, RULES
from relcompile.methods.presets.lrp import alpha_beta
from relcompile.methods.rules.affine import AlphaBeta
from relcompile.methods.spelling import named, row, rule_named

_GIVEN = Given(bounds=(-1.0, 1.0), calibration=Calibration({}, "", "relu", 0))  # any will do to read docstrings
_SECTIONS = ("Equation", "Use", "Conserves", "Needs", "Source")


@dataclass(frozen=True)
class Description:
    """One rule name.

    Attributes:
        name: as given to `--rule`, or to `--layer`.
        summary: one line.
        facts: (heading, text) of what the composite and its main rule say about themselves.
    """

    name: str
    summary: str
    facts: tuple[tuple[str, str], ...]


def rules() -> list[Description]:
    """Every preset, in the order of the table."""
    return [_describe(name) for name in PRESETS]


def layer_rules() -> list[Description]:
    """Every rule that one layer can have (`--layer`, composite files), in the order of the table."""
    return [_describe_layer_rule(name) for name in RULES]


def rule(name: str, *, of_layer: bool = False) -> Description:
    """One rule, with its parameters: what `rules`, or `layer_rules`, says of it, or an "alphaAbetaB".

    Raises:
        CompositeError: the name is not known.
    """
    key = name.strip().lower()
    preset = row(key, RULES, AlphaBeta) if of_layer else row(key, PRESETS, alpha_beta)
    described = _describe_layer_rule(key) if of_layer else _describe(key)
    listing = ", ".join(f"{parameter}={value}" for parameter, value in preset.parameters.items())
    further = {"Given": ", ".join(preset.needs), "Parameters": listing or "none"}
    return replace(described, facts=(*described.facts, *((name, text) for name, text in further.items() if text)))


def operators() -> Mapping[str, Sequence[str]]:
    """Names of the supported operators, as `Entry(operator=...)` takes them, by what `Entry(kind=...)` takes.

    What an operator is may depend on how many of its operands come from the input: then it has several kinds.
    """
    by_kind = defaultdict[str, set[str]](set)
    for target, operator in OPERATORS.items():
        for kind in {view.kind for view in operator.views}:
            by_kind[kind].add(target._schema.name.removeprefix("aten::"))
    return {kind: sorted(names) for kind, names in sorted(by_kind.items())}


def _describe(name: str) -> Description:
    build: Any = row(name, PRESETS, alpha_beta).build
    composite = named(name, _GIVEN)
    text = inspect.getdoc(getattr(build, "func", build)) or ""
    own = _sections(text)
    main = composite.entries[0].rule
    of_rule = _sections(inspect.getdoc(type(main)) or "")
    return Description(name, text.splitlines()[0], _facts({**of_rule, **own}))


def _describe_layer_rule(name: str) -> Description:
    text = inspect.getdoc(type(rule_named(name, _GIVEN))) or ""
    return Description(name, text.splitlines()[0], _facts(_sections(text)))


def _facts(sections: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, sections[key]) for key in _SECTIONS if key in sections)


def _sections(text: str) -> dict[str, str]:
    """The "Heading: text" paragraphs of a docstring, each on one line."""
    found = dict[str, str]()
    for match in re.finditer(r"^(\w+): (.+(?:\n[ ]+.+)*)", text, re.MULTILINE):
        found[match[1]] = " ".join(match[2].split())
    return found
