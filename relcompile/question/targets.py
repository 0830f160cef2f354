"""What is explained: the kinds of target, and what each chooses at the explained output."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import torch

from passes.graphs.emitter import Emitter, Value, aten
from relcompile.errors import TargetError
from relcompile.files.records import TargetRecord
from relcompile.metadata import TARGET_INPUT

FIRST_QUESTION: Final = "first question"  # the anchor of V[:, 0]
EXPLAINED_CLASSES: Final = "first explained class"  # the same of the classes (N, K), if the file has to say them


class Target(Protocol):
    """Which entries of the explained output y (N, classes, ...) are explained.

    Attributes:
        is_input: the explainer has an input `target`.
        is_seed: that input is what relevance starts with, not the choice of a class.
        is_many: a sample is asked K questions V (N, K, ...): `choice` asks the first, anchored as `FIRST_QUESTION`.
        is_one_class: relevance starts at one class, with its score.
    """

    is_input: bool = False
    is_seed: bool = False
    is_many: bool = False
    is_one_class: bool = False

    @abstractmethod
    def record(self, classes: int | None, /) -> TargetRecord:
        """As the metadata say it; `classes` is None if y is one number per sample.

        Raises:
            TargetError: the output does not have the class.
        """

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        """Add the input, for an output like this fake tensor, if there is one."""

    @abstractmethod
    def choice(self, y: Value, /) -> Value:
        """Write 1 at the target and 0 elsewhere, in the shape of y; or the seed."""


@final
@dataclass(frozen=True)
class ClassInput(Target):
    """A runtime input `target` int64 (N,): the class of every sample; NaN where there is no such class."""

    is_input = True
    is_one_class = True

    def record(self, classes: int | None, /) -> TargetRecord:
        return TargetRecord("index", classes=classes)

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        emit.placeholder(TARGET_INPUT, like, shape=like.shape[:1], dtype=torch.int64)

    def choice(self, y: Value, /) -> Value:
        return y.ones() if number_of_classes(y.fake) is None else one_at(input_value(y.emit, TARGET_INPUT), y)


@final
@dataclass(frozen=True)
class BestClass(Target):
    """The class with the largest score, of an output with further axes at each of its places."""

    is_one_class = True

    def record(self, classes: int | None, /) -> TargetRecord:
        return TargetRecord("argmax", classes=classes)

    def choice(self, y: Value, /) -> Value:
        if number_of_classes(y.fake) is None:
            return y.ones()
        positions = _positions(y)
        best = y.emit.call(aten.argmax.default, y, 1)
        best = best.reshape([-1, 1]) if y.ndim == 2 else y.emit.call(aten.unsqueeze.default, best, 1)
        return _one_where(best.equals(positions), y)


@final
@dataclass(frozen=True)
class FixedClass(Target):
    """Always the class `index`."""

    index: int
    is_one_class = True

    def record(self, classes: int | None, /) -> TargetRecord:
        if classes is None and self.index != 0:
            raise TargetError(f"target {self.index} does not exist: the explained output is one number per sample")
        if classes is not None and not 0 <= self.index < classes:
            raise TargetError(f"target {self.index} does not exist: the explained output has {classes} classes")
        return TargetRecord("fixed", self.index, classes)

    def choice(self, y: Value, /) -> Value:
        if number_of_classes(y.fake) is None:
            return y.ones()
        return _one_where(_positions(y).equals(self.index), y)


@final
@dataclass(frozen=True)
class Seed(Target):
    """A runtime input `target` like the output: relevance, or for gradients a cotangent."""

    is_input = True
    is_seed = True

    def record(self, classes: int | None, /) -> TargetRecord:
        return TargetRecord("seed", classes=classes)

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        emit.placeholder(TARGET_INPUT, like)

    def choice(self, y: Value, /) -> Value:
        return input_value(y.emit, TARGET_INPUT)


def number_of_classes(output: torch.Tensor) -> int | None:
    """Size of the class axis; None for an output of one number per sample, which needs no target."""
    shape: tuple[Any, ...] = tuple(output.shape)
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None


def _positions(y: Value) -> Value:
    """The number of every class, (1, classes, 1, ...)."""
    shape = [1, y.shape[1]] + [1] * (y.ndim - 2)
    return y.emit.constant("classes", torch.arange(y.shape[1]).reshape(shape))


def one_at(index: Value, y: Value) -> Value:
    """1 at the class of every sample, `index` (N,), and 0 elsewhere, in the shape of y."""
    positions = _positions(y)
    chosen = _one_where(index.reshape([-1] + [1] * (y.ndim - 1)).equals(positions), y)
    return chosen / chosen.sum([1], keepdim=True)  # 1/1; a class that does not exist is 0/0 and ends in NaN


def _one_where(chosen: Value, y: Value) -> Value:
    return y.ones().where(chosen, 0.0)


def input_value(emit: Emitter, name: str) -> Value:
    """The input of the graph called `name`."""
    inputs = emit.module.graph.find_nodes(op="placeholder")
    return emit.value(next(node for node in inputs if node.target == name))
