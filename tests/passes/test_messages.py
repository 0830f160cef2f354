"""Messages: the sum of any two forms, what a rule gets that reads only some, and nothing written before it is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import combinations_with_replacement

import pytest
import torch
from torch import Tensor

from passes.graphs.emitter import Emitter, Value
from passes.graphs.graph import calls
from passes.graphs.nodes import arguments
from passes.relevance.protocol.messages import (
    FORMS,
    Form,
    Message,
    Multiplier,
    Relevance,
    SecondOrder,
    SplitMultiplier,
    accumulate,
    read_as,
    second_order,
)
from passes.relevance.protocol.reference import CONTRIBUTIONS, REFERENCE, Split, Zero
from passes.relevance.protocol.spread import SPREAD
from tests.compare import FLOAT64, assert_close
from tests.passes.test_passes import graph_of

V = torch.tensor([[2.0, -1.0, 0.0, 0.5]], dtype=torch.float64)
PLUS, MINUS = V.clamp(min=0) + 1.0, V.clamp(max=0) - 1.0  # v⁺ + v⁻ = v
SPREAD_OF_V = V**2 + 3.0
A, B = torch.tensor([[0.7, -0.2, 1.1, 0.4]]).double(), torch.tensor([[-0.3, 0.9, 0.5, -1.2]]).double()


class Stage:
    """A graph with one forward value v, about which every fact is known, and constants to make messages of."""

    def __init__(self, *, spread: bool = True) -> None:
        self.graph, _ = graph_of(lambda x: x * 2, 4)
        self.emit = Emitter(self.graph)
        self.at = self.emit.value(calls(self.graph)[0])
        self.a, self.b, plus, minus, V2 = map(self._constant, (A, B, PLUS, MINUS, SPREAD_OF_V))
        REFERENCE.note(self.at.node, Zero())
        CONTRIBUTIONS.note(self.at.node, lambda: Split(plus, minus))
        SPREAD.note(self.at.node, (lambda: V2) if spread else None)

    def _constant(self, tensor: Tensor) -> Value:
        return self.emit.constant("constant", tensor)

    @property
    def size(self) -> int:
        return len(self.graph.graph.nodes)

    def run(self, value: Value) -> Tensor:
        """`value` where v is V."""
        output = self.graph.graph.output_node()
        output.args = ((value.node,),)
        self.graph.recompile()
        return self.graph(V / 2)[0].expand(1, 4)


MAKE: dict[Form, Callable[[Stage], Message]] = {
    Multiplier: lambda s: Multiplier(s.at, s.a),
    SecondOrder: lambda s: SecondOrder(s.at, s.a, s.b),
    SplitMultiplier: lambda s: SplitMultiplier(s.at, Split(s.a, s.b)),
    Relevance: lambda s: Relevance(s.at, s.a),
}
R: dict[Form, Tensor] = {
    Multiplier: V * A,
    SecondOrder: A * V + B * SPREAD_OF_V,
    SplitMultiplier: PLUS * A + MINUS * B,
    Relevance: A,
}
SUMS: dict[tuple[Form, Form], Form] = {
    (Multiplier, Multiplier): Multiplier,
    (Multiplier, SecondOrder): SecondOrder,
    (Multiplier, SplitMultiplier): SplitMultiplier,
    (Multiplier, Relevance): Relevance,
    (SecondOrder, SecondOrder): SecondOrder,
    (SecondOrder, SplitMultiplier): Relevance,
    (SecondOrder, Relevance): Relevance,
    (SplitMultiplier, SplitMultiplier): SplitMultiplier,
    (SplitMultiplier, Relevance): Relevance,
    (Relevance, Relevance): Relevance,
}


def test_the_tables_name_every_form() -> None:
    assert set(MAKE) == set(R) == set(FORMS)
    assert list(SUMS) == list(combinations_with_replacement(FORMS, 2))


@pytest.mark.parametrize(("one", "other"), SUMS)
def test_any_two_forms_add_up_in_the_tightest_that_holds_both(one: Form, other: Form) -> None:
    for pair in ((one, other), (other, one)):
        stage = Stage()
        total = accumulate([MAKE[form](stage) for form in pair])
        assert type(total) is SUMS[one, other]
        assert_close(stage.run(total.relevance), R[one] + R[other], FLOAT64)


def test_one_message_is_its_own_sum() -> None:
    message = MAKE[Relevance](Stage())
    assert accumulate([message]) is message


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_read_as_a_multiplier(form: Form) -> None:
    """Relevance at v = 0 is lost, if it is not a multiplier's."""
    stage = Stage()
    found = stage.run(MAKE[form](stage).multiplier)
    expected = A if form is Multiplier else R[form] / torch.where(V == 0, 1.0, V)
    assert_close(found, expected, FLOAT64)


