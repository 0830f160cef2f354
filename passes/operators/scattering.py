"""Operators that write values into places of another value, which an index names: assigned there, or added up."""

from __future__ import annotations

from typing import Self

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument
from passes.operators.call import Active, Adjoints, Call


class WritingCall(Call):
    """`y` is x but for what is written into it: x is the first argument, what is written the last one."""

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """The active ones of x and what is written; not along the batch, where samples would see each other."""
        x, index, written = emit.value(argument(node, 0)), emit.value(argument(node, "index")), argument(node, 3)
        if emit.is_of_batch(x.shape[argument(node, "dim") % x.ndim]):
            return None
        if index.ndim == x.ndim and isinstance(written, Node) and str(index.shape) != str(emit.value(written).shape):
            return None
        return cls(node, emit, tuple(a for a in (x.node, written) if isinstance(a, Node) and active(a)))

    def adjoint(self, multiplier: Value) -> Adjoints:
        parts = (self.argument(0), self.of_kept), (self.argument(3), self.of_written)
        return tuple(write(multiplier) for operand, write in parts if operand in self.operands)

    def of_kept(self, multiplier: Value) -> Value:
        """What the elements of x get."""
        return multiplier

    def of_written(self, multiplier: Value) -> Value:
        """What the values that are written get."""
        return self.emit.call(aten.gather.default, multiplier, self.argument("dim"), self.argument("index"))


class ScatterCall(WritingCall):
    """scatter: the places that an index names hold values, or a number."""

    kind = "structure"
    moves_values = True

    def of_kept(self, multiplier: Value) -> Value:
        return self.emit.call(aten.scatter.value, multiplier, self.argument("dim"), self.argument("index"), 0.0)


class ScatterAddCall(WritingCall):
    """scatter_add: `y_i = x_i + Σ_{k: index_k = i} v_k` along one axis."""

    kind = "pool"


class ScatterExtremeCall(WritingCall):
    """scatter_reduce by maximum or minimum: equal extremes share, as in torch's gradient."""

    kind = "pool"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Products are not defined here."""
        return super().view(node, emit, active) if argument(node, "reduce") in ("amax", "amin") else None

    @property
    def is_minimum(self) -> bool:
        """What is written is kept where it is smaller."""
        return self.argument("reduce") == "amin"

    def of_kept(self, multiplier: Value) -> Value:
        kept = self._kept * (multiplier / self._count)
        if self.argument("include_self"):
            return kept
        return self.emit.call(aten.scatter.value, kept, self.argument("dim"), self.argument("index"), 0.0)

    def of_written(self, multiplier: Value) -> Value:
        return self._written * super().of_written(multiplier / self._count)

    @property
    def _kept(self) -> Value:
        """1 where x is the extreme."""
        return self.output.ones().where(self.emit.value(self.argument(0)).equals(self.output), 0.0)

    @property
    def _written(self) -> Value:
        """1 where what is written is the extreme of its place."""
        written = self.emit.value(self.argument(3))
        return written.ones().where(written.equals(super().of_written(self.output)), 0.0)

    @property
    def _count(self) -> Value:
        """How many share the extreme of a place."""
        place = self.argument("dim"), self.argument("index")
        return self.emit.call(aten.scatter_add.default, self._kept, *place, self._written)


class IndexAddCall(ScatterAddCall):
    """index_add: as `scatter_add`, with one index for all rows."""

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """A factor other than 1 is a product of its own."""
        return super().view(node, emit, active) if argument(node, "alpha") == 1 else None

    def of_written(self, multiplier: Value) -> Value:
        return self.emit.call(aten.index_select.default, multiplier, self.argument("dim"), self.argument("index"))
