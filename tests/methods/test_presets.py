"""Every preset says of every kind of operator what happens: a rule that is defined there, or a reason."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from passes.operators.activation import ActivationCall
from passes.operators.table import ROWS
from passes.relevance.protocol.refuse import Refuse
from passes.views.layer import Layer
from relcompile.calibration.store import Calibration
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import PRESETS
from relcompile.methods.rules.affine import Epsilon
from relcompile.methods.spelling import Given, named

GIVEN = Given(bounds=(-1.0, 1.0), calibration=Calibration({}, "", "relu", 0))
VIEWS = [(row, view) for row in ROWS for view in row.views]
# Where an operator may stand; a softmax at the output is stepped over by some.
PLACES: list[dict[str, Any]] = [
    {"first": first, "last": last, "residual": residual, "at_output": at_output, "position": position}
    for first, last, residual, at_output, position in product(*[(False, True)] * 4, (0.0, 0.5, 1.0))
]
REFUSALS = {
    "softmax": "a softmax inside a network",
    "embedding": "an index has no reference",
    "scale": "a product with a constant matrix",
}


def layers() -> list[Layer]:
    """One of every view of every operator at every place."""
    return [
        Layer(
            name="layer",
            module_type="",
            operator=str(row.targets[0]),
            kind=view.kind,
            parameters=0,
            call=view if isinstance(view, type) else ActivationCall,
            **place,
        )
        for row, view in VIEWS
        for place in PLACES
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_every_kind_has_an_answer(name: str) -> None:
    composite = named(name, GIVEN)
    for layer in layers():
        rule = composite.choose(layer)
        assert issubclass(layer.call, rule.applies_to)
        if isinstance(rule, Refuse):
            assert rule.reason.startswith(REFUSALS[layer.kind]), layer
            assert layer.kind != "softmax" or not layer.at_output


def test_a_kind_that_is_not_named_is_refused() -> None:
    composite = Composite("dense-only", (Entry(Epsilon(), kind="affine"),))
    refused = {layer.kind for layer in layers() if isinstance(composite.choose(layer), Refuse)}
    assert refused == {view.kind for _, view in VIEWS} - {"affine"}
    pool = next(layer for layer in layers() if layer.kind == "pool")
    rule = composite.choose(pool)
    assert isinstance(rule, Refuse)
    assert rule.reason == "dense-only says nothing about pool operators; give it Entry(..., kind='pool')"
