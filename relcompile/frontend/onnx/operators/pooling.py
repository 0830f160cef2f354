"""Pools, and resizing."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node, Numbers
from relcompile.frontend.onnx.operators.affine import Window

_MAX = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_MODES = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}  # of one, two, three axes
_ROUNDED = 1e-4  # scales are float32


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
    compute: Any = _AVERAGE[rank - 1]
    padded, padding = window.padded(x, 0.0, [size // 2 for size in window.kernel])
    ceil = bool(node.integer("ceil_mode", 0))
    pooled = compute(padded, window.kernel, window.strides, padding, ceil, counted)
    if counted or padded is x:
        return pooled
    inside = functional.pad(x.new_ones((1, 1, *x.shape[2:])), window.flat)
    return pooled / compute(inside, window.kernel, window.strides, padding, ceil, counted)


def global_average(_node: Node, x: Tensor) -> Tensor:
    """The mean over all axes behind the channels."""
    return x.mean(list(range(2, x.dim())), keepdim=True)


def global_max(_node: Node, x: Tensor) -> Tensor:
    """The maximum over all axes behind the channels."""
    return x.amax(list(range(2, x.dim())), keepdim=True)


def resize(node: Node, x: Tensor, *operands: Numbers | None) -> Tensor:
    """More or fewer samples along the axes behind the channels, between which it interpolates."""
    target = _target(node, x, operands)
    if target == list(x.shape[2:]):
        return x
    mode, corners = interpolation(node)
    if mode == "nearest-exact":
        if any(size % old for size, old in zip(target, x.shape[2:], strict=True)):
            node.refuse("torch rounds half places otherwise")
        mode = "nearest"  # every place has as many copies
    if 1 in target and node.text("coordinate_transformation_mode", "") == "pytorch_half_pixel":
        node.refuse("one place is left, which torch takes from the middle")
    chosen = _MODES.get(mode, (mode,) * 3)[len(target) - 1]
    if not chosen:
        node.refuse("cubic interpolation is that of images")
    return functional.interpolate(x, target, mode=chosen, align_corners=corners if mode in _MODES else None)


def _target(node: Node, x: Tensor, operands: tuple[Numbers | None, ...]) -> list[int]:
    """The sizes behind batch and channels: given, or by their scales."""
    given = [None if operand is None or not operand.size else list(operand) for operand in (*operands, *(None,) * 3)]
    scales, sizes = (given[1], given[2]) if node.opset > 10 else (given[0], None)
    scales = node.attributes.get("scales") if scales is None else scales
    axes = [axis % x.dim() for axis in node.integers("axes") or range(x.dim())]
    scales, sizes = _of_all(scales, axes, [1.0] * x.dim()), _of_all(sizes, axes, list(x.shape))
    if sizes is not None:
        return [int(size) for size in sizes[2:]]
    if scales is None or list(scales[:2]) != [1.0, 1.0]:
        node.refuse("it resizes batch or channels, or says no scales")
    target = [size * float(scale) for size, scale in zip(x.shape[2:], scales[2:], strict=True)]
    if not all(abs(size - round(size)) < _ROUNDED for size in target):
        node.refuse(f"it makes sizes that are not whole: {target}")
    return [round(size) for size in target]


def _of_all(given: Any, axes: list[int], usual: list[Any]) -> list[Any] | None:
    """What is given for some axes, and what is usual for the others."""
    if given is None:
        return None
    named = dict(zip(axes, given, strict=True))
    return [named.get(axis, value) for axis, value in enumerate(usual)]


def interpolation(node: Node) -> tuple[str, bool]:
    """The mode, and whether corners are aligned, as torch has them."""
    mode = node.text("mode", "nearest")
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        node.refuse("it keeps the ratio of the axes")
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
