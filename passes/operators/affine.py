"""Affine maps `z = W x + b`: convolutions (transposed too) and linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import arguments
from passes.operators.call import Adjoints, Call, UnaryCall


@dataclass(frozen=True, eq=False)
class AffineCall(UnaryCall):
    """`z = W x + b` with the parts a rule needs: x (N, J...), W, b (K,) or None, z (N, K...)."""

    kind = "affine"

    @classmethod
    def build_affine(cls, node: Node, emit: Emitter, active: Callable[[Node], bool]) -> Call | None:
        """Only the operand x may depend on the input: relevance has no way to a computed weight or bias."""
        computed = [a for a in arguments(node)[1:3] if isinstance(a, Node) and active(a)]
        return None if computed else cls.build(node, emit, active)

    @property
    def weight(self) -> Value:
        """W, in the operator's own layout."""
        return self.emit.value(self.argument(1))

    @property
    def bias(self) -> Value | None:
        """b, of shape (K,), or None."""
        node = self.argument(2)
        return None if node is None else self.emit.value(node)

    def apply(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        """W x + b of this operator's geometry, with any input, weight and bias of the right shape."""
        raise NotImplementedError

    def transposed(self, s: Value, weight: Value) -> Value:
        """Wᵀ s: from the shape of z back to the shape of x."""
        raise NotImplementedError

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.transposed(multiplier, self.weight),)


class LinearCall(AffineCall):
    """aten.linear: x (N, ..., J), W (K, J)."""

    def apply(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        return self.emit.call(aten.linear.default, x, weight, bias)

    def transposed(self, s: Value, weight: Value) -> Value:
        return self.emit.call(aten.matmul.default, s, weight)


class ConvolutionCall(AffineCall):
    """aten.convolution over 1, 2 or 3 axes, with stride, padding, dilation and groups; or its transpose."""

    def apply(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        return self.emit.call(aten.convolution.default, x, weight, bias, *self._geometry)

    def transposed(self, s: Value, weight: Value) -> Value:
        stride, padding, dilation, is_transposed, _, groups = self._geometry
        target = self.x.shape[2:]
        if is_transposed:
            zeros = [0] * len(target)
            back = self.emit.call(
                aten.convolution.default, s, weight, None, stride, padding, dilation, False, zeros, groups
            )
            return crop_to(back, target)
        kernel = weight.shape[2:]
        reached = [
            (size - 1) * st - 2 * p + d * (k - 1) + 1
            for size, st, p, d, k in zip(s.shape[2:], stride, padding, dilation, kernel, strict=True)
        ]
        missing = [want - have for want, have in zip(target, reached, strict=True)]
        return self.emit.call(
            aten.convolution.default, s, weight, None, stride, padding, dilation, True, missing, groups
        )

    @property
    def _geometry(self) -> tuple[Any, ...]:
        return tuple(self.argument(position) for position in range(3, 9))


def crop_to(value: Value, target: tuple[Any, ...]) -> Value:
    """The first `target` elements along the trailing axes."""
    for dim, size in zip(range(value.ndim - len(target), value.ndim), target, strict=True):
        value = value.slice(dim, 0, size)
    return value
