"""Where values stand: shapes, axes, slices, and what is taken from where."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node, Numbers
from relcompile.frontend.onnx.operators.pointwise import DTYPES

LARGEST_MADE = 2**28  # elements of a constant that a file describes in few bytes
BEYOND = 10**9  # exporters' numbers for "to the end" begin here; a free size would be bounded by them


def reshape(node: Node, x: Tensor, shape: Numbers | None = None) -> Tensor:
    """0 keeps a size, -1 is what is left. A batch that the file fixes is free, where its operand has it in front."""
    target = list(shape) if shape is not None else node.integers("shape") or []
    if not node.integer("allowzero", 0):
        target = [x.shape[k] if _is(size, 0) else size for k, size in enumerate(target)]
    if target and node.batch is not None and _is(target[0], node.batch):
        target[0] = x.shape[0] if any(_is(size, -1) for size in target) else -1
    return x.reshape([_plain(size) for size in target])


def flatten(node: Node, x: Tensor) -> Tensor:
    """Two axes."""
    axis = node.integer("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.flatten(1) if axis == 1 < x.dim() else x.reshape(math.prod(x.shape[:axis]), -1)


def transpose(node: Node, x: Tensor) -> Tensor:
    """Axes in another order; reversed, if none is given."""
    return x.permute(node.integers("perm") or list(range(x.dim()))[::-1])


def squeeze(node: Node, x: Tensor, axes: Numbers | None = None) -> Tensor:
    """Without axes of one element."""
    chosen = node.chosen("axes", axes)
    return x.squeeze() if chosen is None else x.squeeze([int(axis) for axis in chosen])


def unsqueeze(node: Node, x: Tensor, axes: Numbers | None = None) -> Tensor:
    """With further axes of one element."""
    chosen = node.chosen("axes", axes) or []
    for axis in sorted(int(axis) % (x.dim() + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def concatenate(node: Node, *parts: Tensor) -> Tensor:
    """One behind the other along an axis."""
    return torch.cat(parts, node.integer("axis", 1))


def split(node: Node, x: Tensor, sizes: Numbers | None = None) -> tuple[Tensor, ...]:
    """Parts of given sizes, or as many equal ones as there are results."""
    axis, chosen = node.integer("axis", 0), node.chosen("split", sizes)
    if chosen is None:
        chosen = [-(-x.shape[axis] // len(node.outputs))] * len(node.outputs)
        chosen[-1] = x.shape[axis] - sum(chosen[:-1])
    return torch.split(x, [_plain(size) for size in chosen], axis)


def slice_(node: Node, x: Tensor, *operands: Numbers | None) -> Tensor:
    """Ranges of some axes, perhaps backwards."""
    names = ("starts", "ends", "axes", "steps")
    given = dict(zip(names, (*operands, *(None,) * 4), strict=False))
    starts, ends, axes, steps = (node.chosen(name, given[name]) for name in names)
    axes = list(range(len(starts or ()))) if axes is None else axes
    for axis, start, end, step in zip(axes, starts or (), ends or (), steps or [1] * len(axes), strict=True):
        x = _range(x, int(axis), _plain(start), _plain(end), int(step))
    return x


def _range(x: Tensor, axis: int, start: Any, end: Any, step: int) -> Tensor:
    if step > 0:
        everything: list[Any] = [slice(None)] * x.dim()
        everything[axis] = slice(start or None, None if isinstance(end, int) and end >= BEYOND else end, step)
        return x[tuple(everything)]
    places = list(range(x.shape[axis])[start:end:step])
    if places == list(range(x.shape[axis]))[::-1]:
        return x.flip(axis)
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64))


def gather(node: Node, x: Tensor, indices: Tensor | Numbers) -> Tensor:
    """What stands at some places of an axis; of a table of constants, its rows."""
    axis = node.integer("axis", 0) % x.dim()
    if isinstance(indices, Tensor):
        if axis == 0 and x.dim() == 2:
            return functional.embedding(indices.to(torch.int64), x)
        return x.index_select(axis, indices.flatten().to(torch.int64)).unflatten(axis, indices.shape)
    places = [int(place) % x.shape[axis] for place in indices.flat]
    if indices.ndim == 0:
        return x.select(axis, places[0])
    taken = x.index_select(axis, torch.tensor(places, dtype=torch.int64))
    return taken if indices.ndim == 1 else taken.unflatten(axis, indices.shape)


def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """One element for each index."""
    axis = node.integer("axis", 0)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def gather_nd(_node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """What stands at the places that the last axis of the indices names."""
    return x[tuple(indices.to(torch.int64).unbind(-1))]


def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Elements put, or added, where the indices say."""
    axis, how = node.integer("axis", 0), node.text("reduction", "none")
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    if how == "none":
        return torch.scatter(x, axis, indices, updates)
    return torch.scatter_add(x, axis, indices, updates) if how == "add" else node.refuse(f"its reduction is {how}")


