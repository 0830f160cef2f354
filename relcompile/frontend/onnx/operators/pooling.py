"""Pools, and resizing."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relcompile.frontend.onnx.node import Node, Numbers
from relcompile.frontend.onnx.operators.affine import Window

_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def max_pool(node: Node, x: Tensor) -> Tensor:
    """The largest value of every window."""
    window = Window(node, x, node.integers("kernel_shape") or [])
    x, padding = window.padded(x, -math.inf, [size // 2 for size in window.kernel])
    compute: Any = _MAX[len(window.kernel) - 1]
    return compute(x, window.kernel, window.strides, padding, window.dilations, bool(node.integer("ceil_mode", 0)))


def average_pool(node: Node, x: Tensor) -> Tensor:
    """The mean of every window; pads count, or do not."""
    window = Window(node, x, node.integers("kernel_shape") or [])
    counted = bool(node.integer("count_include_pad", 0))
    rank = len(window.kernel)
    if window.dilations != [1] * rank:
        node.refuse("its windows have holes (dilations)")
    compute: Any = _AVERAGE[rank - 1]
    padded, padding = window.padded(x, 0.0, [size // 2 for size in window.kernel])
    ceil = bool(node.integer("ceil_mode", 0))
    pooled = compute(padded, window.kernel, window.strides, padding, ceil, counted)
    if counted or padded is x:
        return pooled
    inside = F.pad(x.new_ones((1, 1, *x.shape[2:])), window.flat)
    return pooled / compute(inside, window.kernel, window.strides, padding, ceil, counted)


def global_average(_node: Node, x: Tensor) -> Tensor:
    """The mean over all axes behind the channels."""
    return x.mean(list(range(2, x.dim())), keepdim=True)


def global_max(_node: Node, x: Tensor) -> Tensor:
    """The maximum over all axes behind the channels."""
    return x.amax(list(range(2, x.dim())), keepdim=True)


def resize(node: Node, x: Tensor, *operands: Numbers | None) -> Tensor:
    """More or fewer samples along the axes behind the channels, between which it interpolates."""
    scales, sizes = _asked(node, operands)
    target = [size if scales is None else math.floor(size * scale) for size, scale in
              zip(x.shape[2:] if scales is not None else sizes[2:], scales[2:] if scales is not None else sizes[2:], strict=True)]  # fmt: skip
    if target == list(x.shape[2:]):
        return x
    mode, corners = interpolation(node)
    names: dict[str, tuple[str, ...]] = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}
    chosen = names.get(mode, (mode,) * 3)[len(target) - 1]
    if not chosen:
        node.refuse("cubic interpolation is that of images")
    return F.interpolate(x, target, mode=chosen, align_corners=corners if mode != "nearest" else None)


def _asked(node: Node, operands: tuple[Numbers | None, ...]) -> tuple[Any, Any]:
    """Scales, or sizes."""
    given = [operand if operand is not None and operand.size else None for operand in (*operands, *(None,) * 3)]
    sizes = given[2] if node.opset > 10 else None
    scales = given[1] if node.opset > 10 else given[0]
    if scales is None and sizes is None:
        scales = node.attributes.get("scales")
    if scales is None and sizes is None:
        node.refuse("it says neither scales nor sizes")
    if node.integers("axes") is not None:
        node.refuse("it names the axes that it resizes")
    if scales is not None and tuple(scales[:2]) != (1.0, 1.0):
        node.refuse("it resizes batch or channels")
    return scales, sizes


def interpolation(node: Node) -> tuple[str, bool]:
    """The mode, and whether corners are aligned, as torch has them."""
    mode = node.text("mode", "nearest")
    default = "half_pixel" if node.opset > 10 else "asymmetric"
    place = node.text("coordinate_transformation_mode", default)
    rounding = node.text("nearest_mode", "round_prefer_floor" if node.opset > 10 else "floor")
    if mode == "nearest" and place == "asymmetric" and rounding == "floor":
        return "nearest", False
    if mode == "nearest" and place == "half_pixel" and rounding == "round_prefer_floor":
        return "nearest-exact", False
    smooth = mode in ("linear", "cubic") and node.number("cubic_coeff_a", -0.75) == -0.75
    if smooth and not node.integer("antialias", 0) and not node.integer("exclude_outside", 0):
        if place in ("half_pixel", "pytorch_half_pixel"):
            return mode, False
        if place == "align_corners":
            return mode, True
    return node.refuse(f"torch has no {mode} interpolation of {place} places" + f" ({rounding})" * (mode == "nearest"))
