"""Linear maps of one value that are only added -> one linear map.

y = Σ_i s_i ⊙ (W_i x + b_i) + s ⊙ x + t  ->  y = W x + b,  W = Σ_i s_i W_i + diag(s),  b = Σ_i s_i b_i + t

The W_i are convolutions of one stride, whose kernels may differ in size, padding, dilation and groups, or linear
layers; the factors s and shifts t are numbers, or one a channel. Rules share the relevance of a sum in proportion to
its summands, which has no bound where these cancel; one linear map that was written as several (RepVGG, MobileOne,
RepViT, FastViT) has nothing to share.

Guarantees: equal numbers up to rounding: maps are added in float64 and rounded once. A branch that others read too
is left as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_read_once
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import erase_unused, replace, tensor_of
from passes.graphs.nodes import argument
from passes.rewrites.optimise.kernels import Kernel, identity, total
from passes.rewrites.optimise.linear_terms import Term, sums, terms_of

_Kind: TypeAlias = tuple[Node, Any, tuple[int, ...]]


@final
class MergeBranches:
    """Add up the weights of parallel linear branches."""

    name: ClassVar[str] = "merge-branches"

    def apply(self, module: GraphModule, /) -> int:
        emit, count = Emitter(module), 0
        for node in sums(module):
            terms = terms_of(module, node)
            groups = _groups(node, terms, module)
            if not groups:
                continue
            with emit.inserting_before(node):
                replace(node, _merged(node, terms, groups, emit))
            count += 1
        if count:
            module.graph.eliminate_dead_code()
            erase_unused(module)
        return count


@dataclass(frozen=True, eq=False)
class _Branch:
    """A summand: `factor` (O,) times an affine operator `map`, or times the value itself."""

    term: Term
    factor: torch.Tensor
    map: Node | None


def _groups(node: Node, terms: Sequence[Term], module: GraphModule) -> dict[_Kind, list[_Branch]]:
    """Summands of `node` that are one map together, by the value that they read and how."""
    groups = defaultdict[_Kind, list[_Branch]](list)
    for term in terms:
        kind = _kind(term.node, module)
        factor = None if kind is None else _by_channel(term.factor, node, _axis(kind))
        if kind is not None and factor is not None and _same_shape(term.node, node):
            groups[kind].append(_Branch(term, factor, term.node))
    for term in terms:
        for kind in [kind for kind in groups if kind[0] is term.node and set(kind[2]) <= {1}][:1]:
            factor = _by_channel(term.factor, node, _axis(kind))
            if factor is not None and _same_shape(term.node, node):
                groups[kind].append(_Branch(term, factor, None))
    return {kind: group for kind, group in groups.items() if len(group) > 1 and _keeps_size(kind, group, module)}


def _kind(node: Node | None, module: GraphModule) -> _Kind | None:
    """(x, operator, stride) of a convolution or linear layer with stored parameters that is read once."""
    if node is None or not is_read_once(node) or node.target not in (aten.convolution.default, aten.linear.default):
        return None
    weight, bias = argument(node, 1), argument(node, 2)
    if tensor_of(module, weight) is None or (bias is not None and tensor_of(module, bias) is None):
        return None
    if node.target is aten.linear.default:
        return argument(node, 0), node.target, ()
    return None if argument(node, 6) else (argument(node, 0), node.target, tuple(argument(node, 3)))


def _axis(kind: _Kind) -> int:
    """The axis of the channels."""
    return 1 if kind[1] is aten.convolution.default else -1


def _by_channel(factor: torch.Tensor, node: Node, axis: int) -> torch.Tensor | None:
    """A number, or one a channel, as (C,); None for what differs along another axis too."""
    shape = node.meta["val"].shape
    if factor.dim() > len(shape):
        return None
    aligned = factor.reshape([1] * (len(shape) - factor.dim()) + list(factor.shape)).movedim(axis, -1)
    return aligned.flatten().expand(int(shape[axis])) if set(aligned.shape[:-1]) <= {1} else None


def _same_shape(a: Node | None, b: Node) -> bool:
    return a is not None and str(a.meta["val"].shape) == str(b.meta["val"].shape)


def _keeps_size(kind: _Kind, group: Sequence[_Branch], module: GraphModule) -> bool:
    """One window over all has as many places as each: where windows lie askew, it may have another number."""
    x, _, stride = kind
    kernel = _sum(kind, group, module)
    sizes = zip(x.meta["val"].shape[2:], kernel.start, kernel.end, stride, strict=False)
    places = [(size - a - b - 1) // s + 1 for size, a, b, s in sizes]
    return all(branch.map is None or list(branch.map.meta["val"].shape[2:]) == places for branch in group if stride)


def _sum(kind: _Kind, group: Sequence[_Branch], module: GraphModule) -> Kernel:
    return total([_kernel(branch.map, kind, module).scaled(branch.factor) for branch in group])


def _kernel(node: Node | None, kind: _Kind, module: GraphModule) -> Kernel:
    x, operator, stride = kind
    if node is None:
        return identity(int(x.meta["val"].shape[_axis(kind)]), len(stride))
    weight, bias = (tensor_of(module, argument(node, k)) for k in (1, 2))
    assert weight is not None
    shift = torch.zeros(weight.shape[0], dtype=torch.float64) if bias is None else bias.double()
    if operator is aten.linear.default:
        return Kernel(weight.double(), shift, (), (), 1)
    padding, dilation, groups = argument(node, 4), argument(node, 5), argument(node, 8)
    return Kernel(weight.double(), shift, tuple(-p for p in padding), tuple(dilation), groups)


def _merged(node: Node, terms: Sequence[Term], groups: Mapping[_Kind, list[_Branch]], emit: Emitter) -> Value:
    """The sum of one map a group, and of what none of them takes up."""
    (first, branches), *others = groups.items()
    inside = [branch.term for group in groups.values() for branch in group]
    left = [term for term in terms if term not in inside]
    shifts = {term: _by_channel(term.factor, node, _axis(first)) for term in left if term.node is None}
    kernel = _sum(first, branches, emit.module)
    for shift in shifts.values():
        kernel = kernel if shift is None else kernel.shifted(shift)
    result = _call(first, branches, kernel, emit)
    for kind, group in others:
        result = result + _call(kind, group, _sum(kind, group, emit.module), emit)
    for term in left:
        if shifts.get(term) is None:
            result = _plus(result, term, emit)
    return result


def _call(kind: _Kind, group: Sequence[_Branch], kernel: Kernel, emit: Emitter) -> Value:
    """The operator with the parameters `kernel`, under the name of the largest map of the group."""
    x, operator, stride = kind
    maps = [branch.map for branch in group if branch.map is not None]
    largest = max(maps, key=lambda map_: argument(map_, 1).meta["val"].numel())
    dtype, name = x.meta["val"].dtype, str(argument(largest, 1).target)
    with emit.on_behalf_of(largest):
        weight = emit.constant(name, kernel.weight.to(dtype))
        bias = emit.constant(name.replace("weight", "bias"), kernel.bias.to(dtype))
        if operator is aten.linear.default:
            return emit.call(operator, x, weight, bias)
        padding, zeros = [-start for start in kernel.start], [0] * len(stride)
        return emit.call(
            operator, x, weight, bias, list(stride), padding, list(kernel.step), False, zeros, kernel.groups
        )


def _plus(value: Value, term: Term, emit: Emitter) -> Value:
    """`value + factor * node`, or `value + factor`."""
    factor: Value | float = float(term.factor) if term.factor.numel() == 1 else _constant(term, value, emit)
    if term.node is None:
        return value + factor
    summand = emit.value(term.node)
    if factor == -1:
        return value - summand
    return value + (summand if factor == 1 else summand * factor)


def _constant(term: Term, like: Value, emit: Emitter) -> Value:
    return emit.constant("factor" if term.node else "shift", term.factor.to(like.fake.dtype))
