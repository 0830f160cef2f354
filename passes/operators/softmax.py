"""Softmax and log-softmax: at the end of a classifier, or inside a network (attention)."""

from __future__ import annotations

from typing import Self

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument
from passes.operators.call import Active, Adjoints, UnaryCall


class SoftmaxCall(UnaryCall):
    """`y = softmax(z)` over one axis."""

    kind = "softmax"

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        """Not over the batch: the samples of an explainer do not see each other."""
        call = cls(node, emit, (argument(node, 0),))
        return None if emit.is_of_batch(call.x.shape[call.dim]) else call

    @property
    def dim(self) -> int:
        """The axis that sums to 1, counted from the front."""
        return self.argument("dim") % self.x.ndim

    def adjoint(self, multiplier: Value) -> Adjoints:
        y = self.output
        return (y * (multiplier - (y * multiplier).sum([self.dim], keepdim=True)),)


class LogSoftmaxCall(SoftmaxCall):
    """`y = log(softmax(z))` over one axis."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        probability = self.emit.call(aten.exp.default, self.output)
        return (multiplier - probability * multiplier.sum([self.dim], keepdim=True),)
