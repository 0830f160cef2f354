"""What can be compiled, as data: every rule and every operator, read from the objects that do the work."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from passes.operators.table import OPERATORS
from relcompile.calibration.store import Calibration
from relcompile.methods.presets import PRESETS, RULES
from relcompile.methods.spelling import Given, named, rule_named

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
    described = list[Description]()
    for name in RULES:
        text = inspect.getdoc(type(rule_named(name, _GIVEN))) or ""
        described.append(Description(name, text.splitlines()[0], _facts(_sections(text))))
    return described


def operators() -> Mapping[str, Sequence[str]]:
    """Names of the supported operators, as `Entry(operator=...)` takes them, by what `Entry(kind=...)` takes.

    What an operator is may depend on how many of its operands come from the input: then it has several kinds.
    """
    by_kind = defaultdict[str, set[str]](set)
    for target, row in OPERATORS.items():
        for kind in {view.kind for view in row.views}:
            by_kind[kind].add(target._schema.name.removeprefix("aten::"))
    return {kind: sorted(names) for kind, names in sorted(by_kind.items())}


def _describe(name: str) -> Description:
    factory = PRESETS[name]
    composite = named(name, _GIVEN)
    text = inspect.getdoc(getattr(factory, "func", factory)) or ""
    own = _sections(text)
    main = composite.entries[0].rule
    of_rule = _sections(inspect.getdoc(type(main)) or "")
    return Description(name, text.splitlines()[0], _facts({**of_rule, **own}))


def _facts(sections: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, sections[key]) for key in _SECTIONS if key in sections)


def _sections(text: str) -> dict[str, str]:
    """The "Heading: text" paragraphs of a docstring, each on one line."""
    found = dict[str, str]()
    for match in re.finditer(r"^(\w+): (.+(?:\n[ ]+.+)*)", text, re.MULTILINE):
        found[match[1]] = " ".join(match[2].split())
    return found
