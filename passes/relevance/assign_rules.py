"""captured graph -> the same graph, with the rule of every operator as data on its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter
from passes.operators.call import Call, OpaqueCall
from passes.relevance.protocol.refuse import Refuse, refused
from passes.relevance.protocol.rule import RULE, AnyRule
from passes.views.active import active_operators, describe_known, nodes_named
from passes.views.layer import LAYER, Layer, layers_of


@final
@dataclass(frozen=True)
class AssignRules:
    """Find out `RULE` and `LAYER` of every operator between the explained inputs and the explained output.

    Attributes:
        choose: the composite.
        sources: names of the nodes that hold the explained inputs.
        read: names of the nodes whose relevance is wanted: what no way leads to from them may be without a rule; None
            where rules ask for facts of everything.
        output: position of the explained output.

    Raises (from `apply`):
        UnsupportedOperatorError: lists all operators that relevance has no way through, and all that the composite
            refuses, or has a rule for that is not defined there.
    """

    choose: Callable[[Layer], AnyRule]
    sources: tuple[str, ...]
    output: int = 0
    read: tuple[str, ...] | None = None
    name: ClassVar[str] = "assign-rules"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        described, unknown = describe_known(emit, self.sources, self.output)
        operators = active_operators(module, self.sources, self.output)
        seen = {node: described.get(node, _opaque(node, emit)) for node in operators}
        layers = layers_of(module, seen, nodes_named(module, self.sources))
        rules = {node: self.choose(layers[node]) for node in described}
        reasons = {node: _refusal(rule, described[node]) for node, rule in rules.items()}
        refusals = {**unknown, **{node: reason for node, reason in reasons.items() if reason is not None}}
        passed = active_operators(module, self.read or self.sources, self.output)
        if any(node in refusals for node in passed):
            raise refused({node: refusals[node] for node in passed if node in refusals}, _way_out(passed, reasons))
        for node, rule in rules.items():
            if node not in refusals:
                RULE.note(node, rule)
                LAYER.note(node, layers[node])
        return len(rules)


def _opaque(node: Node, emit: Emitter) -> Call:
    """What is above an operator that relevance cannot pass keeps its place in the network."""
    return OpaqueCall(node, emit, tuple(node.all_input_nodes))


def _way_out(passed: Sequence[Node], reasons: Mapping[Node, str | None]) -> str:
    """What helps those that the method refuses; not those that no method passes."""
    count = sum(reasons.get(node) is not None for node in passed)
    if not count:
        return ""
    which = "that one" if count == 1 else f"{count} of them"
    return f'--fallback gradient (fallback="gradient") passes {which} by the exact derivative, and the file says so'


def _refusal(rule: AnyRule, call: Call) -> str | None:
    """Why `call` gets no rule; None if it gets one."""
    if isinstance(rule, Refuse):
        return rule.reason
    return None if isinstance(call, rule.applies_to) else f"{rule} is not defined for {call.kind} operators"
