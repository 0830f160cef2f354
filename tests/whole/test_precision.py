"""What float32 costs, and where: in the forward half, not in the relevance half.

Epsilon divides by z + 1e-6 sign(z). Where a pre-activation is within float32 rounding of 0, the forward pass decides
by rounding whether its unit is on, and so does everybody who computes it in float32: on VGG-16, which has no batch
norms to be merged in one or another order, zennit in float32 is as far from float64 as relcompile in float32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

import relcompile
from tests.compare import assert_close

# Relative to max|R|; measured 1e-7 to 2e-6. Whole graphs in float32 are up to 4e-3 from float64.
RELEVANCE_HALF = 1e-5
SINGLE, DOUBLE = torch.float32, torch.float64


class Mixed(Interpreter):
    """The explainer with its forward half in one precision and its relevance half in another."""

    def __init__(self, graph: GraphModule, forward: torch.dtype, relevance: torch.dtype) -> None:
        super().__init__(graph)
        self.forward_half = ancestors(graph.graph.output_node().args[0][0])  # type: ignore[index]
        self.precision = {True: forward, False: relevance}

    def run_node(self, n: Node) -> Any:
        dtype = self.precision[n in self.forward_half]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        result = getattr(self, n.op)(n.target, cast(args, dtype), kwargs)
        return cast(result, dtype)


def ancestors(node: Any) -> set[Node]:
    found, queue = {node}, [node]
    for current in queue:
        fresh = [a for a in current.all_input_nodes if a not in found]
        found.update(fresh)
        queue.extend(fresh)
    return found


def cast(values: Any, dtype: torch.dtype) -> Any:
    def one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return pytree.tree_map(one, values)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("rule", ["epsilon", "z+"])
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "resnet18", "resnet50"])
def test_the_relevance_half_loses_nothing_in_float32(name: str, rule: str, network: Any) -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)).double()
    graph = relcompile.compile(network(name), x, rule=rule, target="argmax").graph_module
    for forward in (DOUBLE, SINGLE):
        exact, rounded = (Mixed(graph, forward, relevance).run(x)[1] for relevance in (DOUBLE, SINGLE))
        assert float((exact - rounded).abs().max()) > 0  # the precisions did differ
        assert_close(rounded, exact, RELEVANCE_HALF)
