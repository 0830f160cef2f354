"""Products with what all questions of a sample share are made once a sample, and not once a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_anchored
from passes.graphs.emitter import Emitter, aten
from passes.graphs.graph import calls, replace
from passes.graphs.nodes import arguments
from passes.views.active import nodes_named


@final
@dataclass(frozen=True)
class ShareFactors:
    """(m a) / d -> m (a / d) and (m a) b -> m (a b), where m depends on the question, and a, b and d do not.

    That m a is read by nothing else: all its readers change in this way. a is a tensor, b and d may be numbers.

    Before: the graph of one question a sample, lowered.

    Attributes:
        firsts: names of the nodes that ask the question.

    Guarantees: equal numbers up to rounding.
    """

    firsts: tuple[str, ...]
    name: ClassVar[str] = "share-factors"

    def apply(self, module: GraphModule, /) -> int:
        emit, asked, count = Emitter(module), set(nodes_named(module, self.firsts)), 0
        for node in calls(module):
            if not asked.isdisjoint(node.all_input_nodes):
                asked.add(node)
            found = _factors(node, asked) if node in asked else None
            if found is None:
                continue
            m, a, b = found
            with emit.inserting_before(node):
                result = emit.value(m) * emit.call(node.target, a, b)
            asked.add(result.node)
            replace(node, result)
            count += 1
        return count


def _factors(node: Node, asked: set[Node]) -> tuple[Node, Node, Node | float] | None:
    """Such m, a, and b or d; None where the product m a is needed for something else as well."""
    for product, b in _scalings(node, asked):
        if product.target is not aten.mul.Tensor or is_anchored(product):
            continue
        if all(product in dict(_scalings(reader, asked)) for reader in product.users):
            return next(((m, a, b) for m, a in _scalings(product, asked) if isinstance(a, Node)), None)
    return None


def _scalings(node: Node, asked: set[Node]) -> list[tuple[Node, Node | float]]:
    """What depends on the question and what does not (a number, too), of a product or quotient of both."""
    if node.target not in (aten.div.Tensor, aten.mul.Tensor):
        return []
    a, b = arguments(node)[:2]
    pairs = [(a, b)] if node.target is aten.div.Tensor else [(a, b), (b, a)]
    return [(m, other) for m, other in pairs if m in asked and other not in asked]