def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Parts put, or added, at the places that the last axis of the indices names."""
    how = node.text("reduction", "none")
    if how not in ("none", "add"):
        node.refuse(f"its reduction is {how}")
    return torch.index_put(x, indices.to(torch.int64).unbind(-1), updates, accumulate=how == "add")


def last_axis(_node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """What stands at some places of the last axis."""
    return x.index_select(-1, indices.flatten().to(torch.int64))


def expand(node: Node, x: Tensor, shape: Numbers) -> Tensor:
    """Repeated along axes of one element; a size of 1 keeps what is there."""
    further = len(shape) - x.dim()
    own = [*[1] * further, *x.shape] if further > 0 else list(x.shape)
    wanted = [*[1] * -further, *shape] if further < 0 else list(shape)
    target = [mine if _is(size, 1) else _plain(size) for mine, size in zip(own, wanted, strict=True)]
    return x.expand(_bounded(node, target))


def tile(_node: Node, x: Tensor, repeats: Numbers) -> Tensor:
    """The whole, repeated along every axis."""
    return x.repeat([_plain(size) for size in repeats])


def pad(
    node: Node, x: Tensor, pads: Numbers | None = None, value: Numbers | None = None, axes: Numbers | None = None
) -> Tensor:
    """More at both ends of axes: a number, or what a mirror or the border shows; less, where it is negative."""
    amounts = [int(amount) for amount in node.chosen("pads", pads) or []]
    chosen = [int(axis) % x.dim() for axis in axes] if axes is not None else list(range(len(amounts) // 2))
    ends = dict(zip(chosen, zip(amounts[: len(chosen)], amounts[len(chosen) :], strict=True), strict=True))
    first = min((axis for axis, both in ends.items() if both != (0, 0)), default=x.dim())
    flat = [amount for axis in reversed(range(first, x.dim())) for amount in ends.get(axis, (0, 0))]
    if not flat:
        return x
    fill = node.number("value", 0.0) if value is None or not value.size else float(value.item())
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = modes.get(node.text("mode", "constant")) or node.refuse(f"it pads in the mode {node.text('mode', '')}")
    if mode == "constant":
        return functional.pad(x, flat, value=fill)
    missing = max(3 - x.dim(), 0)  # torch pads axes behind batch and channels
    padded = functional.pad(x[(None,) * missing], flat, mode=mode)
    return padded[(0,) * missing]


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Channels become blocks of places."""
    size, (n, c, h, w) = node.integer("blocksize", 1), x.shape
    if node.text("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, size)
    blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // size**2, h * size, w * size)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Blocks of places become channels."""
    size, (n, c, h, w) = node.integer("blocksize", 1), x.shape
    if node.text("mode", "DCR") == "CRD":
        return functional.pixel_unshuffle(x, size)
    blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * size**2, h // size, w // size)


def constant_of_shape(node: Node, shape: Numbers) -> Tensor:
    """One number everywhere: 0, or that of the attribute."""
    value = node.attributes.get("value")
    filling = torch.zeros(()) if value is None else torch.from_numpy(value).reshape(())
    return filling.expand(_bounded(node, [_plain(size) for size in shape])).clone()


def range_(node: Node, start: Numbers, limit: Numbers, delta: Numbers) -> Tensor:
    """Numbers from the first to before the limit."""
    first, end, step = (_plain(value.item()) for value in (start, limit, delta))
    _bounded(node, [abs(end - first) // abs(step)])
    return torch.arange(first, end, step)


def one_hot(node: Node, indices: Tensor, depth: Numbers, values: Tensor) -> Tensor:
    """A vector with one other value at each index."""
    axis, classes = node.integer("axis", -1), int(depth.item())
    _bounded(node, [classes])
    places = indices.to(torch.int64).unsqueeze(-1)
    at = torch.where(places < 0, places + classes, places) == torch.arange(classes)
    return torch.where(at, values[1], values[0]).movedim(-1, axis)


def eye_like(node: Node, x: Tensor) -> Tensor:
    """Ones on a diagonal."""
    dtype = DTYPES.get(node.integer("dtype", 0), x.dtype)
    rows, columns = (torch.arange(size) for size in x.shape)
    return (columns[None] - rows[:, None] == node.integer("k", 0)).to(dtype)


def triangle(node: Node, x: Tensor, diagonal: Numbers | None = None) -> Tensor:
    """The upper or the lower triangle of a matrix."""
    k = 0 if diagonal is None else int(diagonal.item())
    return torch.triu(x, k) if node.integer("upper", 1) else torch.tril(x, k)


def constant(node: Node) -> Tensor:
    """What the attribute holds."""
    names = ("value", "value_float", "value_floats", "value_int", "value_ints")
    given = [node.attributes[name] for name in names if name in node.attributes]
    if len(given) != 1:
        node.refuse("it holds no numbers")
    return torch.as_tensor(given[0]) if not isinstance(given[0], float) else torch.tensor(given[0])


def _bounded(node: Node, shape: list[Any]) -> list[Any]:
    """`shape`, if so much can be made from so little.

    Raises:
        ModelFileError: it cannot.
    """
    known = math.prod(size for size in shape if isinstance(size, int) and size > 0)
    return shape if known <= LARGEST_MADE else node.refuse(f"it makes {known:,} numbers of few")


def _is(size: Any, number: int) -> bool:
    """A symbolic size is never a certain number."""
    return not isinstance(size, torch.SymInt) and int(size) == number


def _plain(size: Any) -> Any:
    """Numbers of numpy as those of Python; symbols as they are."""
    return size if isinstance(size, torch.SymInt) else size.item() if hasattr(size, "item") else size