BOTH, SIGNED, EXPANDED = (Multiplier, Relevance), (Multiplier, SplitMultiplier), (Relevance, SecondOrder, Multiplier)
# (what arrives, what the rule reads, what it gets, whether relevance is what it was)
READ: list[tuple[Form, tuple[Form, ...], Form, bool]] = [
    (Multiplier, BOTH, Multiplier, True),
    (Multiplier, (Relevance,), Relevance, True),
    (Multiplier, (SplitMultiplier,), SplitMultiplier, True),
    (Multiplier, (SecondOrder,), SecondOrder, True),
    (Multiplier, EXPANDED, Multiplier, True),
    (SecondOrder, EXPANDED, SecondOrder, True),
    (SecondOrder, BOTH, Relevance, True),
    (SplitMultiplier, BOTH, Relevance, True),
    (SplitMultiplier, SIGNED, SplitMultiplier, True),
    (SplitMultiplier, EXPANDED, Relevance, True),
    (Relevance, BOTH, Relevance, True),
    (Relevance, (Multiplier,), Multiplier, False),
    (Relevance, SIGNED, SplitMultiplier, False),
]


@pytest.mark.parametrize(("arrives", "reads", "expected", "exact"), READ)
def test_a_rule_gets_a_form_that_it_reads(arrives: Form, reads: tuple[Form, ...], expected: Form, exact: bool) -> None:
    stage = Stage()
    found = read_as(MAKE[arrives](stage), reads)
    assert type(found) is expected
    there = torch.ones_like(V, dtype=torch.bool) if exact else V != 0
    assert_close(stage.run(found.relevance)[there], R[arrives][there], FLOAT64)


def test_a_value_that_is_its_own_contribution_has_one_multiplier() -> None:
    stage = Stage(spread=False)
    message = second_order(stage.at, stage.a, stage.b)
    assert type(message) is Multiplier
    assert_close(stage.run(message.relevance), A * V + B * V**2, FLOAT64)
    assert type(second_order(Stage().at, stage.a, stage.b)) is SecondOrder


def test_nothing_is_written_before_it_is_asked_for_and_then_once() -> None:
    stage = Stage()
    asked = list[str]()

    def write(name: str) -> Value:
        asked.append(name)
        return stage.a * 2.0

    before = stage.size
    first, second = (Multiplier(stage.at, cache(partial(write, name))) for name in ("first", "second"))
    total = accumulate([first, second])
    read = read_as(total, (Relevance,))
    assert (stage.size, asked) == (before, [])
    assert read.relevance is total.relevance
    assert asked == ["first", "second"]
    written = stage.size
    assert total.multiplier is not None
    assert stage.size == written


def test_relevance_that_is_known_beside_a_multiplier_is_not_computed_again() -> None:
    stage = Stage()
    message = Multiplier(stage.at, lambda: pytest.fail("the multiplier was asked for"), stage.b)
    assert message.relevance is stage.b
    assert arguments(stage.graph.graph.output_node())[0][0] is stage.at.node
