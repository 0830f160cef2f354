"""explainer of one question a sample -> the same of K questions a sample, which share one forward half.

Notation: N samples, K questions to each; a value whose samples lie along an axis, c rows each (copies, say), is
(..., N c, ...).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, NamedTuple, final

import torch
from torch.fx import GraphModule, Node

from passes.errors import UnsupportedOperatorError
from passes.graphs.anchors import drop_anchors
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import calls, describe_node, erase_unused
from passes.graphs.nodes import arguments, map_nodes
from passes.views.active import nodes_named

_ELEMENTWISE: Final = (  # and what torch tags as pointwise
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.elu_backward.default,
    aten.hardsigmoid_backward.default,
    aten.leaky_relu_backward.default,
    aten.softplus_backward.default,
)


@final
@dataclass(frozen=True)
class AnswerQuestions:
    """Give everything that depends on a question an axis of questions, and nothing else.

    Before: the questions are values V (N, K, ...), and the graph answers the first, V[:, 0], a node that has a name.
    After: the outputs that depend on it are (N, K, ...), one answer a question.

    Operators treat samples apart, so K rows may stand for each: what depends on a question is (N K, ...). Elementwise
    operators see (N, K, ...) beside (N, 1, ...): what knows nothing of questions (the forward half, masks and
    denominators) is computed once a sample. The others see it K times.

    Attributes:
        firsts: names of the nodes V[:, 0].
        shown: those of which V becomes a further output.
        copies: rows of the batch for each sample, one after the other.

    Guarantees: answer k is what the graph computed if V[:, k] was the question; other outputs are untouched.

    Raises (from `apply`):
        UnsupportedOperatorError: a value that meets a question has no axis for the samples alone.
    """

    firsts: tuple[str, ...]
    shown: tuple[str, ...] = ()
    copies: int = 1
    name: ClassVar[str] = "answer-questions"

    def apply(self, module: GraphModule, /) -> int:
        emit, firsts = Emitter(module), nodes_named(module, self.firsts)
        given = [emit.value(arguments(first)[0]) for first in firsts]
        questions = _Questions(emit, given[0], self.copies, dict(zip(firsts, given, strict=True)))
        for node in calls(module):
            if node not in firsts and any(map(questions.depends, node.all_input_nodes)):
                with emit.on_behalf_of(node):
                    questions.ask(node)
        output = module.graph.output_node()
        shown = [arguments(first)[0] for first in nodes_named(module, self.shown)]
        output.args = ((*map(questions.answer, arguments(output)[0]), *shown),)
        drop_anchors(module, self.firsts)
        return erase_unused(module)


class _Place(NamedTuple):
    """Where the samples of a value lie: along `axis`, `rows` of them each."""

    axis: int
    rows: int


@dataclass(frozen=True, eq=False)
class _Questions:
    """K questions to each of N samples, and what depends on them.

    Attributes:
        emit: writes the answers.
        asked: any V (N, K, ...).
        copies: the c of the batch.
        apart: nodes for all questions, (..., N, K, ...).
        rows: the same, (..., N K c, ...); a node has one layout, and gets the other when somebody asks.
        repeated: nodes that do not depend on questions, K times.
    """

    emit: Emitter
    asked: Value
    copies: int
    apart: dict[Node, Value]
    rows: dict[Node, Value] = field(default_factory=dict[Node, Value])
    repeated: dict[Node, Value] = field(default_factory=dict[Node, Value])

    @cached_property
    def count(self) -> Any:
        """K, a number or a node."""
        size = self.asked.shape[1]
        return size if isinstance(size, int) else self.emit.call(aten.sym_size.int, self.asked, 1).node

    @cached_property
    def total(self) -> Value:
        """N K."""
        return self.emit.call(operator.mul, self.emit.call(aten.sym_size.int, self.asked, 0), self.count)

    def depends(self, node: Node) -> bool:
        """The node differs from question to question."""
        return node in self.apart or node in self.rows

    def ask(self, node: Node) -> None:
        """Write `node` for all questions."""
        if isinstance(node.meta["val"], torch.SymInt):
            node.args = (self.asked.node, 0)  # a size, which does not depend on what is asked
        elif _is_elementwise(node) and (axis := self._shared_axis(node)) is not None:
            tail = node.meta["val"].dim() - axis
            self.apart[node] = self._run(node, lambda operand: self._beside(operand, tail))
        else:
            self.rows[node] = self._run(node, self._as_rows)

    def answer(self, node: Node) -> Node:
        """What becomes of an output."""
        return self._as_apart(node).node if self.depends(node) else node

    def _run(self, node: Node, operand: Callable[[Node], Value]) -> Value:
        read = {argument: operand(argument) for argument in node.all_input_nodes}
        args, kwargs = map_nodes((node.args, node.kwargs), lambda n: read[n].node)
        return self.emit.call(node.target, *args, **kwargs)

    def _shared_axis(self, node: Node) -> int | None:
        """The axis that holds the samples of all operands, one row each; None if there is none, or if rows will do."""
        place, ndim = self._place(node), node.meta["val"].dim()
        places = {operand: self._place(operand) for operand in node.all_input_nodes}
        met = {operand: found for operand, found in places.items() if found is not None}
        aligned = all(place == (axis + ndim - n.meta["val"].dim(), rows) for n, (axis, rows) in met.items())
        if place is None or place.rows > 1 or not aligned or all(operand in self.rows for operand in met):
            return None
        return place.axis

    def _beside(self, operand: Node, tail: int) -> Value:
        """The operand of an elementwise operator, with an axis for the questions behind that of the samples.

        `tail`: that of the samples, counted from the end.
        """
        if self.depends(operand):
            return self._as_apart(operand)
        value = self.emit.value(operand)
        return value if value.ndim < tail else self.emit.call(aten.unsqueeze.default, value, value.ndim - tail + 1)

    def _as_apart(self, node: Node) -> Value:
        if node not in self.apart:
            axis, _ = self._require_place(node)
            shape = self.rows[node].shape
            self.apart[node] = self._reshape(self.rows[node], [*shape[:axis], -1, self.count, *shape[axis + 1 :]])
        return self.apart[node]

    def _as_rows(self, node: Node) -> Value:
        """The operand of an operator that gets K rows for every sample."""
        if node in self.rows:
            return self.rows[node]
        if node in self.apart:
            axis, shape = self._require_place(node).axis, self.apart[node].shape
            self.rows[node] = self._reshape(self.apart[node], [*shape[:axis], -1, *shape[axis + 2 :]])
            return self.rows[node]
        if self.emit.is_of_batch(node.meta["val"]):
            rows = self._rows_in(node.meta["val"], node)
            return self.total if rows == 1 else self.emit.call(operator.mul, self.total, rows)
        return self.emit.value(node) if self._place(node) is None else self._repeated(node)

    def _repeated(self, node: Node) -> Value:
        if node not in self.repeated:
            (axis, rows), value = self._require_place(node), self.emit.value(node)
            if rows != self.copies:  # nobody knows whether samples or what they share the axis with come first
                raise _scattered(node)
            before, behind = value.shape[:axis], value.shape[axis + 1 :]
            wide = self._reshape(value, [*before, -1, 1, rows, *behind])
            wide = self.emit.call(aten.expand.default, wide, [*before, -1, self.count, rows, *behind])
            self.repeated[node] = self._reshape(wide, [*before, -1, *behind])
        return self.repeated[node]

    def _reshape(self, value: Value, sizes: list[Any]) -> Value:
        return self.emit.call(aten.reshape.default, value, sizes)

    def _place(self, node: Node) -> _Place | None:
        """None for a value that all samples share."""
        value = node.meta["val"]
        sizes = enumerate(value.shape if isinstance(value, torch.Tensor) else ())
        places = [_Place(axis, self._rows_in(size, node)) for axis, size in sizes if self.emit.is_of_batch(size)]
        if len(places) > 1:
            raise _scattered(node)
        return places[0] if places else None

    def _require_place(self, node: Node) -> _Place:
        place = self._place(node)
        if place is None:
            raise _scattered(node)
        return place

    def _rows_in(self, size: Any, node: Node) -> int:
        """The c of a size N c."""
        rows = size.node.expr / self.asked.shape[0].node.expr
        if not rows.is_Integer:
            raise _scattered(node)
        return int(rows)


def _is_elementwise(node: Node) -> bool:
    tensors = all(isinstance(operand.meta["val"], torch.Tensor) for operand in node.all_input_nodes)
    return tensors and (torch.Tag.pointwise in getattr(node.target, "tags", ()) or node.target in _ELEMENTWISE)


def _scattered(node: Node) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"many questions at once are not defined for a model in which the batch is no axis of its own: "
        f"{describe_node(node)}; ask one question at a time"
    )
