"""captured graph -> the same graph, with the rule of every operator as data on its node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule

from passes.errors import UnsupportedRuleError
from passes.graphs.emitter import Emitter
from passes.graphs.graph import describe_node
from passes.relevance.rule import RULE, AnyRule
from passes.views.active import describe_active
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
        UnsupportedOperatorError: lists all operators that relevance has no way through.
        UnsupportedRuleError: the composite chose a rule that is not defined for an operator.
    """

    choose: Callable[[Layer], AnyRule]
    sources: tuple[str, ...]
    output: int = 0
    name: ClassVar[str] = "assign-rules"

    def apply(self, module: GraphModule, /) -> int:
        described = describe_active(Emitter(module), self.sources, self.output)
        for node, layer in layers_of(module, described).items():
            rule = self.choose(layer)
            if not isinstance(described[node], rule.applies_to):
                raise UnsupportedRuleError(f"{rule} is not defined for {layer.kind} operators: {describe_node(node)}")
            RULE.note(node, rule)
            LAYER.note(node, layer)
        return len(described)
