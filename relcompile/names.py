"""Names -> composites and rules: what `--rule`, `--layer` and composite files say."""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from passes.messages import AnyRule
from relcompile.calibration.store import Calibration
from relcompile.composites import Composite, Entry
from relcompile.errors import CompositeError
from relcompile.presets import PRESETS, RULES, Bounds, alpha_beta
from relcompile.rules.affine import AlphaBeta

_ALPHA_BETA = re.compile(r"alpha(?P<alpha>\d+)beta(?P<beta>\d+)")


@dataclass(frozen=True)
class Given:
    """What is known beside the name of a rule; None where it is not.

    Attributes:
        bounds: (low, high) of the input.
        calibration: what was learnt from data.
    """

    bounds: Bounds | None = None
    calibration: Calibration | None = None


NOTHING: Final = Given()


def named(name: str, given: Given = NOTHING) -> Composite:
    """The composite called `name`; its first parameter may follow, as in "epsilon=0.25".

    Args:
        name: a key of `PRESETS`, or "alphaAbetaB" for any A - B = 1.
        given: what else is known; a preset takes from it what its parameters name.

    Raises:
        CompositeError: the name is not known (the nearest ones are listed), or its parameter is wrong.
    """
    match = _ALPHA_BETA.fullmatch(name.strip().lower())
    if match:
        return alpha_beta(float(match["alpha"]), float(match["beta"]))
    return _build(name, PRESETS, given)


def rule_named(name: str, given: Given = NOTHING) -> AnyRule:
    """The rule called `name`, for one layer: a key of `RULES`, perhaps with its first parameter.

    Raises:
        CompositeError: as `named`.
    """
    match = _ALPHA_BETA.fullmatch(name.strip().lower())
    if match:
        return AlphaBeta(float(match["alpha"]), float(match["beta"]))
    return _build(name, RULES, given)


def layer_entry(text: str, given: Given = NOTHING) -> Entry:
    """An entry from "NAME-GLOB=RULE", as in "features.0=zb".

    Raises:
        CompositeError: it does not read like that, or the rule is not known.
    """
    name, equals, rule = text.partition("=")
    if not equals or not name:
        raise CompositeError(f"layer {text!r} does not read NAME=RULE, as in 'features.0=flat'")
    return Entry(rule_named(rule, given), name=name, kind="affine", required=True)


def read_composite(path: Path, given: Given = NOTHING) -> Composite:
    """A composite from a TOML file: `base`, optionally `name`, and tables `[[entry]]` with a `rule` and conditions.

    Raises:
        CompositeError: the file cannot be read, or names a rule or a condition that does not exist.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CompositeError(f"composite file {path}: {error}") from error
    known = {f.name for f in dataclasses.fields(Entry)} - {"required"}
    entries = list[Entry]()
    for table in content.get("entry", []):
        unknown = set(table) - known
        if unknown or "rule" not in table:
            expected = ", ".join(sorted(known))
            raise CompositeError(f"composite file {path}: an entry needs a rule and may have {expected}")
        conditions: dict[str, Any] = {key: _frozen(value) for key, value in table.items() if key != "rule"}
        entries.append(Entry(rule_named(table["rule"], given), **conditions, required=True))
    base = named(content.get("base", "z+"), given).with_entries(*entries)
    return dataclasses.replace(base, name=content.get("name", path.stem))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _build(name: str, table: Mapping[str, Callable[..., Any]], given: Given) -> Any:
    key, equals, value = name.strip().lower().partition("=")
    factory = table.get(key)
    if factory is None:
        near = get_close_matches(key, table, n=3, cutoff=0.3)
        raise CompositeError(f"rule {key!r} is not known; nearest: {', '.join(near or table)}")
    wanted = inspect.signature(factory).parameters
    keywords = {f.name: getattr(given, f.name) for f in dataclasses.fields(given) if f.name in wanted}
    try:
        return factory(float(value), **keywords) if equals else factory(**keywords)
    except (TypeError, ValueError) as error:
        raise CompositeError(f"rule {name!r}: {key} takes no parameter {value!r}") from error
