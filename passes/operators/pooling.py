"""Pools and resampling: winner takes all, averages, interpolation."""

from __future__ import annotations

from operator import getitem
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument, run_node
from passes.operators.call import Active, Adjoints, UnaryCall


class MaxWindow(NamedTuple):
    """The windows of a max pool; one number an axis, in the order of the operator."""

    kernel_size: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    ceil_mode: bool

    @classmethod
    def of(cls, node: Node) -> MaxWindow:
        """Those of a max pool, or of its backward operator."""
        window = cls(*(argument(node, name) for name in cls._fields))
        return window._replace(stride=window.stride or window.kernel_size)


class AverageWindow(NamedTuple):
    """The windows of an average pool; one number an axis, in the order of the operator."""

    kernel_size: list[int]
    stride: list[int]
    padding: list[int]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None

    @classmethod
    def of(cls, node: Node) -> AverageWindow:
        """Those of an average pool, or of its backward operator."""
        window = cls(*(argument(node, name) for name in cls._fields))
        return window._replace(stride=window.stride or window.kernel_size)


def has_known_sides(node: Node) -> bool:
    """No spatial axis of the operand is free."""
    return all(isinstance(size, int) for size in argument(node, 0).meta["val"].shape[2:])


class MaxPoolCall(UnaryCall):
    """aten.max_pool2d / 3d. All relevance of a window goes to its first maximum, as in torch's gradient."""

    kind = "pool"
    moves_values = True
    is_minimum: ClassVar[bool] = False

    def adjoint(self, multiplier: Value) -> Adjoints:
        window = MaxWindow.of(self.node)
        two = len(window.kernel_size) == 2
        with_indices = aten.max_pool2d_with_indices if two else aten.max_pool3d_with_indices
        backward = aten.max_pool2d_with_indices_backward if two else aten.max_pool3d_with_indices_backward
        indices = self.emit.call(getitem, self.emit.call(with_indices.default, self.x, *window), 1)
        return (self.emit.call(backward.default, multiplier, self.x, *window, indices),)


class AveragePoolCall(UnaryCall):
    """aten.avg_pool2d / 3d, with ceil_mode, count_include_pad and divisor_override."""

    kind = "pool"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Over a free axis the last windows are whole."""
        free = not has_known_sides(node) and AverageWindow.of(node).ceil_mode
        return None if free else super().view(node, emit, active)

    def adjoint(self, multiplier: Value) -> Adjoints:
        window = AverageWindow.of(self.node)
        backward = aten.avg_pool2d_backward if len(window.kernel_size) == 2 else aten.avg_pool3d_backward
        return (self.emit.call(backward.default, multiplier, self.x, *window),)


class ResampleCall(UnaryCall):
    """Linear along every spatial axis on its own: interpolation, padding by the input's own values.

    The map along an axis is a small matrix, found by running the operator on unit vectors.
    """

    kind = "pool"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Such a matrix is of one size."""
        return super().view(node, emit, active) if has_known_sides(node) else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        for axis in range(2, self.x.ndim):
            matrix = self._matrix(axis)
            if matrix is not None:
                name = f"{self.node.name}_axis{axis}"
                weight = self.emit.constant(name, matrix.T.contiguous())
                order = [d for d in range(multiplier.ndim) if d != axis] + [axis]
                back = [order.index(d) for d in range(multiplier.ndim)]
                moved = self.emit.call(aten.linear.default, multiplier.permute(order), weight)
                multiplier = moved.permute(back)
        return (multiplier,)

    def _matrix(self, axis: int) -> torch.Tensor | None:
        """The map along `axis`, of shape (output size, input size); None for the identity."""
        size, spatial = self.x.shape[axis], self.x.ndim - 2
        shape = [1, size] + [self.x.shape[d] if d != axis else size for d in range(2, self.x.ndim)]
        unit = torch.eye(size, dtype=torch.float64).reshape(
            [1, size] + [size if d == axis - 2 else 1 for d in range(spatial)]
        )
        with torch.no_grad():
            image: Any = run_node(self.node, (unit.expand(shape), *self.node.args[1:]), self.node.kwargs)
        # The other axes are constant, and the operators here keep constants: any index of them will do.
        index = [0, slice(None)] + [slice(None) if d == axis else 0 for d in range(2, self.x.ndim)]
        matrix: torch.Tensor = image[tuple(index)].T
        if matrix.shape == (size, size) and torch.equal(matrix, torch.eye(size, dtype=matrix.dtype)):
            return None
        return matrix.to(self.x.fake.dtype)


class AdaptiveAverageCall(ResampleCall):
    """Adaptive average pools whose windows do not divide the input; the others were made plain ones before."""
