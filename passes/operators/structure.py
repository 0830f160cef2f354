"""Operators that move values: views, permutations, slices, concatenation, padding, gathering."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument
from passes.operators.call import Active, Adjoints, Call, UnaryCall


class StructureCall(UnaryCall):
    """An operator whose output elements are copies of input elements (or constants)."""

    kind = "structure"
    moves_values = True


class ReshapeCall(StructureCall):
    """view, reshape, flatten, unsqueeze, squeeze: the same elements in another shape."""

    keeps_places = True

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.reshape_like(self.x),)


class CopyCall(StructureCall):
    """clone, contiguous, alias: the same value."""

    keeps_places = True

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier,)


class CastCall(StructureCall):
    """Another precision: what comes back has that of the operand."""

    keeps_places = True

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        """Floating point numbers only."""
        call = cls(node, emit, (argument(node, "self"),))
        return call if all(value.fake.is_floating_point() for value in (call.x, call.output)) else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.emit.call(aten._to_copy.default, multiplier, dtype=self.x.fake.dtype),)


class PermuteCall(StructureCall):
    """permute."""

    @property
    def order(self) -> list[int]:
        """The operand's axes in the order of the output's."""
        return [d % self.x.ndim for d in self.argument("dims")]

    def adjoint(self, multiplier: Value) -> Adjoints:
        order = self.order
        return (multiplier.permute([order.index(d) for d in range(len(order))]),)


class TransposeCall(PermuteCall):
    """transpose: two axes exchanged."""

    @property
    def order(self) -> list[int]:
        order = list(range(self.x.ndim))
        a, b = self.argument("dim0"), self.argument("dim1")
        order[a], order[b] = order[b], order[a]
        return order


class TakingCall(StructureCall):
    """An operator that takes elements along one axis, which is not the batch."""

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        call = cls(node, emit, (argument(node, 0),))
        return None if emit.is_of_batch(call.x.shape[call.argument("dim") % call.x.ndim]) else call


class SliceCall(TakingCall):
    """A slice with a step: x[..., start:end:step, ...]."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim = self.argument("dim") % self.x.ndim
        size = self.x.shape[dim]
        bounds = [self.argument(name) for name in ("start", "end", "step")]
        if not isinstance(size, int):
            return (self.emit.call(aten.slice_scatter.default, self.x.zeros(), multiplier, dim, *bounds),)
        start, end, step = slice(*bounds).indices(size)
        if step == 1:
            return (_padded(multiplier, dim, start, size - max(start, end)),)
        index = self.emit.constant(f"{self.node.name}_index", torch.arange(start, end, step))
        return (self.emit.call(aten.index_add.default, self.x.zeros(), dim, index, multiplier),)


class SelectCall(TakingCall):
    """One element of an axis: x[..., index, ...]."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim = self.argument("dim") % self.x.ndim
        size, index = self.x.shape[dim], self.argument("index")
        if not isinstance(size, int):
            return (self.emit.call(aten.select_scatter.default, self.x.zeros(), multiplier, dim, index),)
        index %= size
        widened = self.emit.call(aten.unsqueeze.default, multiplier, dim)
        return (_padded(widened, dim, index, size - index - 1),)


class PadCall(StructureCall):
    """constant_pad_nd; negative amounts crop."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.pad([-amount for amount in self.argument("pad")]),)


class ExpandCall(StructureCall):
    """Broadcasting: every copy's share adds up."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.sum_to(self.x),)


class RepeatCall(StructureCall):
    """repeat: tiles along every axis."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        repeats = self.argument("repeats")
        missing = len(repeats) - self.x.ndim
        sizes = [1] * missing + list(self.x.shape)
        shape = [part for repeat, size in zip(repeats, sizes, strict=True) for part in (repeat, size)]
        tiled = multiplier.reshape(shape).sum(range(0, len(shape), 2))
        return (tiled.reshape_like(self.x) if missing else tiled,)


class FlipCall(StructureCall):
    """flip."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.emit.call(aten.flip.default, multiplier, self.argument("dims")),)


class RollCall(StructureCall):
    """roll."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        shifts = [-shift for shift in self.argument("shifts")]
        return (self.emit.call(aten.roll.default, multiplier, shifts, self.argument("dims")),)


