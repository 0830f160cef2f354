"""Affine maps `z = W x + b`: convolutions (transposed too) and linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument
from passes.operators.call import Active, Adjoints, UnaryCall


class Geometry(NamedTuple):
    """How a convolution (or its transpose) reads its input; one number an axis, in the order of `aten.convolution`."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int

    @classmethod
    def of(cls, node: Node) -> Geometry:
        """That of an `aten.convolution`."""
        return cls(*(argument(node, name) for name in cls._fields))


@dataclass(frozen=True, eq=False)
class AffineCall(UnaryCall):
    """`z = W x + b` with the parts a rule needs: x (N, J...), W, b (K,) or None, z (N, K...)."""

    kind = "affine"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Only the operand x may depend on the input: relevance has no way to a computed weight or bias."""
        computed = [a for a in (argument(node, "weight"), argument(node, "bias")) if isinstance(a, Node) and active(a)]
        return None if computed else cls(node, emit, (argument(node, "input"),))

    @property
    def weight(self) -> Value:
        """W, in the operator's own layout."""
        return self.emit.value(self.argument("weight"))

    @property
    def bias(self) -> Value | None:
        """b, of shape (K,), or None."""
        node = self.argument("bias")
        return None if node is None else self.emit.value(node)

    def apply(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        """W x + b of this operator's geometry, with any input, weight and bias of the right shape."""
        raise NotImplementedError

    def transposed(self, s: Value, weight: Value) -> Value:
        """Wᵀ s: from the shape of z back to the shape of x."""
        raise NotImplementedError

    def per_output(self, b: Value) -> Value:
        """One number an output channel, (K,), as it broadcasts to z."""
        raise NotImplementedError

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.transposed(multiplier, self.weight),)


class LinearCall(AffineCall):
    """aten.linear: x (N, ..., J), W (K, J)."""

    def apply(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        return self.emit.call(aten.linear.default, x, weight, bias)

    def transposed(self, s: Value, weight: Value) -> Value:
        return self.emit.call(aten.matmul.default, s, weight)

    def per_output(self, b: Value) -> Value:
        return b


class ConvolutionCall(AffineCall):
    """aten.convolution over 1, 2 or 3 axes, with stride, padding, dilation and groups; or its transpose."""

    @property
    def geometry(self) -> Geometry:
        """Stride, padding, dilation, groups, and whether it is the transpose of a convolution."""
        return Geometry.of(self.node)

    def apply(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        return self._convolution(x, weight, bias, self.geometry)

    def transposed(self, s: Value, weight: Value) -> Value:
        geometry, target = self.geometry, self.x.shape[2:]
        if geometry.transposed:
            forward = geometry._replace(transposed=False, output_padding=[0] * len(target))
            return crop_to(self._convolution(s, weight, None, forward), target)
        reached = [
            (size - 1) * st - 2 * p + d * (k - 1) + 1
            for size, st, p, d, k in zip(
                s.shape[2:], geometry.stride, geometry.padding, geometry.dilation, weight.shape[2:], strict=True
            )
        ]
        if all(isinstance(size, int) for size in target):
            missing = [want - have for want, have in zip(target, reached, strict=True)]
            return self._convolution(s, weight, None, geometry._replace(transposed=True, output_padding=missing))
        most = geometry._replace(transposed=True, output_padding=[st - 1 for st in geometry.stride])
        return crop_to(self._convolution(s, weight, None, most), target)

    def per_output(self, b: Value) -> Value:
        return b.reshape([-1, *[1] * (self.x.ndim - 2)])

    def _convolution(self, x: Value, weight: Value, bias: Value | None, geometry: Geometry) -> Value:
        return self.emit.call(aten.convolution.default, x, weight, bias, *geometry)


def crop_to(value: Value, target: tuple[Any, ...]) -> Value:
    """The first `target` elements along the trailing axes."""
    for dim, size in zip(range(value.ndim - len(target), value.ndim), target, strict=True):
        value = value.slice(dim, 0, size)
    return value
