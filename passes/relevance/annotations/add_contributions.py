"""annotated graph with a reference -> the same graph, in which every value knows how its difference splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.errors import UnsupportedOperatorError, UnsupportedRuleError
from passes.graphs.emitter import Emitter, Value
from passes.graphs.graph import describe_node
from passes.operators.call import Call
from passes.relevance.protocol.reference import CONTRIBUTIONS, REFERENCE, Split, difference
from passes.relevance.protocol.rule import RULE, DifferenceRule
from passes.views.active import describe_active, nodes_named


@final
@dataclass(frozen=True)
class AddContributions:
    """Say how Δy splits into Δy⁺ + Δy⁻, by the rule of every operator; at the inputs, by the sign.

    Attributes:
        sources: names of the explained inputs.
        output: position of the explained output.

    Guarantees: `CONTRIBUTIONS` of every active value writes its split, and is constant where `REFERENCE` is; the graph
    is untouched until somebody asks.

    Raises (from `apply`):
        UnsupportedRuleError: a rule is not one of differences from a reference.
        UnsupportedOperatorError: what an operator does depends on the input in a way that carries no relevance.
    """

    sources: tuple[str, ...]
    output: int
    name: ClassVar[str] = "add-contributions"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        described = describe_active(emit, self.sources, self.output)
        rules = _difference_rules(described)
        for node in module.graph.nodes:
            if not REFERENCE.is_absent(node) and REFERENCE.is_constant(node):
                CONTRIBUTIONS.note_constant(node)
        for source in nodes_named(module, self.sources):
            CONTRIBUTIONS.note(source, cache(partial(_by_sign, emit.value(source))))
        for node, call in described.items():
            CONTRIBUTIONS.note(node, call.lazily(rules[node].contribute))
        _refuse_choices(described)
        return len(CONTRIBUTIONS.known_in(module.graph.nodes))


def _by_sign(value: Value) -> Split:
    delta = difference(value)
    return Split(delta.positive, delta.negative)


def _difference_rules(described: Mapping[Node, Call]) -> Mapping[Node, DifferenceRule]:
    assigned = {node: RULE.of(node) for node in described}
    rules = {node: rule for node, rule in assigned.items() if isinstance(rule, DifferenceRule)}
    if foreign := [node for node in described if node not in rules]:
        listing = "\n".join(f"  {RULE.of(node)}: {describe_node(node)}" for node in foreign)
        raise UnsupportedRuleError(f"these rules know no reference and do not mix with rules that do:\n{listing}")
    return rules


def _refuse_choices(described: dict[Node, Call]) -> None:
    choices = [node for node in described if any(map(_is_choice, node.all_input_nodes))]
    if choices:
        listing = "\n".join(f"  {describe_node(node)}" for node in choices)
        raise UnsupportedOperatorError(
            f"{len(choices)} operators choose by the input what they compute (a mask, an index, a rounded number):\n"
            f"{listing}\nDifferences from a reference are not defined there; a gradient or LRP rule is."
        )


def _is_choice(node: Node) -> bool:
    """The value depends on the input, but no relevance flows there."""
    return not REFERENCE.is_absent(node) and CONTRIBUTIONS.is_absent(node)