class IndexSelectCall(StructureCall):
    """index_select: the elements of one axis that an index tensor names."""

    @property
    def dim(self) -> int:
        """The axis, counted from the front."""
        return self.argument("dim") % self.x.ndim

    @property
    def index(self) -> Any:
        """The positions along it, none of them negative."""
        return self.argument("index")

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim, index = self.dim, self.index
        return (self.emit.call(aten.index_add.default, self.x.zeros(), dim, index, multiplier),)


class IndexCall(IndexSelectCall):
    """Indexing of one axis by a list of positions, x[:, index]."""

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        """Indexing of several axes at once, or by a mask or a table, is not defined here."""
        values = [index.meta["val"] for index in argument(node, "indices") if index is not None]
        simple = len(values) == 1 and values[0].dim() == 1 and values[0].dtype == torch.int64
        return cls(node, emit, (argument(node, 0),)) if simple else None

    @property
    def dim(self) -> int:
        return next(dim for dim, index in enumerate(self.argument("indices")) if index is not None)

    @property
    def index(self) -> Any:
        size = self.x.shape[self.dim]
        return self.emit.call(aten.remainder.Scalar, self.argument("indices")[self.dim], size)


class GatherCall(StructureCall):
    """gather along an axis by an index tensor."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim, index = self.argument("dim"), self.argument("index")
        return (self.emit.call(aten.scatter_add.default, self.x.zeros(), dim, index, multiplier),)


class ExtremeCall(StructureCall):
    """amax over one or more axes: equal extremes share, as in torch's gradient."""

    kind = "pool"
    is_minimum: ClassVar[bool] = False

    def adjoint(self, multiplier: Value) -> Adjoints:
        dims = sorted(d % self.x.ndim for d in self.argument("dim") or range(self.x.ndim))
        output = self.output
        if not self.argument("keepdim"):
            for dim in dims:
                multiplier = self.emit.call(aten.unsqueeze.default, multiplier, dim)
                output = self.emit.call(aten.unsqueeze.default, output, dim)
        hits = self.x.ones().where(self.x.equals(output), 0.0)
        return (hits * (multiplier / hits.sum(dims, keepdim=True)),)


class AminCall(ExtremeCall):
    """amin over one or more axes."""

    is_minimum: ClassVar[bool] = True


class ConcatenateCall(Call):
    """cat: every operand gets its slice."""

    kind = "structure"
    moves_values = True

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        """All tensors in the list are operands, repeated ones too."""
        return cls(node, emit, tuple(argument(node, 0)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        dim, start, parts = self.argument("dim") % self.output.ndim, 0, list[Value]()
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
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """The active ones of a and b; a number is neither."""
        branches = (argument(node, 1), argument(node, 2))
        return cls(node, emit, tuple(a for a in branches if isinstance(a, Node) and active(a)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        condition = self.emit.value(self.argument("condition"))
        nothing = multiplier.zeros()
        parts = [multiplier.where(condition, nothing), nothing.where(condition, multiplier)]
        if len(self.operands) == 1:
            parts = parts[:1] if self.operands[0] is self.argument(1) else parts[1:]
        return tuple(part.sum_to(self.emit.value(a)) for part, a in zip(parts, self.operands, strict=True))


class MaskedFillCall(StructureCall):
    """masked_fill by a number: what was overwritten gets nothing."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (multiplier.zeros().where(self.emit.value(self.argument("mask")), multiplier),)


class MaximumCall(Call):
    """maximum(a, b): the winner takes all; on a tie both get half, as in torch's gradient."""

    kind = "pool"
    moves_values = True
    is_minimum: ClassVar[bool] = False

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        """Both operands, active or not."""
        return cls(node, emit, (argument(node, 0), argument(node, 1)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        a, b = self.operand(0), self.operand(1)
        shares = [(multiplier * 0.5).where(a.equals(b), multiplier.where(v.equals(self.output), 0.0)) for v in (a, b)]
        return shares[0].sum_to(a), shares[1].sum_to(b)


class MinimumCall(MaximumCall):
    """minimum(a, b)."""

    is_minimum: ClassVar[bool] = True


def _padded(value: Value, dim: int, before: int, after: int) -> Value:
    return value.pad([0, 0] * (value.ndim - dim - 1) + [before, after])
