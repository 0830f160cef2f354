"""What the steps of a series do alike, and none waits for, is done for all of them at once.

Steps are short vectors: on ONNX Runtime's CPU provider a call takes as long as the work in it.

1. cat(a W, b W, ...) -> cat(a, b, ...) W            the inputs of all steps, along an axis that they are given
2. (m a) s -> m (a s), s = f(z) / z                  a s of all steps: the forward half is done when m comes

Guarantees: equal numbers up to rounding.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from math import prod
from typing import Any, ClassVar, Final, NamedTuple, final

from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_read_once
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import calls, erase_unused, is_constant, replace, rewrite_calls
from passes.graphs.nodes import argument, arguments

_SHORT: Final = 4096  # elements: above, copies cost more than the calls that they save


@final
class BatchSteps:
    """Do for all steps at once what they do alike."""

    name: ClassVar[str] = "batch-steps"

    def apply(self, module: GraphModule, /) -> int:
        count = rewrite_calls(module, {aten.cat.default: _products_of_parts})
        return count + _secants_at_once(module) + erase_unused(module)


def _products_of_parts(node: Node, emit: Emitter) -> Value | None:
    if argument(node, "dim") != 1:
        return None
    runs = [(weight, list(run)) for weight, run in groupby(argument(node, "tensors"), _weight_of)]
    if all(weight is None or len(run) == 1 for weight, run in runs):
        return None
    parts = list[Any]()
    for weight, run in runs:
        parts += run if weight is None or len(run) == 1 else [_product(run, weight, emit)]
    return parts[0] if len(parts) == 1 else emit.call(aten.cat.default, parts, 1)


def _weight_of(part: Node) -> Node | None:
    """The W of a W, one row a sample, that is given an axis of length 1 behind the batch."""
    product: Any = arguments(part)[0] if part.target is aten.reshape.default and is_read_once(part) else None
    if product is None or product.target is not aten.matmul.default or not is_read_once(product):
        return None
    row, weight = arguments(product)
    if row.meta["val"].dim() != 2 or weight.meta["val"].dim() != 2 or not (is_constant(weight) and _is_short(row)):
        return None
    given = [str(size) for size in part.meta["val"].shape[1:]]
    return weight if given == ["1", str(weight.meta["val"].shape[1])] else None


def _is_short(node: Node) -> bool:
    """Axes of known sizes behind the batch, with few elements."""
    sizes = node.meta["val"].shape[1:]
    return len(sizes) > 0 and all(isinstance(size, int) for size in sizes) and prod(sizes) <= _SHORT


def _product(run: list[Node], weight: Node, emit: Emitter) -> Value:
    rows = [arguments(arguments(part)[0])[0] for part in run]
    wide = emit.call(aten.cat.default, rows, 1)
    batch, size = rows[0].meta["val"].shape
    return emit.call(aten.matmul.default, wide.reshape([batch, len(rows), size]), weight)


class _Step(NamedTuple):
    """The node m a y / z."""

    node: Node
    m: Node
    a: Node
    y: Node
    z: Node


def _secants_at_once(module: GraphModule) -> int:
    place = {node: position for position, node in enumerate(module.graph.nodes)}
    series = defaultdict[str, list[_Step]](list)
    for node in calls(module, aten.mul.Tensor):
        step = _step(node, place)
        if step is not None:
            series[f"{node.meta['val'].shape} {node.meta['val'].dtype}"].append(step)
    count, emit = 0, Emitter(module)
    for steps in series.values():
        ready = [step for step in steps if max(place[step.a], place[step.y], place[step.z]) < place[steps[0].node]]
        if len(ready) > 1:
            _write(ready, emit)
            count += len(ready)
    return count


def _write(steps: list[_Step], emit: Emitter) -> None:
    with emit.inserting_before(steps[0].node):
        _, _, *known = zip(*steps, strict=True)
        a, y, z = (emit.call(aten.cat.default, list(column), 1) for column in known)
        at_zero = z.equals(0.0)
        factors = a * ((y + at_zero) / (z + at_zero))
    size, written = steps[0].node.meta["val"].shape[1], dict[Node, Value]()
    for position, step in enumerate(steps):
        with emit.inserting_before(step.node):
            own = factors.slice(1, position * size, (position + 1) * size)
            written[step.node] = written.get(step.m, emit.value(step.m)) * own
        replace(step.node, written[step.node])


def _step(node: Node, place: dict[Node, int]) -> _Step | None:
    shape = str(node.meta["val"].shape)
    if not _is_short(node):
        return None
    for product, quotient in (arguments(node)[:2], arguments(node)[1::-1]):
        secant = _secant(quotient)
        factors = arguments(product)[:2] if _is_product(product) else []
        alike = all(isinstance(f, Node) and str(f.meta["val"].shape) == shape for f in (*factors, *(secant or ())))
        if secant is not None and factors and alike:
            a, m = sorted(factors, key=place.__getitem__)
            return _Step(node, m, a, *secant)
    return None


def _is_product(node: Any) -> bool:
    return isinstance(node, Node) and node.target is aten.mul.Tensor and is_read_once(node)


def _secant(node: Any) -> tuple[Node, Node] | None:
    """(y, z) of (y + [z = 0]) / (z + [z = 0])."""
    if not isinstance(node, Node) or node.target is not aten.div.Tensor or not is_read_once(node):
        return None
    above, below = arguments(node)[:2]
    if any(getattr(part, "target", None) is not aten.add.Tensor or part.kwargs for part in (above, below)):
        return None
    (y, at_zero), (z, same) = arguments(above)[:2], arguments(below)[:2]
    hole = getattr(at_zero, "target", None) is aten.eq.Scalar and at_zero is same
    return (y, z) if hole and arguments(at_zero) == (z, 0.0) else None
