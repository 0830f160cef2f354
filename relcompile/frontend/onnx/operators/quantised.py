"""Quantised values: integers of a scale and a zero point, here as floating point numbers that are whole.

What rounds has the derivative 0 almost everywhere. Rounding is therefore a constant that is added: the prediction is
that of the file to the last step of the quantisation, and the derivative is that of the network that was quantised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relcompile.frontend.onnx.node import Node
from relcompile.frontend.onnx.operators import affine

Between = Callable[..., Tensor]
_RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int32: (-(2.0**31), 2.0**31 - 1)}


def quantise(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """round(x / scale) + zero point, clipped to the range of the integers; halves are rounded to even numbers."""
    low, high = _RANGES.get(torch.uint8 if zero is None else zero.dtype) or node.refuse("integers of such a size")
    scale = _along(node, x, scale)
    offset = 0.0 if zero is None else _along(node, x, zero).to(x.dtype)
    exact = x / scale
    return torch.clamp(exact + (torch.round(exact) - exact).detach() + offset, low, high)


def dequantise(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero point) * scale."""
    offset = 0.0 if zero is None else _along(node, x, zero).to(scale.dtype)
    return (x.to(scale.dtype) - offset) * _along(node, x, scale)


def of_one(function: Callable[[Node, Tensor], Tensor]) -> Between:
    """A function of one value, between quantised ones."""

    def compute(
        node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
    ) -> Tensor:
        return quantise(node, function(node, _real(x, x_scale, x_zero)), y_scale, y_zero)

    return compute


def of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Between:
    """A function of two values, between quantised ones."""

    def compute(
        node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor | None, b: Tensor, b_scale: Tensor,
        b_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        return quantise(node, function(_real(a, a_scale, a_zero), _real(b, b_scale, b_zero)), y_scale, y_zero)

    return compute


def concatenate(node: Node, y_scale: Tensor, y_zero: Tensor, *parts: Any) -> Tensor:
    """Quantised values, each of a scale and a zero point of its own, one behind the other along an axis."""
    values = [_real(*parts[k : k + 3]) for k in range(0, len(parts), 3)]
    return quantise(node, torch.cat(values, node.integer("axis", 1)), y_scale, y_zero)


def gemm(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor | None, b: Tensor, b_scale: Tensor, b_zero: Tensor | None,
    c: Tensor | None, y_scale: Tensor | None = None, y_zero: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Alpha A B + C, of which C has the scale of the product; quantised, if a scale is given."""
    columns = (1, -1) if b_scale.dim() and not node.integer("transB", 0) else (-1, 1)
    weight = (b.to(b_scale.dtype) - (0.0 if b_zero is None else b_zero.to(b_scale.dtype))) * b_scale.reshape(columns)
    bias = None if c is None else c.to(a_scale.dtype) * a_scale * b_scale * node.number("alpha", 1.0)
    y = affine.gemm(node, _real(a, a_scale, a_zero), weight, bias)
    return y if y_scale is None else quantise(node, y, y_scale, y_zero)


def channels_first(node: Node) -> str | None:
    """Why not, if channels stand last."""
    return "its channels stand last" if node.attributes.get("channels_last") else None


def quantised_convolution(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor, w_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A convolution between two quantised values; scales of weights may be one a channel."""
    channels = (-1, *(1,) * (w.dim() - 1))
    x = _real(x, x_scale, x_zero)
    weight = (w.to(w_scale.dtype) - w_zero.to(w_scale.dtype).reshape(channels)) * w_scale.reshape(channels)
    scaled = None if bias is None else bias.to(w_scale.dtype) * (x_scale * w_scale)
    return quantise(node, affine.convolution(node, x, weight, scaled), y_scale, y_zero)


def _real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """What the integers stand for, of one scale."""
    return (x.to(scale.dtype) - (0.0 if zero is None else zero.to(scale.dtype))) * scale


def _along(node: Node, x: Tensor, given: Tensor) -> Tensor:
    """One number, or one for each place of an axis, as it broadcasts."""
    if given.dim() == 0 or given.numel() == 1:
        return given.reshape(())
    if given.dim() > 1:
        node.refuse("it is quantised in blocks")
    shape = np.ones(x.dim(), int)
    shape[node.integer("axis", 1)] = -1
    return given.reshape([int(size) for size in shape])
