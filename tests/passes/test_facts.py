"""Facts about nodes: three states, errors that name what is missing, honest counts, and passes that run if asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node

from passes.errors import InvariantError, UnsupportedRuleError
from passes.graphs.emitter import Emitter, aten
from passes.graphs.facts import Fact, row
from passes.graphs.graph import calls
from passes.relevance.annotations.add_contributions import AddContributions
from passes.relevance.annotations.add_reference import AddReference, TakeFromZero
from passes.relevance.annotations.add_spread import AddSpread
from passes.relevance.annotations.annotate import annotating_passes
from passes.relevance.annotations.infer_signs import InferSigns
from passes.relevance.assign_rules import AssignRules
from passes.relevance.protocol.found_root import ROOT
from passes.relevance.protocol.reference import CONTRIBUTIONS, REFERENCE, Zero, contributions, difference, reference
from passes.relevance.protocol.rule import RULE
from passes.relevance.protocol.spread import SPREAD, spread
from passes.rewrites.optimise.simplify import Simplify
from passes.runner import run_passes
from passes.stages import verify_captured
from passes.views.layer import LAYER
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import deeplift_rescale, epsilon, learned_root, z_plus
from relcompile.methods.rules.deeplift import Rescale
from relcompile.methods.rules.pattern import Normalised
from relcompile.methods.rules.roots.between_roots import BetweenRoots
from tests.passes.test_passes import apply, graph_of

COLOUR = Fact[str]("colour")
ALL_FACTS: tuple[Fact[Any], ...] = (RULE, LAYER, REFERENCE, CONTRIBUTIONS, SPREAD, ROOT)


def some_node() -> Node:
    return calls(graph_of(lambda x: x * 2, 4)[0])[0]


# how the entry is made -> what is read: the value or the error, then whether it is constant and absent
STATES: dict[str, tuple[Callable[[Node], None], str, bool, bool]] = {
    "known": (lambda node: COLOUR.note(node, "red"), "red", False, False),
    "known to be nothing": (lambda node: COLOUR.note(node, ""), "", False, False),
    "constant": (COLOUR.note_constant, "colour of mul is not known: the node is a constant", True, False),
    "absent": (lambda _: None, "colour of mul was never found out", False, True),
    "of another column": (lambda node: Fact[str]("size").note(node, "red"), "colour of mul was never", False, True),
}


@pytest.mark.parametrize("state", STATES)
def test_an_entry_is_known_constant_or_absent(state: str) -> None:
    make, found, constant, absent = STATES[state]
    node = some_node()
    make(node)
    assert COLOUR.is_absent(node) is absent
    assert COLOUR.known_in([node]) == ([] if constant or absent else [node])
    if constant or absent:
        with pytest.raises(InvariantError, match=found):
            COLOUR.of(node)
    else:
        assert COLOUR.of(node) == found
    if not absent:
        assert COLOUR.is_constant(node) is constant
    else:
        with pytest.raises(InvariantError, match=found):
            COLOUR.is_constant(node)


READINGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reference": (reference, "reference of mul was never found out"),
    "difference": (difference, "reference of mul was never found out"),
    "contributions": (contributions, "contributions of mul was never found out"),
    "spread": (spread, "spread of mul was never found out"),
}


@pytest.mark.parametrize("reading", READINGS)
def test_nothing_is_assumed_about_a_value_that_nobody_asked_about(reading: str) -> None:
    read, message = READINGS[reading]
    graph, _ = graph_of(lambda x: x * 2, 4)
    with pytest.raises(InvariantError, match=message):
        read(Emitter(graph).value(calls(graph)[0]))


def test_a_method_without_a_reference_has_no_value_there() -> None:
    graph, _ = graph_of(lambda x: x * 2, 4)
    value = Emitter(graph).value(calls(graph)[0])
    REFERENCE.note(value.node, Zero())
    assert difference(value) is value
    with pytest.raises(InvariantError, match="takes no reference"):
        reference(value)


def test_copies_of_a_graph_have_rows_of_their_own() -> None:
    graph, _ = graph_of(lambda x: x * 2, 4)
    COLOUR.note(calls(graph)[0], "red")
    copied = copy.deepcopy(graph)
    COLOUR.note(calls(copied)[0], "blue")
    assert [COLOUR.of(calls(g)[0]) for g in (graph, copied)] == ["red", "blue"]


@dataclass(frozen=True)
class Notes:
    """Notes a fact and counts something else."""

    fact: Fact[Any]
    rewrites: int
    name: ClassVar[str] = "notes"

    def apply(self, module: GraphModule, /) -> int:
        self.fact.note(calls(module)[0], self)
        return self.rewrites


@pytest.mark.parametrize("fact", ALL_FACTS, ids=lambda fact: fact.name)
def test_the_runner_sees_every_fact(fact: Fact[Any]) -> None:
    graph, _ = graph_of(lambda x: x * 2, 4)
    with pytest.raises(InvariantError, match="reports 0 rewrites, but the graph changed"):
        apply(graph, Notes(fact, 0))
    graph, _ = graph_of(lambda x: x * 2, 4)
    assert apply(graph, Notes(fact, 1)) == 1
    with pytest.raises(InvariantError, match="reports 1 rewrites, but the graph did not change"):
        apply(graph, Notes(fact, 1))


def test_signs_do_not_outlive_the_pass_that_infers_them() -> None:
    graph, _ = graph_of(lambda x: x.relu().clamp_min(0) + x, 4)
    assert apply(graph, Simplify()) == 1
    assert not any(row(node) for node in graph.graph.nodes)


class Mixed(nn.Module):
    """An explained x, another input w, a constant, a size, and a value that the first output does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Buffer(torch.tensor([1.0, -2.0, 3.0]))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gated = x * (w + self.c)
        return gated * x.shape[0], x.exp()


