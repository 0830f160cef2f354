"""Softmax and log-softmax, at the explained output or inside a network (attention)."""

from __future__ import annotations

from passes.graphs.emitter import Value, aten
from passes.operators.call import Adjoints, UnaryCall


class SoftmaxCall(UnaryCall):
    """`y = softmax(z)` or its logarithm, over one axis."""

    kind = "softmax"

    def adjoint(self, multiplier: Value) -> Adjoints:
        y, axis = self.output, [self.argument(1) % self.output.ndim]
        if self.node.target is aten.softmax.int:
            return (y * (multiplier - (y * multiplier).sum(axis, keepdim=True)),)
        probability = self.emit.call(aten.exp.default, y)
        return (multiplier - probability * multiplier.sum(axis, keepdim=True),)
