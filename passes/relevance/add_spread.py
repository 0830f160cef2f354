"""annotated graph -> the same graph, in which sums know how widely their contributions scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule

from passes.graphs.emitter import Emitter
from passes.relevance.rule import SpreadRule
from passes.views.active import describe_active


@final
@dataclass(frozen=True)
class AddSpread:
    """Say what Σ_c c² is at the output of every operator whose rule tells contributions apart.

    Attributes:
        sources: names of the explained inputs.
        output: position of the explained output.

    Guarantees: `meta["spread"]` of such a value writes the sum; the graph is untouched until somebody asks.
    """

    sources: tuple[str, ...]
    output: int
    name: ClassVar[str] = "add-spread"

    def apply(self, module: GraphModule, /) -> int:
        described = describe_active(Emitter(module), self.sources, self.output)
        for node, call in described.items():
            if isinstance(node.meta["rule"], SpreadRule):
                node.meta["spread"] = call.lazily(node.meta["rule"].spread)
        return 0