def test_a_reference_is_known_where_values_depend_on_it_and_constant_elsewhere() -> None:
    from relcompile.frontend.capture import capture

    x, w = torch.randn(2, 4, 3, dtype=torch.float64)
    graph = capture(Mixed().double().eval(), {"x": x, "w": w}).module
    (added,), products, (unread,) = (
        calls(graph, target) for target in (aten.add.Tensor, aten.mul.Tensor, aten.exp.default)
    )
    sizes, (x_node, w_node) = calls(graph, aten.sym_size.int), graph.graph.find_nodes(op="placeholder")
    apply(graph, AddReference({"x": torch.full((1, 1), 0.5, dtype=torch.float64)}, 0))
    assert REFERENCE.known_in(graph.graph.nodes) == [x_node, *products]
    assert all(REFERENCE.is_constant(node) for node in (w_node, added, *sizes, *added.all_input_nodes))
    assert REFERENCE.is_absent(unread)
    value = Emitter(graph).value(added)
    assert reference(value).node is value.node
    assert difference(value).node.target is aten.zeros_like.default


NAMES: dict[type[Any], str] = {
    AddReference: "reference",
    AddContributions: "contributions",
    AddSpread: "spread",
    TakeFromZero: "zero",
    InferSigns: "signs",
}
# method -> the passes between the assignment of rules and the walk
PLANS: dict[str, tuple[Composite, tuple[str, ...]]] = {
    "z+": (z_plus(), ("zero", "signs")),
    "learned roots": (learned_root(), ("zero", "spread", "signs")),
    "epsilon": (epsilon(), ("zero",)),
    "between roots, on one layer": (
        epsilon().with_entries(Entry(BetweenRoots(), name="relu")),
        ("zero", "spread"),
    ),
    "inside another rule": (Composite("n", (Entry(Normalised(BetweenRoots())),)), ("zero", "spread")),
    "DeepLIFT": (deeplift_rescale(), ("reference", "contributions")),
}


@pytest.mark.parametrize("name", PLANS)
def test_only_what_a_rule_asks_for_is_found_out(name: str) -> None:
    composite, expected = PLANS[name]
    references = None if composite.reference is None else {"x": torch.zeros(1, 1)}
    planned = annotating_passes([entry.rule for entry in composite.entries], references, ("x",), 0)
    assert tuple(NAMES[type(step)] for step in planned) == expected


def test_a_rule_of_differences_needs_a_method_with_a_reference() -> None:
    """It took the value itself for the difference, in silence."""
    import relcompile

    x = torch.randn(2, 4)
    composite = Composite("chords", (Entry(Rescale(), kind="activation"), *z_plus().entries))
    with pytest.raises(UnsupportedRuleError, match=r"Rescale.*\n.*reference=0\.0"):
        relcompile.compile(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), x, rule=composite, target=0)


def test_spreads_are_known_of_every_active_value() -> None:
    graph, _ = graph_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), 4)
    run = (AssignRules(learned_root().choose, ("input",)), AddSpread(("input",), 0))
    run_passes(graph, run, keeps=verify_captured)
    found = {
        node.name: SPREAD.of(node) is not None for node in (*graph.graph.find_nodes(op="placeholder"), *calls(graph))
    }
    assert found == {"input": False, "linear": True, "relu": False, "linear_1": True}
