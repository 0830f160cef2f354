"""Several targets for every sample, and what they choose.

A target that asks K questions writes them as V (N, K, ...) and answers the first, V[:, 0]; `AnswerQuestions` gives the
others their answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import getitem
from typing import Any, final

import torch
from torch._dynamo.source import ConstantSource
from torch._guards import detect_fake_mode
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

from passes.graphs.anchors import add_anchor
from passes.graphs.emitter import Emitter, Value, aten
from relcompile.errors import TargetError
from relcompile.files.records import MANY, TargetRecord
from relcompile.question.targets import (
    EXPLAINED_CLASSES,
    FIRST_QUESTION,
    TARGET_INPUT,
    FixedClass,
    Target,
    input_value,
    one_at,
)


@final
@dataclass(frozen=True)
class ClassInputs(Target):
    """A runtime input `target` int64 (N, K): K classes of every sample."""

    is_input = True
    is_many = True
    is_one_class = True

    def record(self, classes: int | None, /) -> TargetRecord:
        return TargetRecord("index", classes=_require(classes), questions=MANY)

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        emit.placeholder(TARGET_INPUT, like, shape=(like.shape[0], free_size(like)), dtype=torch.int64)

    def choice(self, y: Value, /) -> Value:
        return one_at(first_of(input_value(y.emit, TARGET_INPUT), FIRST_QUESTION), y)


@final
@dataclass(frozen=True)
class Seeds(Target):
    """A runtime input `target` (N, K, ...): K times what `Seed` is."""

    is_input = True
    is_seed = True
    is_many = True

    def record(self, classes: int | None, /) -> TargetRecord:
        return TargetRecord("seed", classes=classes, questions=MANY)

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        emit.placeholder(TARGET_INPUT, like, shape=(like.shape[0], free_size(like), *like.shape[1:]))

    def choice(self, y: Value, /) -> Value:
        return first_of(input_value(y.emit, TARGET_INPUT), FIRST_QUESTION)


@final
@dataclass(frozen=True)
class BestClasses(Target):
    """The `count` classes with the largest scores, the best one first."""

    count: int
    is_many = True
    is_one_class = True

    def record(self, classes: int | None, /) -> TargetRecord:
        if not 1 <= self.count <= _require(classes):
            raise TargetError(f"target topk:{self.count} does not exist: the explained output has {classes} classes")
        return TargetRecord("argmax", classes=classes, questions=self.count)

    def choice(self, y: Value, /) -> Value:
        if y.ndim != 2:
            raise TargetError(f"target topk:{self.count} needs an output (batch, classes), not one with {y.ndim} axes")
        best: Any = y.emit.call(aten.topk.default, y, self.count, 1)
        return one_at(first_of(y.emit.call(getitem, best, 1), FIRST_QUESTION, EXPLAINED_CLASSES), y)


@final
@dataclass(frozen=True)
class FixedClasses(Target):
    """Always these classes; None for all of them."""

    indices: tuple[int, ...] | None
    is_many = True
    is_one_class = True

    def record(self, classes: int | None, /) -> TargetRecord:
        for index in self.indices or ():
            FixedClass(index).record(_require(classes))
        count = _require(classes) if self.indices is None else len(self.indices)
        return TargetRecord("fixed", classes=classes, questions=count, indices=self.indices)

    def choice(self, y: Value, /) -> Value:
        return one_at(first_of(self.chosen(y), FIRST_QUESTION, EXPLAINED_CLASSES), y)

    def chosen(self, y: Value) -> Value:
        """Write the classes (N, K)."""
        indices = y.emit.constant("explained_classes", torch.tensor([self.indices or tuple(range(y.shape[1]))]))
        return y.emit.call(aten.expand.default, indices, [y.emit.call(aten.sym_size.int, y, 0), -1])


def first_of(questions: Value, *anchors: str) -> Value:
    """V[:, 0], which gets names."""
    first = questions.emit.call(aten.select.int, questions, 1, 0)
    for anchor in anchors:
        add_anchor(questions.emit.module, anchor, first.node)
    return first


def _require(classes: int | None) -> int:
    if classes is None:
        raise TargetError("several targets need classes, but the explained output is one number per sample")
    return classes


def free_size(like: torch.Tensor) -> Any:
    """A new symbol beside those of the fake tensor `like`: the size K."""
    mode: Any = detect_fake_mode([like])
    context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
    return mode.from_tensor(torch.zeros(3), source=ConstantSource("questions"), symbolic_context=context).shape[0]
