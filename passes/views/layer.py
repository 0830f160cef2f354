"""What a composite may look at when it chooses the rule of an operator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from torch.fx import GraphModule, Node

from passes.graphs.facts import Fact
from passes.graphs.graph import layer_name, layer_type, operator_name, tensor_of
from passes.operators.call import Call, Kind
from passes.views.residual_blocks import residual_members
from passes.views.roles import Roles, roles_of


@dataclass(frozen=True)
class Layer:
    """What a composite may look at when it chooses the rule of an operator.

    Attributes:
        name: the user's layer name, for example "layer1.0.conv1".
        module_type: class name of the layer's module, for example "Conv2d"; "" outside any.
        operator: aten name, for example "convolution".
        kind: what sort of operator it is.
        first: no affine layer lies between the input and this one (which is affine).
        last: no affine layer lies between this one (which is affine) and the explained output.
        position: how far up the network: affine layers before it over affine layers before and after it, on the
            longest ways; 0 at the input, 1 at the output.
        parameters: number of elements in the stored tensors that the operator reads.
        residual: it belongs to a residual block: a branch, or the activation of the sum.
        bottleneck: every way from the explained inputs to the explained output leads through it.
        at_output: it is the explained output, or a part of it: its values are only moved on the way there.
        after: aten name of the affine layer before it, for example "linear"; "" if there is none.
        roles: what its operands are to each other, and which one is it.
        call: the view of the operator that rules are defined for.
    """

    name: str
    module_type: str
    operator: str
    kind: Kind
    first: bool
    last: bool
    position: float
    parameters: int
    residual: bool = False
    bottleneck: bool = False
    at_output: bool = False
    after: str = ""
    roles: Roles = field(default_factory=dict, hash=False)
    call: type[Call] = Call


LAYER: Final = Fact[Layer]("layer")


def layers_of(module: GraphModule, described: Mapping[Node, Call], sources: Collection[Node]) -> dict[Node, Layer]:
    """What a composite sees of each operator between the explained inputs `sources` and the explained output."""
    roles = roles_of(module, described, sources)
    depth = _depths(described, forwards=True)
    height = _depths(described, forwards=False)
    in_blocks = residual_members(described)
    narrow = _bottlenecks(described)
    before, ends = _affine_before(described), _at_output(described)
    return {
        node: Layer(
            name=layer_name(node),
            module_type=layer_type(node),
            operator=operator_name(node),
            kind=call.kind,
            first=call.kind == "affine" and depth[node] == 0,
            last=call.kind == "affine" and height[node] == 0,
            position=depth[node] / max(depth[node] + height[node], 1),
            parameters=sum(t.numel() for a in node.all_input_nodes if (t := tensor_of(module, a)) is not None),
            residual=node in in_blocks,
            bottleneck=node in narrow,
            at_output=node in ends,
            after=before[node],
            roles=roles[node],
            call=type(call),
        )
        for node, call in described.items()
    }


def _at_output(described: Mapping[Node, Call]) -> set[Node]:
    """Operators whose values nothing but views, selections and concatenations lie behind."""
    ends = set[Node]()
    for node in reversed(list(described)):
        behind = [user for user in node.users if user in described]
        if all(user in ends and described[user].kind == "structure" for user in behind):
            ends.add(node)
    return ends


def _affine_before(described: Mapping[Node, Call]) -> dict[Node, str]:
    """Name of the affine operator that each node's first operands come from."""
    before: dict[Node, str] = {}
    for node, call in described.items():
        known = [operand for operand in call.operands if operand in before]
        nearest = [operator_name(n) if described[n].kind == "affine" else before[n] for n in known]
        before[node] = next(filter(None, nearest), "")
    return before


def _depths(described: Mapping[Node, Call], *, forwards: bool) -> dict[Node, int]:
    """Affine operators on the longest way to each node from the input (or to the output)."""
    depths: dict[Node, int] = {}
    for node in list(described)[:: 1 if forwards else -1]:
        before = described[node].operands if forwards else tuple(node.users)
        depths[node] = max((depths[n] + (described[n].kind == "affine") for n in before if n in depths), default=0)
    return depths


def _bottlenecks(described: Mapping[Node, Call]) -> set[Node]:
    """Operators that no edge leads past: in graph order, a value read behind them comes from them or from behind."""
    order = {node: position for position, node in enumerate(described)}
    earliest = len(order)  # the first value that is read behind the current operator; inputs come before all
    narrow = set[Node]()
    for node, call in reversed(list(described.items())):
        if earliest >= order[node]:
            narrow.add(node)
        earliest = min([earliest, *(order.get(operand, -1) for operand in call.operands)])
    return narrow
