"""The only writer of new nodes: typed handles on graph values, with shapes carried along.

`Value` makes a rule read like its equation: `x * adjoint(relevance / (z + epsilon))` writes four nodes.
Every node written this way has `meta["val"]` (a fake tensor: shape and dtype, the batch symbolic) and says
where it comes from: the layer and the user's source line of the operator whose relevance it computes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from math import prod
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from passes.graphs.shapes import Shapes, evaluate_shape, fake_mode
from passes.graphs.sizes import batch_factor, is_of_batch, same_size, write_size

aten: Any = torch.ops.aten
Scalar: TypeAlias = float | int | torch.SymInt
_PROVENANCE = ("nn_module_stack", "stack_trace")


class Emitter:
    """Writes nodes into the graph of `module`, before its output node."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self._origin: Node | None = None
        self._point = module.graph.output_node()
        self._shapes = Shapes()

    @contextmanager
    def on_behalf_of(self, node: Node) -> Generator[None]:
        """Nodes written inside take over the layer name and the source line of `node`."""
        before, self._origin = self._origin, node
        try:
            yield
        finally:
            self._origin = before

    @contextmanager
    def inserting_before(self, node: Node) -> Generator[None]:
        """Nodes written inside stand before `node` and come from the same line."""
        before, self._point = self._point, node
        with self.on_behalf_of(node):
            try:
                yield
            finally:
                self._point = before

    def value(self, node: Node) -> Value:
        """A handle on a node that exists."""
        return Value(node, self)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Value:
        """Write `target(*args, **kwargs)`; arguments may be values, nodes, numbers or lists of them."""
        arguments, keywords = pytree.tree_map(self._node, (args, kwargs))
        with self.module.graph.inserting_before(self._point):
            node = self.module.graph.call_function(target, arguments, keywords)
        if self._origin is not None:
            node.meta.update({key: self._origin.meta[key] for key in _PROVENANCE if key in self._origin.meta})
        node.meta["val"] = self._shapes.of(node)
        return Value(node, self)

    def is_of_batch(self, size: Any) -> bool:
        """The size holds the number of samples."""
        return is_of_batch(size, self.module.graph)

    def _node(self, argument: Any) -> Any:
        """An argument as graphs have it; a symbolic size is computed from those of the inputs."""
        if isinstance(argument, Value):
            return argument.node
        return self._size(argument) if isinstance(argument, torch.SymInt | torch.SymFloat) else argument

    def _size(self, size: Any) -> Node:
        with self.module.graph.inserting_before(self._point):
            before = self._point.prev
            node = write_size(size, self.module.graph)
        while before is not node:
            before = before.next
            before.meta["val"] = evaluate_shape(before)
        return node

    def placeholder(
        self, name: str, like: torch.Tensor, shape: Sequence[Any] | None = None, dtype: torch.dtype | None = None
    ) -> Value:
        """Add an input to the graph, after all others: as the fake tensor `like`, but for what else is given."""
        last = self.module.graph.find_nodes(op="placeholder")[-1]
        with self.module.graph.inserting_after(last):
            node = self.module.graph.placeholder(name)
        with fake_mode(self.module.graph):
            node.meta["val"] = like.new_empty(tuple(like.shape if shape is None else shape), dtype=dtype or like.dtype)
        return Value(node, self)

    def constant(self, name: str, tensor: torch.Tensor) -> Value:
        """Write a reference to a buffer of the module that holds `tensor`; one of that name is used again if equal."""
        name = _free_name(self.module, name, tensor)
        self.module.register_buffer(name, tensor)
        with self.module.graph.inserting_before(self._point):
            node = self.module.graph.get_attr(name)
        node.meta["val"] = fake_mode(self.module.graph).from_tensor(tensor, static_shapes=True)
        return Value(node, self)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor in the graph. Arithmetic on it writes nodes."""

    node: Node
    emit: Emitter

    @property
    def fake(self) -> torch.Tensor:
        """Shape and dtype of the value, without data."""
        return self.node.meta["val"]

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes: integers, and symbols for the batch and for free axes."""
        return tuple(self.fake.shape)

    @property
    def ndim(self) -> int:
        return self.fake.dim()

    def __add__(self, other: Value | Scalar) -> Value:
        return self.emit.call(aten.add.Tensor, self, other)

    def __sub__(self, other: Value | Scalar) -> Value:
        return self.emit.call(aten.sub.Tensor, self, other)

    def __mul__(self, other: Value | Scalar) -> Value:
        return self.emit.call(aten.mul.Tensor, self, other)

    def __truediv__(self, other: Value | Scalar) -> Value:
        return self.emit.call(aten.div.Tensor, self, other)

    def __neg__(self) -> Value:
        return self.emit.call(aten.neg.default, self)

    def __gt__(self, other: Scalar) -> Value:
        return self.emit.call(aten.gt.Scalar, self, other)

    def __lt__(self, other: Scalar) -> Value:
        return self.emit.call(aten.lt.Scalar, self, other)

    def __ge__(self, other: Scalar) -> Value:
        return self.emit.call(aten.ge.Scalar, self, other)

    def equals(self, other: Value | Scalar) -> Value:
        """1 where the two are equal (bool)."""
        target = aten.eq.Tensor if isinstance(other, Value) else aten.eq.Scalar
        return self.emit.call(target, self, other)

    def differs(self, other: Scalar) -> Value:
        """1 where the value is not `other` (bool)."""
        return self.emit.call(aten.ne.Scalar, self, other)

    def both(self, other: Value) -> Value:
        """1 where both of two conditions hold (bool)."""
        return self.emit.call(aten.logical_and.default, self, other)

    @property
    def positive(self) -> Value:
        """max(self, 0)."""
        return self.emit.call(aten.clamp_min.default, self, 0)

    @property
    def negative(self) -> Value:
        """min(self, 0)."""
        return self.emit.call(aten.clamp_max.default, self, 0)

    @property
    def magnitude(self) -> Value:
        """|self|."""
        return self.emit.call(aten.abs.default, self)

    def zeros(self) -> Value:
        """Zeros of the same shape."""
        return self.emit.call(aten.zeros_like.default, self)

    def ones(self) -> Value:
        """Ones of the same shape."""
        return self.emit.call(aten.ones_like.default, self)

    def where(self, condition: Value, otherwise: Value | Scalar) -> Value:
        """`self` where `condition` holds, `otherwise` elsewhere."""
        target = aten.where.self if isinstance(otherwise, Value) else aten.where.ScalarOther
        return self.emit.call(target, condition, self, otherwise)

    def sum(self, dims: Sequence[int], *, keepdim: bool = False) -> Value:
        """Sum over `dims`."""
        return self.emit.call(aten.sum.dim_IntList, self, list(dims), keepdim)

    def sum_per_sample(self) -> Value:
        """One sum for each sample, (N, 1). The batch may be any axis, or the major factor of one (N heads)."""
        axis, factor = self._place_of_samples()
        if axis == 0 and same_size(factor, 1):
            return (self.sum(range(1, self.ndim)) if self.ndim > 1 else self).reshape([-1, 1])
        others = [dim for dim in range(self.ndim) if dim != axis]
        rows = self.permute([axis, *others]).reshape([-1, factor * prod(self.shape[dim] for dim in others)])
        return rows.sum([1], keepdim=True)

    def sum_beside(self, other: Value) -> Value:
        """One sum for each sample, as it broadcasts to `other`: (N, 1, ...) of its rank."""
        axis, factor = self._place_of_samples()
        if axis == 0 and same_size(factor, 1) and self.ndim == other.ndim > 1:
            return self.sum(range(1, self.ndim), keepdim=True)
        return self.sum_per_sample().reshape([-1, *[1] * (other.ndim - 1)])

    def _place_of_samples(self) -> tuple[int, Any]:
        """The axis that holds the samples, and how many rows each of them has there."""
        graph = self.node.graph
        axis = next((dim for dim, size in enumerate(self.shape) if is_of_batch(size, graph)), 0)
        return axis, 1 if isinstance(self.shape[axis], int) else batch_factor(self.shape[axis], graph)

    def permute(self, dims: Sequence[int]) -> Value:
        """Axes in the order `dims`."""
        return self.emit.call(aten.permute.default, self, list(dims))

    def slice(self, dim: int, start: int, end: Any, step: int = 1) -> Value:
        """Elements start, start + step, ... below `end` along `dim`."""
        if start == 0 and step == 1 and same_size(end, self.shape[dim]):
            return self
        return self.emit.call(aten.slice.Tensor, self, dim, start, end, step)

    def pad(self, amounts: Sequence[int], value: float = 0.0) -> Value:
        """Constant padding; `amounts` in torch's order, last axis first. Negative amounts crop."""
        if not any(amounts):
            return self
        return self.emit.call(aten.constant_pad_nd.default, self, list(amounts), value)

    def reshape(self, shape: Sequence[Any]) -> Value:
        """View with the given sizes; that of the batch, or else the first symbolic one, becomes -1."""
        symbolic = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        given = [axis for axis, size in enumerate(shape) if isinstance(size, int) and size == -1]
        of_batch = [axis for axis in symbolic if self.emit.is_of_batch(shape[axis])]
        inferred = (*given, *of_batch, *symbolic, None)[0]
        sizes = [-1 if axis == inferred else size for axis, size in enumerate(shape)]
        return self.emit.call(aten.reshape.default, self, sizes)

    def reshape_like(self, other: Value) -> Value:
        """View with the shape of `other`."""
        return self.reshape(other.shape)

    def expand_like(self, other: Value) -> Value:
        """Broadcast to the shape of `other`, which has the same rank."""
        if all(map(same_size, self.shape, other.shape)):
            return self
        return self.emit.call(aten.expand.default, self, other.sizes())

    def sizes(self) -> list[Any]:
        """Sizes as arguments for a new node: integers, and a node for that of the batch."""
        return [
            self.emit.call(aten.sym_size.int, self, dim) if self.emit.is_of_batch(size) else size
            for dim, size in enumerate(self.shape)
        ]

    def sum_to(self, other: Value) -> Value:
        """Undo broadcasting: sum over the axes along which `other` was repeated to this shape."""
        extra = self.ndim - other.ndim
        value = self.sum(range(extra)) if extra else self
        repeated = [d for d in range(other.ndim) if other.shape[d] == 1 and value.shape[d] != 1]
        return value.sum(repeated, keepdim=True) if repeated else value


def _free_name(module: GraphModule, name: str, tensor: torch.Tensor) -> str:
    """A name that is not taken, or taken by an equal tensor."""
    name, buffers = name.replace(".", "_"), dict(module.named_buffers())
    candidates = chain([name], (f"{name}_{k}" for k in count()))
    return next(c for c in candidates if not hasattr(module, c) or _equal(buffers.get(c), tensor))


def _equal(a: torch.Tensor | None, b: torch.Tensor) -> bool:
    return a is not None and a.dtype == b.dtype and torch.equal(a, b)
