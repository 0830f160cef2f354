"""Operators that move values: views, permutations, slices, concatenation, padding, gathering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument
from passes.operators.call import Adjoints, Call, UnaryCall


class StructureCall(UnaryCall):
    """An operator whose output elements are copies of input elements (or constants)."""

    kind = "structure"
    moves_values = True


class ReshapeCall(StructureCall):
    """view, reshape, flatten, unsqueeze, squeeze: the same elements in another shape."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.reshape_like(self.x),)


class CopyCall(StructureCall):
    """clone, contiguous, alias: the same value."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier,)


class PermuteCall(StructureCall):
    """permute, transpose."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        if self.node.target is aten.transpose.int:
            order = list(range(self.x.ndim))
            a, b = self.argument(1), self.argument(2)
            order[a], order[b] = order[b], order[a]
        else:
            order = [d % self.x.ndim for d in self.argument(1)]
        return (multiplier.permute([order.index(d) for d in range(len(order))]),)


class SliceCall(StructureCall):
    """A slice with a step: x[..., start:end:step, ...]."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim = self.argument(1) % self.x.ndim
        size = self.x.shape[dim]
        start, end, step = slice(self.argument(2), self.argument(3), self.argument(4)).indices(size)
        if step == 1:
            return (_padded(multiplier, dim, start, size - max(start, end)),)
        index = self.emit.constant(f"{self.node.name}_index", torch.arange(start, end, step))
        return (self.emit.call(aten.index_add.default, self.x.zeros(), dim, index, multiplier),)


class SelectCall(StructureCall):
    """One element of an axis: x[..., index, ...]."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim = self.argument(1) % self.x.ndim
        size, index = self.x.shape[dim], self.argument(2) % self.x.shape[dim]
        widened = self.emit.call(aten.unsqueeze.default, multiplier, dim)
        return (_padded(widened, dim, index, size - index - 1),)


class PadCall(StructureCall):
    """constant_pad_nd; negative amounts crop."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.pad([-amount for amount in self.argument(1)]),)


class ExpandCall(StructureCall):
    """Broadcasting: every copy's share adds up."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.sum_to(self.x),)


class RepeatCall(StructureCall):
    """repeat: tiles along every axis."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        repeats = self.argument(1)
        missing = len(repeats) - self.x.ndim
        sizes = [1] * missing + list(self.x.shape)
        shape = [part for repeat, size in zip(repeats, sizes, strict=True) for part in (repeat, size)]
        tiled = multiplier.reshape(shape).sum(range(0, len(shape), 2))
        return (tiled.reshape_like(self.x) if missing else tiled,)


class FlipCall(StructureCall):
    """flip."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.emit.call(aten.flip.default, multiplier, self.argument(1)),)


class RollCall(StructureCall):
    """roll."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        shifts = [-shift for shift in self.argument(1)]
        return (self.emit.call(aten.roll.default, multiplier, shifts, self.argument(2)),)


class IndexSelectCall(StructureCall):
    """index_select, or indexing of one axis by a list."""

    @classmethod
    def build_index(cls, node: Node, emit: Emitter, active: Callable[[Node], bool]) -> Call | None:
        """Indexing of several axes at once, or by a mask or a table, is not defined here."""
        given = [index for index in argument(node, 1) if index is not None]
        values = [index.meta["val"] for index in given]
        simple = len(given) == 1 and values[0].dim() == 1 and values[0].dtype == torch.int64
        return cls.build(node, emit, active) if simple else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim, index = self._axis_and_index
        return (self.emit.call(aten.index_add.default, self.x.zeros(), dim, index, multiplier),)

    @property
    def _axis_and_index(self) -> tuple[int, Any]:
        if self.node.target is aten.index_select.default:
            return self.argument(1) % self.x.ndim, self.argument(2)
        indices = self.argument(1)
        dim, index = next((dim, index) for dim, index in enumerate(indices) if index is not None)
        return dim, self.emit.call(aten.remainder.Scalar, index, self.x.shape[dim])  # counted from the front


class GatherCall(StructureCall):
    """gather along an axis by an index tensor."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim, index = self.argument(1), self.argument(2)
        return (self.emit.call(aten.scatter_add.default, self.x.zeros(), dim, index, multiplier),)


class ExtremeCall(StructureCall):
    """amax, amin over one or more axes: equal extremes share, as in torch's gradient."""

    kind = "pool"

    @property
    def is_minimum(self) -> bool:
        """True for amin."""
        return self.node.target is aten.amin.default

    def adjoint(self, multiplier: Value) -> Adjoints:
        dims = sorted(d % self.x.ndim for d in self.argument(1) or range(self.x.ndim))
        output = self.output
        if not self.argument(2):
            for dim in dims:
                multiplier = self.emit.call(aten.unsqueeze.default, multiplier, dim)
                output = self.emit.call(aten.unsqueeze.default, output, dim)
        hits = self.x.ones().where(self.x.equals(output), 0.0)
        return (hits * (multiplier / hits.sum(dims, keepdim=True)),)


class ConcatenateCall(Call):
    """cat: every operand gets its slice."""

    kind = "structure"
    moves_values = True

    @classmethod
    def build(cls, node: Node, emit: Emitter, _active: Callable[[Node], bool]) -> Call:
        """All tensors in the list are operands, repeated ones too."""
        return cls(node, emit, tuple(argument(node, 0)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim, start, parts = self.argument(1) % self.output.ndim, 0, list[Value]()
        for position in range(len(self.operands)):
            size = self.operand(position).shape[dim]
            parts.append(multiplier.slice(dim, start, start + size))
            start += size
        return tuple(parts)


class WhereCall(Call):
    """where(condition, a, b): every element goes where it came from."""

    kind = "structure"
    moves_values = True

    @classmethod
    def build(cls, node: Node, emit: Emitter, active: Callable[[Node], bool]) -> Call:
        """The active ones of a and b; a number is neither."""
        branches = (argument(node, 1), argument(node, 2))
        return cls(node, emit, tuple(a for a in branches if isinstance(a, Node) and active(a)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        condition = self.emit.value(self.argument(0))
        nothing = multiplier.zeros()
        parts = [multiplier.where(condition, nothing), nothing.where(condition, multiplier)]
        if len(self.operands) == 1:
            parts = parts[:1] if self.operands[0] is self.argument(1) else parts[1:]
        return tuple(part.sum_to(self.emit.value(a)) for part, a in zip(parts, self.operands, strict=True))


class MaskedFillCall(StructureCall):
    """masked_fill by a number: what was overwritten gets nothing."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.zeros().where(self.emit.value(self.argument(1)), multiplier),)


class MaximumCall(Call):
    """maximum(a, b), minimum(a, b): the winner takes all; on a tie both get half, as in torch's gradient."""

    kind = "pool"
    moves_values = True

    @property
    def is_minimum(self) -> bool:
        """True for minimum."""
        return self.node.target is aten.minimum.default

    @classmethod
    def build(cls, node: Node, emit: Emitter, _active: Callable[[Node], bool]) -> Call:
        """Both operands, active or not."""
        return cls(node, emit, (argument(node, 0), argument(node, 1)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        a, b = self.operand(0), self.operand(1)
        shares = [(multiplier * 0.5).where(a.equals(b), multiplier.where(v.equals(self.output), 0.0)) for v in (a, b)]
        return shares[0].sum_to(a), shares[1].sum_to(b)


def _padded(value: Value, dim: int, before: int, after: int) -> Value:
    return value.pad([0, 0] * (value.ndim - dim - 1) + [before, after])
