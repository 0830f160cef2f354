"""annotated graph with a reference -> the same graph, in which every value knows how its difference splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.errors import UnsupportedOperatorError, UnsupportedRuleError
from passes.graphs.emitter import Emitter, Value
from passes.graphs.graph import describe_node
from passes.operators.call import Call
from passes.relevance.reference import Split, difference
from passes.relevance.rule import DifferenceRule
from passes.views.active import describe_active, nodes_named


@final
@dataclass(frozen=True)
class AddContributions:
    """Say how Δy splits into Δy⁺ + Δy⁻, by the rule of every operator; at the inputs, by the sign.

    Attributes:
        sources: names of the explained inputs.
        output: position of the explained output.

    Guarantees: `meta["contributions"]` of every active value writes its split; the graph is untouched until somebody
    asks.

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
        _refuse_foreign_rules(described)
        for source in nodes_named(module, self.sources):
            source.meta["contributions"] = cache(partial(_by_sign, emit.value(source)))
        for node, call in described.items():
            node.meta["contributions"] = call.lazily(node.meta["rule"].contribute)
        _refuse_choices(described)
        return 0


def _by_sign(value: Value) -> Split:
    delta = difference(value)
    return Split(delta.positive, delta.negative)


def _refuse_foreign_rules(described: dict[Node, Call]) -> None:
    foreign = [node for node in described if not isinstance(node.meta["rule"], DifferenceRule)]
    if foreign:
        listing = "\n".join(f"  {node.meta['rule']}: {describe_node(node)}" for node in foreign)
        raise UnsupportedRuleError(f"these rules know no reference and do not mix with rules that do:\n{listing}")


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
    return "reference" in node.meta and "contributions" not in node.meta
