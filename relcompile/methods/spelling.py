"""Names -> composites and rules: what `--rule`, `--layer` and composite files say."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from passes.operators.affine import AffineCall
from passes.relevance.protocol.rule import AnyRule
from relcompile.errors import CompositeError
from relcompile.files.paths import read_text
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.preset import Given, Preset
from relcompile.methods.presets import PRESETS, RULES
from relcompile.methods.presets.lrp import alpha_beta
from relcompile.methods.rules.affine import AlphaBeta

LARGEST_COMPOSITE: Final = 2**16  # bytes of a composite file
_MOST_DOTS: Final = 1000
T = TypeVar("T")
_ALPHA_BETA = re.compile(r"alpha(?P<alpha>\d+(?:\.\d+)?)beta(?P<beta>\d+(?:\.\d+)?)")

NOTHING: Final = Given()


def named(name: str, given: Given = NOTHING) -> Composite:
    """The composite called `name`; parameters may follow, as in "epsilon=0.25" or "z+,bias=split".

    Args:
        name: a key of `PRESETS`, "alphaAbetaB" for any A - B = 1, or a composite file (.toml).
        given: what else is known; a preset takes from it what its parameters name.

    Raises:
        CompositeError: the name is not known (the nearest ones are listed), or a parameter is wrong.
    """
    return read_composite(Path(name), given) if name.endswith(".toml") else _preset(name, given)


def _preset(name: str, given: Given) -> Composite:
    made = _made(name, PRESETS, alpha_beta, given)
    return dataclasses.replace(made, name=name.strip().lower())


def rule_named(name: str, given: Given = NOTHING) -> AnyRule:
    """The rule called `name`, for one layer: a key of `RULES` or "alphaAbetaB", perhaps with parameters.

    Raises:
        CompositeError: as `named`.
    """
    return _made(name, RULES, AlphaBeta, given)


def layer_entry(text: str, given: Given = NOTHING) -> Entry:
    """An entry from "NAME-GLOB=RULE", as in "features.0=zb"; a rule that affine layers can have is for those alone.

    Raises:
        CompositeError: it does not read like that, or the rule is not known.
    """
    name, equals, text_of_rule = text.partition("=")
    if not equals or not name:
        raise CompositeError(f"layer {text!r} does not read NAME=RULE, as in 'features.0=flat'")
    rule = rule_named(text_of_rule, given)
    return Entry(rule, name=name, kind="affine" if issubclass(AffineCall, rule.applies_to) else None)


def read_composite(path: Path, given: Given = NOTHING) -> Composite:
    """A composite from a TOML file: `base`, optionally `name`, and tables `[[entry]]` with a `rule` and conditions.

    Rules are written as on the command line, with their parameters; every entry is required.

    Raises:
        CompositeError: the file cannot be read, or holds something that is not known or of a wrong type.
    """
    text = read_text(path, "the composite file", LARGEST_COMPOSITE, CompositeError)
    try:
        content = _tables(text)
        if not content:
            raise CompositeError(
                'it is empty; a composite is a base and entries, as in base = "epsilon", [[entry]], rule = "flat", '
                "first = true, each on a line"
            )
        _check_types(content, {"base": str, "name": str, "entry": list})
        entries = [_entry(table, given) for table in content.get("entry", [])]
        base = _preset(content.get("base", "z+"), given).with_entries(*entries)
    except (ValueError, RecursionError, CompositeError) as error:  # ValueError: no TOML, or a number of 5,000 digits
        raise CompositeError(f"composite file {path}: {error}") from error
    return dataclasses.replace(base, name=content.get("name", path.stem))


def _tables(text: str) -> dict[str, Any]:
    """The tables of a TOML file. No key of ours has a dot, and one with many takes the parser forever."""
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {_MOST_DOTS} dots")
    return tomllib.loads(text)


def _entry(table: object, given: Given) -> Entry:
    if not isinstance(table, dict) or "rule" not in table:
        raise CompositeError("every [[entry]] is a table with a rule")
    conditions = dict(cast("dict[str, Any]", table))
    _check_types(conditions, {"rule": str, **Entry.written()})
    rule = rule_named(conditions.pop("rule"), given)
    if "depth" in conditions:
        conditions["depth"] = _pair(conditions["depth"])
    return Entry(rule, **conditions, required=True)


def _check_types(table: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for key, value in table.items():
        if key not in types:
            raise CompositeError(f"{key!r} is not known; there are {', '.join(types)}")
        if type(value) is not types[key]:
            way_on = f"; write [[{key}]], in double brackets" if type(value) is dict else ""
            raise CompositeError(f"{key} = {value!r} should be of type {types[key].__name__}{way_on}")


def _pair(value: list[Any]) -> tuple[float, float]:
    if len(value) != 2 or not all(type(number) in (int, float) for number in value):
        raise CompositeError(f"depth = {value!r} should be two numbers, [from, below]")
    return value[0], value[1]


def _made(text: str, table: Mapping[str, Preset[T]], mixed: Callable[..., T], given: Given) -> T:
    """What `text` names in `table`, or `mixed` (α, β, ...) for alphaAbetaB."""
    first, *more = text.strip().lower().split(",")
    key, equals, value = first.partition("=")
    preset = row(key, table, mixed)
    defaults = preset.parameters
    pairs = [(next(iter(defaults), ""), value)] if equals else []
    pairs += [(name, value) for name, _, value in (part.partition("=") for part in more)]
    unknown = [f"{name}={value}" for name, value in pairs if name not in defaults]
    if unknown:
        raise CompositeError(
            f"rule {key!r} takes no {', '.join(unknown)}; its parameters: {', '.join(defaults) or 'none'}"
        )
    return preset.made(given, **{name: _parameter(name, value, defaults[name]) for name, value in pairs})


def row(key: str, table: Mapping[str, Preset[T]], mixed: Callable[..., T]) -> Preset[T]:
    """The row of `table` called `key`, or one of `mixed` (α, β, ...) for alphaAbetaB.

    Raises:
        CompositeError: the name is not known; the nearest ones are listed.
    """
    match = _ALPHA_BETA.fullmatch(key)
    if match:
        return Preset(key, partial(mixed, float(match["alpha"]), float(match["beta"])))
    if key not in table:
        spelt = key.replace("plus", "+").replace("_", "-")
        near = [spelt] if spelt in table else get_close_matches(key, table, n=3, cutoff=0.3)
        raise CompositeError(f"rule {key!r} is not known; nearest: {', '.join(near or table)}")
    return table[key]


def _parameter(name: str, text: str, default: float | str) -> float | str:
    """A parameter as its default has it: a truth value, a text or a finite number."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool) and text in ("true", "false"):
        return text == "true"
    try:
        number = math.nan if isinstance(default, bool) else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        wanted = "true or false" if isinstance(default, bool) else "a finite number"
        raise CompositeError(f"{name}={text} should be {wanted}")
    return number
