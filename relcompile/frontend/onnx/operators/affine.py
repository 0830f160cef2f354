"""Products with weights: convolutions, matrices, batch norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)


def convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Of one, two or three axes."""
    window = Window(node, x, weight.shape[2:])
    x, padding = window.padded(x)
    compute: Any = _CONVOLUTIONS[len(window.kernel) - 1]
    return compute(x, weight, bias, window.strides, padding, window.dilations, node.integer("group", 1))


def transposed_convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The adjoint of a convolution, cut to its size at both ends of every axis."""
    rank = x.dim() - 2
    strides, dilations = (node.integers(name) or [1] * rank for name in ("strides", "dilations"))
    further = node.integers("output_padding") or [0] * rank
    reach = [(size - 1) * d + 1 for size, d in zip(weight.shape[2:], dilations, strict=True)]
    whole = [(n - 1) * s + k + f for n, s, k, f in zip(x.shape[2:], strides, reach, further, strict=True)]
    before, after = _cut(node, x, strides, whole)
    further = [f + max(-a, 0) for f, a in zip(further, after, strict=True)]
    after = [max(a, 0) for a in after]
    even = [min(pair) for pair in zip(before, after, strict=True)]
    compute: Any = _TRANSPOSED[rank - 1]
    y = compute(x, weight, bias, strides, even, further, node.integer("group", 1), dilations)
    for axis, (b, a, both) in enumerate(zip(before, after, even, strict=True), 2):
        y = y if a == b else y.narrow(axis, b - both, y.shape[axis] - a - b + 2 * both)
    return y


def _cut(node: Node, x: Tensor, strides: Sequence[int], whole: Sequence[int]) -> tuple[list[int], list[int]]:
    """How much of the whole result is cut off before and behind: as pads say it, or so that a size is left.

    What is negative lacks behind.
    """
    rank, mode, wanted = len(whole), node.text("auto_pad", "NOTSET"), node.integers("output_shape")
    if wanted is None and not mode.startswith("SAME"):
        pads = node.integers("pads") or [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    left = wanted[-rank:] if wanted else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    totals = (size - kept for size, kept in zip(whole, left, strict=True))
    pairs = [_halves(total, larger_behind=mode == "SAME_UPPER") for total in totals]
    return [before for before, _ in pairs], [after for _, after in pairs]


def _halves(total: int, larger_behind: bool) -> tuple[int, int]:
    if total < 0:
        return 0, total
    half = total // 2
    return (half, total - half) if larger_behind else (total - half, half)


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Alpha A B + beta C, either matrix perhaps transposed."""
    a = a.t() if node.integer("transA", 0) else a
    weight = b if node.integer("transB", 0) else b.t()
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    weight = weight if alpha == 1.0 else weight * alpha
    if c is None:
        return functional.linear(a, weight)
    c = c if beta == 1.0 else c * beta
    row = c.reshape(-1) if all(size == 1 for size in c.shape[:-1]) else c
    return functional.linear(a, weight, row) if row.shape == weight.shape[:1] else functional.linear(a, weight) + c


def matmul(_node: Node, a: Tensor, b: Tensor) -> Tensor:
    """A matrix product, of stacks of matrices too."""
    return torch.matmul(a, b)


def batch_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Of inference."""
    return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, node.number("epsilon", 1e-5))


def einsum(node: Node, *operands: Tensor) -> Tensor:
    """A sum over products, as its equation says."""
    return torch.einsum(node.text("equation", ""), *operands)


class Window:
    """Kernel, strides, dilations and pads of a node that slides over the axes behind batch and channels.

    Attributes:
        before, after: zeros, or what else an operator pads with, at both ends of every axis.
    """

    def __init__(self, node: Node, x: Tensor, kernel: Sequence[int]) -> None:
        rank = x.dim() - 2
        self.kernel = list(kernel)
        self.strides = node.integers("strides") or [1] * rank
        self.dilations = node.integers("dilations") or [1] * rank
        pads = node.integers("pads") or [0] * (2 * rank)
        self.before, self.after = pads[:rank], pads[rank:]
        mode = node.text("auto_pad", "NOTSET")
        if mode.startswith("SAME"):
            totals = [self._same(axis, size) for axis, size in enumerate(x.shape[2:])]
            small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
            self.before, self.after = (small, large) if mode == "SAME_UPPER" else (large, small)

    @property
    def flat(self) -> list[int]:
        """The pads as torch takes them: the last axis first."""
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return [amount for pair in pairs for amount in pair]

    def padded(self, x: Tensor, value: float = 0.0, most: Sequence[int] | None = None) -> tuple[Tensor, list[int]]:
        """`x` and the pads that are left to the operator: all where they are even (and at most `most`), else none."""
        even = self.before == self.after
        if even and (most is None or all(a <= b for a, b in zip(self.before, most, strict=True))):
            return x, self.before
        return functional.pad(x, self.flat, value=value), [0] * len(self.kernel)

    def _same(self, axis: int, size: int) -> int:
        """How much is padded so that there are as many windows as strides."""
        stride, reach = self.strides[axis], (self.kernel[axis] - 1) * self.dilations[axis] + 1
        return max((-(-size // stride) - 1) * stride + reach - size, 0)
