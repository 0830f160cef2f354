"""What is declared once: the conditions of an entry, and the rows of the tables of names."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from passes.views.layer import Layer
from relcompile.errors import CompositeError
from relcompile.methods.composites import Entry
from relcompile.methods.preset import Given, Preset
from relcompile.methods.presets import PRESETS, RULES
from relcompile.methods.spelling import read_composite

CONDITIONS: dict[str, tuple[Any, Any]] = {  # a value that fits the layer below, and one that does not
    "kind": ("affine", "pool"),
    "name": ("features.*", "classifier.*"),
    "module_type": ("Conv2d", "Linear"),
    "operator": ("convolution", "linear"),
    "first": (True, False),
    "last": (False, True),
    "bottleneck": (True, False),
    "depth": ((0.25, 0.5), (0.0, 0.25)),
    "residual": (False, True),
    "at_output": (False, True),
    "after": ("linear", "convolution"),
    "role": ("gate", "mean"),
}
LAYER = Layer(
    name="features.3",
    module_type="Conv2d",
    operator="convolution",
    kind="affine",
    first=True,
    last=False,
    position=0.25,
    parameters=0,
    residual=False,
    bottleneck=True,
    at_output=False,
    after="linear",
    roles={"gate": 0},
)
RULE = RULES["flat"].build()
ROWS = [*PRESETS.values(), *RULES.values()]


def test_the_conditions_are_the_fields() -> None:
    fields = {f.name for f in dataclasses.fields(Entry)} - {"rule", "required"}
    assert set(Entry.written()) == fields == set(CONDITIONS)


@pytest.mark.parametrize("key", CONDITIONS)
def test_every_condition_counts(key: str) -> None:
    fits, does_not = CONDITIONS[key]
    assert Entry(RULE, **{key: fits}).fits(LAYER)
    assert not Entry(RULE, **{key: does_not}).fits(LAYER)


def written(value: object) -> str:
    return (
        str(list(value))
        if isinstance(value, tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else f'"{value}"'
    )


@pytest.mark.parametrize("key", CONDITIONS)
def test_every_condition_can_be_written_in_a_file(key: str, tmp_path: Path) -> None:
    value = CONDITIONS[key][0]
    path = tmp_path / "mine.toml"
    path.write_text(f'[[entry]]\nrule = "flat"\n{key} = {written(value)}\n')
    assert read_composite(path).entries[0] == Entry(RULE, **{key: value}, required=True)
    path.write_text(f'[[entry]]\nrule = "flat"\n{key} = 3\n')
    with pytest.raises(CompositeError, match=f"{key} = 3 should be of type"):
        read_composite(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_needs_what_its_builder_takes(row: Preset[Any]) -> None:
    taken = set(inspect.signature(row.build).parameters) & {f.name for f in dataclasses.fields(Given)}
    assert set(row.needs) == taken


def test_names_are_the_keys() -> None:
    for table in (PRESETS, RULES):
        assert list(table) == [row.name for row in table.values()]
