"""Quantised values: integers of a scale and a zero point, here as floating point numbers that are whole.

What rounds has the derivative 0 almost everywhere. Rounding is therefore a constant that is added: the prediction is
that of the file to the last step of the quantisation, and the derivative is that of the network that was quantised.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from relcompile.frontend.onnx.node import Node
from relcompile.frontend.onnx.operators import affine

_RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int32: (-(2.0**31), 2.0**31 - 1)}


def quantise(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """round(x / scale) + zero point, clipped to the range of the integers."""
    low, high = _RANGES.get(torch.uint8 if zero is None else zero.dtype) or node.refuse("integers of such a size")
    scale = _along(node, x, scale)
    offset = 0.0 if zero is None else _along(node, x, zero).to(x.dtype)
    exact = torch.clamp(x / scale + offset, low, high)
    return exact + (torch.round(exact) - exact).detach()


def dequantise(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero point) * scale."""
    offset = 0.0 if zero is None else _along(node, x, zero).to(scale.dtype)
    return (x.to(scale.dtype) - offset) * _along(node, x, scale)


def quantised_convolution(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor, w_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A convolution between two quantised values; scales of weights may be one a channel."""
    channels = (-1, *(1,) * (w.dim() - 1))
    x = (x.to(x_scale.dtype) - x_zero.to(x_scale.dtype)) * x_scale
    weight = (w.to(w_scale.dtype) - w_zero.to(w_scale.dtype).reshape(channels)) * w_scale.reshape(channels)
    scaled = None if bias is None else bias.to(w_scale.dtype) * (x_scale * w_scale)
    return quantise(node, affine.convolution(node, x, weight, scaled), y_scale, y_zero)


def quantised_matmul(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor,
) -> Tensor:  # fmt: skip
    """A matrix product between two quantised values."""
    x = (a.to(a_scale.dtype) - a_zero.to(a_scale.dtype)) * a_scale
    weight = (b.to(b_scale.dtype) - b_zero.to(b_scale.dtype)) * b_scale
    return quantise(node, torch.matmul(x, weight), y_scale, y_zero)


def _along(node: Node, x: Tensor, given: Tensor) -> Tensor:
    """One number, or one for each place of an axis, as it broadcasts."""
    if given.dim() == 0 or given.numel() == 1:
        return given.reshape(())
    if given.dim() > 1:
        node.refuse("it is quantised in blocks")
    shape = np.ones(x.dim(), int)
    shape[node.integer("axis", 1)] = -1
    return given.reshape([int(size) for size in shape])
