"""Arithmetic on sizes: what files compute of the shapes of their values, in numpy, the free batch being a symbol.

Files reshape to shapes that they compute: `Shape`, `Gather`, `Concat`, ... Such numbers are no values of the network.
They are arrays of integers, and of torch's symbols for sizes that are free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

import numpy as np
import torch

from relcompile.frontend.onnx.node import Node, Numbers
from relcompile.frontend.onnx.operators.structure import constant_of_shape, range_

_INTEGERS: Final = (6, 7)  # int32 and int64 of ONNX
_MOST_AXES: Final = 64  # of a value, both ends counted


def _shape(node: Node, x: torch.Tensor | Numbers) -> Numbers:
    return _exact([*x.shape[slice(node.integer("start", 0), node.integer("end", x.ndim))]])


def _size(_node: Node, x: torch.Tensor | Numbers) -> Numbers:
    return _exact(x.numel() if isinstance(x, torch.Tensor) else x.size)


def _exact(values: Any) -> Numbers:
    """As an array that keeps symbols as they are."""
    return np.array(values, dtype=object)


def _gather(node: Node, x: Numbers, indices: Numbers) -> Numbers:
    return _exact(np.take(x, indices.astype(np.int64), axis=node.integer("axis", 0)))


def _slice(node: Node, x: Numbers, *operands: Numbers | None) -> Numbers:
    names = ("starts", "ends", "axes", "steps")
    given = dict(zip(names, (*operands, *(None,) * 4), strict=False))
    starts, ends, axes, steps = (node.chosen(name, given[name]) for name in names)
    slices = [slice(None)] * x.ndim
    axes = list(range(len(starts or ()))) if axes is None else axes
    for axis, start, end, step in zip(axes, starts or (), ends or (), steps or [1] * len(axes), strict=True):
        slices[axis] = slice(int(start), int(end), int(step))
    return x[tuple(slices)]


def _squeeze(node: Node, x: Numbers, axes: Numbers | None = None) -> Numbers:
    chosen = node.chosen("axes", axes)
    return np.squeeze(x, None if chosen is None else tuple(chosen))


def _unsqueeze(node: Node, x: Numbers, axes: Numbers | None = None) -> Numbers:
    return np.expand_dims(x, tuple(node.chosen("axes", axes) or ()))


def _cast(node: Node, x: Numbers) -> Numbers:
    """Sizes stay exact: a symbol is an integer of no type, and a number becomes what it is cast to."""
    if node.integer("to", 0) not in _INTEGERS:
        return x
    return _exact([_truncated(value) for value in x.flat]).reshape(x.shape)


def _truncated(value: Any) -> Any:
    return value if isinstance(value, torch.SymInt) else int(value)


def _divide(_node: Node, x: Numbers, y: Numbers) -> Numbers:
    """Integers divide to integers; both are sizes, and not negative."""
    integers = all(not isinstance(value, float | np.floating) for value in (*x.flat, *y.flat))
    return _exact(x // y if integers else x / y)


def _concatenate(node: Node, *parts: Numbers) -> Numbers:
    return np.concatenate(parts, axis=node.integer("axis", 0))


def _product(_node: Node, x: Numbers, _axes: Numbers | None = None) -> Numbers:
    return _exact([np.prod(x)])


def _filled(node: Node, shape: Numbers) -> Any:
    """A few numbers, which may be sizes; what is larger, or has free axes, is a value of the network."""
    if shape.size == 1 and isinstance(shape.item(), int | np.integer) and shape.item() <= _MOST_AXES:
        value = node.attributes.get("value")
        return np.full(int(shape.item()), 0 if value is None else value.item(), dtype=object)
    return constant_of_shape(node, shape)


def _range(node: Node, start: Numbers, limit: Numbers, delta: Numbers) -> Any:
    """A few integers, such as axes; what is longer, or fractional, is a value of the network."""
    given = [value.item() for value in (start, limit, delta)]
    if all(isinstance(value, int) for value in given) and abs(given[1] - given[0]) <= _MOST_AXES:
        return np.arange(*given).astype(object)
    return range_(node, start, limit, delta)


def _chosen(_node: Node, condition: Numbers, x: Numbers, y: Numbers) -> Numbers:
    return np.where(condition.astype(bool), x, y)


def _reshape(_node: Node, x: Numbers, shape: Numbers) -> Numbers:
    return x.reshape([int(size) for size in shape])


def _transpose(node: Node, x: Numbers) -> Numbers:
    return x.transpose(node.integers("perm"))


def _same(_node: Node, x: Numbers) -> Numbers:
    return x


def _elementwise(function: Callable[..., Any]) -> Callable[..., Numbers]:
    def compute(_node: Node, *operands: Numbers) -> Numbers:
        return _exact(reduce(function, operands) if len(operands) > 1 else function(*operands))

    return compute


MOVING: Final = ("Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Where")
SHAPES: Final[Mapping[str, Callable[..., Numbers]]] = {"Shape": _shape, "Size": _size}
SIZES: Final[Mapping[str, Callable[..., Numbers]]] = {
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.frompyfunc(np.ceil, 1, 1)),
    "ConstantOfShape": _filled,
    "Concat": _concatenate,
    "Div": _divide,
    "Equal": _elementwise(np.equal),
    "Floor": _elementwise(np.frompyfunc(np.floor, 1, 1)),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "Identity": _same,
    "Less": _elementwise(np.less),
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Mod": _elementwise(np.mod),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _chosen,
}
