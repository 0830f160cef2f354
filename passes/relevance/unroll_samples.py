"""f(x) -> f on a batch in which every sample is followed by copies of it, and back.

Noisy copies (SmoothGrad) or points on a path (Integrated Gradients) are rows like any others: one forward pass and
one reverse walk serve the sample and all its copies, for any batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import arguments
from passes.graphs.shapes import evaluate_shape
from passes.views.active import nodes_named


@dataclass(frozen=True)
class Rows:
    """Where a sample and its `copies` stand in the batch: rows 0, 1 + copies, 2 (1 + copies), ... are the samples."""

    copies: int = 0

    def samples(self, value: Value) -> Value:
        """The rows of the samples themselves, (N (1 + copies), ...) -> (N, ...)."""
        if not self.copies:
            return value
        return value.emit.call(aten.select.int, self._apart(value), 1, 0)

    def repeated(self, value: Value) -> Value:
        """Every row 1 + copies times, (N, ...) -> (N (1 + copies), ...)."""
        if not self.copies:
            return value
        wide = value.emit.call(aten.unsqueeze.default, value, 1)
        sizes = [-1, 1 + self.copies, *[-1] * (value.ndim - 1)]
        return value.emit.call(aten.expand.default, wide, sizes).reshape([-1, *value.shape[1:]])

    def followed_by(self, value: Value, copies: Value) -> Value:
        """(N, ...) and (N, copies, ...) -> (N (1 + copies), ...)."""
        own = value.emit.call(aten.unsqueeze.default, value, 1)
        return value.emit.call(aten.cat.default, [own, copies], 1).reshape([-1, *value.shape[1:]])

    def mean(self, value: Value) -> Value:
        """Mean over the copies, without the samples themselves, (N (1 + copies), ...) -> (N, ...)."""
        copies = self._apart(value).slice(1, 1, 1 + self.copies)
        return value.emit.call(aten.mean.dim, copies, [1])

    def _apart(self, value: Value) -> Value:
        return value.reshape([-1, 1 + self.copies, *value.shape[1:]])


@final
@dataclass(frozen=True)
class UnrollSamples:
    """Before: f on inputs (N, ...). After: f on (N (1 + copies), ...), every sample and then its copies.

    Attributes:
        rows: how they lie in the batch.
        inputs: names of the model's inputs.
        draw: by input name, what writes its copies (N, copies, ...); the other inputs are repeated.

    Guarantees: the rows of the samples are what they were; the node that stands for input x is called
    `unrolled_name(x)`; every shape is evaluated again.
    """

    rows: Rows
    inputs: tuple[str, ...]
    draw: Mapping[str, Callable[[Value], Value]]
    name: ClassVar[str] = "unroll-samples"

    def apply(self, module: GraphModule, /) -> int:
        emit, changed = Emitter(module), set[Node]()
        first = module.graph.find_nodes(op="placeholder")[-1].next
        for node in nodes_named(module, self.inputs):
            readers = list(node.users)
            with emit.inserting_before(first):
                unrolled = self._unrolled(emit.value(node)).node
            unrolled.name = unrolled_name(node.name)
            for reader in readers:
                reader.replace_input_with(node, unrolled)
            changed.add(unrolled)
        _evaluate_shapes(module, changed)
        return len(self.inputs)

    def _unrolled(self, x: Value) -> Value:
        draw = self.draw.get(x.node.name)
        return self.rows.repeated(x) if draw is None else self.rows.followed_by(x, draw(x))


@final
@dataclass(frozen=True)
class AverageSamples:
    """Before: outputs over samples and copies. After: the model's outputs for the samples, means of all others.

    Attributes:
        rows: how they lie in the batch.
        kept: how many outputs are the model's own.
        sources: names of the explained inputs, one for each of the outputs after those.
        finish: (input, mean) -> what the user gets.
    """

    rows: Rows
    kept: int
    sources: tuple[str, ...]
    finish: Callable[[Value, Value], Value]
    name: ClassVar[str] = "average-samples"

    def apply(self, module: GraphModule, /) -> int:
        emit, node = Emitter(module), module.graph.output_node()
        outputs = [emit.value(value) for value in arguments(node)[0]]
        own = [self.rows.samples(value) for value in outputs[: self.kept]]
        means = [self.rows.mean(value) for value in outputs[self.kept :]]
        inputs = map(emit.value, nodes_named(module, self.sources))
        finished = [self.finish(x, mean) for x, mean in zip(inputs, means, strict=False)]
        results = (*own, *finished, *means[len(finished) :])
        node.args = (tuple(value.node for value in results),)
        return len(outputs)


def unrolled_name(name: str) -> str:
    """The name of the node that holds input `name` and its copies."""
    return f"{name}_and_copies"


def _evaluate_shapes(module: GraphModule, changed: set[Node]) -> None:
    """Shapes of everything behind `changed`."""
    for node in module.graph.nodes:
        if node.op == "call_function" and not changed.isdisjoint(node.all_input_nodes):
            node.meta["val"] = evaluate_shape(node)
            changed.add(node)
