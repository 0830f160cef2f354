"""What a graph may hold at each stage; verified after every pass.

captured   any functional aten operator; parameters are attributes; every node knows its shape
canonical  no batch norm; convolutions are `aten.convolution`
explainer  the same operators, plus the backward operators of pools and activations
lowered    forward operators only (the exporter decomposes the backward operators of activations)
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from passes.errors import InvariantError
from passes.graphs.emitter import aten
from passes.graphs.graph import describe_node

_OPS = ("placeholder", "get_attr", "call_function", "output")
_NOT_CANONICAL: tuple[Any, ...] = (
    aten._native_batch_norm_legit_no_training.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
)
_NOT_LOWERED: tuple[Any, ...] = (
    *_NOT_CANONICAL,
    aten.avg_pool2d_backward.default,
    aten.avg_pool3d_backward.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices.default,
    aten.max_pool3d_with_indices_backward.default,
)


def verify_captured(module: GraphModule) -> None:
    """Raise `InvariantError` if a node is neither functional nor typed."""
    for node in module.graph.nodes:
        if node.op not in _OPS:
            raise InvariantError(f"{node.op} node {node.name} cannot be part of a static graph")
        if node.op != "output" and "val" not in node.meta:
            raise InvariantError(f"node {node.name} has no shape")
        if _mutates(node):
            raise InvariantError(f"{describe_node(node)} changes its operand in place")


def verify_canonical(module: GraphModule) -> None:
    """Also: only the operators that rules know batch norm and convolution by."""
    _verify_without(module, _NOT_CANONICAL, "canonical")


def verify_lowered(module: GraphModule) -> None:
    """Also: no backward operator of a pool."""
    _verify_without(module, _NOT_LOWERED, "lowered")


def _verify_without(module: GraphModule, targets: tuple[Any, ...], stage: str) -> None:
    verify_captured(module)
    left = [node for node in module.graph.nodes if node.target in targets]
    if left:
        listing = "; ".join(describe_node(node) for node in left)
        raise InvariantError(f"a {stage} graph may not hold: {listing}")


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable
