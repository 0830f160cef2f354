"""annotated graph -> the same graph, in which sums know how widely their contributions scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule

from passes.graphs.emitter import Emitter
from passes.relevance.protocol.rule import RULE, SpreadRule
from passes.relevance.protocol.spread import SPREAD
from passes.views.active import describe_active, nodes_named


@final
@dataclass(frozen=True)
class AddSpread:
    """Say what Σ_c c² is at every active value: its rule tells contributions apart, or it is one itself.

    Attributes:
        sources: names of the explained inputs.
        output: position of the explained output.

    Guarantees: `SPREAD` of every active value is known; the graph is untouched until somebody asks.
    """

    sources: tuple[str, ...]
    output: int
    name: ClassVar[str] = "add-spread"

    def apply(self, module: GraphModule, /) -> int:
        described = describe_active(Emitter(module), self.sources, self.output)
        sources = nodes_named(module, self.sources)
        for source in sources:
            SPREAD.note(source, None)
        for node, call in described.items():
            rule = RULE.of(node)
            SPREAD.note(node, call.lazily(rule.spread) if isinstance(rule, SpreadRule) else None)
        return len(sources) + len(described)
