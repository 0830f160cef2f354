"""captured graph -> the same graph, with the rule of every operator as data on its node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule

from passes.graphs.emitter import Emitter
from passes.operators.call import Call
from passes.relevance.refuse import Refuse, refused
from passes.relevance.rule import RULE, AnyRule
from passes.views.active import describe_known, nodes_named
from passes.views.layer import LAYER, Layer, layers_of


@final
@dataclass(frozen=True)
class AssignRules:
    """Find out `RULE` and `LAYER` of every operator between the explained inputs and the explained output.

    Attributes:
        choose: the composite.
        sources: names of the nodes that hold the explained inputs.
        output: position of the explained output.

    Raises (from `apply`):
        UnsupportedOperatorError: lists all operators that relevance has no way through, and all that the composite
            refuses, or has a rule for that is not defined there.
    """

    choose: Callable[[Layer], AnyRule]
    sources: tuple[str, ...]
    output: int = 0
    name: ClassVar[str] = "assign-rules"

    def apply(self, module: GraphModule, /) -> int:
        described, unknown = describe_known(Emitter(module), self.sources, self.output)
        layers = layers_of(module, described, nodes_named(module, self.sources))
        rules = {node: self.choose(layer) for node, layer in layers.items()}
        reasons = {node: _refusal(rule, described[node]) for node, rule in rules.items()}
        refusals = {**unknown, **{node: reason for node, reason in reasons.items() if reason is not None}}
        if refusals:
            raise refused({node: refusals[node] for node in module.graph.nodes if node in refusals})
        for node, rule in rules.items():
            RULE.note(node, rule)
            LAYER.note(node, layers[node])
        return len(rules)


def _refusal(rule: AnyRule, call: Call) -> str | None:
    """Why `call` gets no rule; None if it gets one."""
    if isinstance(rule, Refuse):
        return rule.reason
    return None if isinstance(call, rule.applies_to) else f"{rule} is not defined for {call.kind} operators"
