"""annotated graph -> the same graph, in which every value knows its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule

from passes.operators.signs import SIGN
from passes.operators.table import infer_sign


@final
@dataclass(frozen=True)
class InferSigns:
    """Note what the operators say of the signs of their values.

    Guarantees: `SIGN` of every node is known; None where nothing is.
    """

    name: ClassVar[str] = "infer-signs"

    def apply(self, module: GraphModule, /) -> int:
        nodes = list(module.graph.nodes)
        for node in nodes:
            SIGN.note(node, infer_sign(node, module))
        return len(nodes)
