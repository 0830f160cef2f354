"""Single entries of an output with several axes, and regions of it: a class at a position, at a pixel, over an object.

Notation: y the explained output (N, d_1, ..., d_n); c what is explained of it, in its shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, final

import torch

from passes.graphs.emitter import Emitter, Value, aten
from relcompile.errors import TargetError
from relcompile.files.records import MANY, TargetRecord
from relcompile.question.many_targets import first_of, free_size
from relcompile.question.targets import FIRST_QUESTION, TARGET_INPUT, Target, input_value


@final
@dataclass(frozen=True)
class EntryInput(Target):
    """A runtime input `target` int64 (N, n): of every sample one index for each axis of y; NaN where nothing is there.

    Equation: c = 1 at y[s, target[s, 0], ..., target[s, n - 1]], and 0 elsewhere.
    """

    is_input = True

    def record(self, _classes: int | None, /) -> TargetRecord:
        return TargetRecord("entry")

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        emit.placeholder(TARGET_INPUT, like, shape=(like.shape[0], _axes(like)), dtype=torch.int64)

    def choice(self, y: Value, /) -> Value:
        return _one_at_entry(input_value(y.emit, TARGET_INPUT), y)


@final
@dataclass(frozen=True)
class EntryInputs(Target):
    """A runtime input `target` int64 (N, K, n): K entries of every sample."""

    is_input = True
    is_many = True

    def record(self, _classes: int | None, /) -> TargetRecord:
        return TargetRecord("entry", questions=MANY)

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        shape = (like.shape[0], free_size(like), _axes(like))
        emit.placeholder(TARGET_INPUT, like, shape=shape, dtype=torch.int64)

    def choice(self, y: Value, /) -> Value:
        return _one_at_entry(first_of(input_value(y.emit, TARGET_INPUT), FIRST_QUESTION), y)


@final
@dataclass(frozen=True)
class RegionInput(Target):
    """A runtime input `target` like y: 1 where it is explained and 0 elsewhere, or any weights.

    Equation: c = target: Σ c ⊙ y is explained.
    """

    is_input = True

    def record(self, classes: int | None, /) -> TargetRecord:
        return TargetRecord("region", classes=classes)

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        emit.placeholder(TARGET_INPUT, like)

    def choice(self, y: Value, /) -> Value:
        return input_value(y.emit, TARGET_INPUT)


def _axes(y: torch.Tensor) -> int:
    if y.dim() < 2:
        raise TargetError("the explained output is one number per sample: it has no entries to choose from")
    return y.dim() - 1


def _one_at_entry(indices: Value, y: Value) -> Value:
    """1 at the entry of every sample, `indices` (N, n), and 0 elsewhere, in the shape of y."""
    here = reduce(Value.both, (_at_index(indices, y, axis) for axis in range(1, y.ndim)))
    chosen = y.ones().where(here, 0.0)
    return chosen / chosen.sum(range(1, y.ndim), keepdim=True)  # an entry that does not exist is 0/0 and ends in NaN


def _at_index(indices: Value, y: Value, axis: int) -> Value:
    """Where an axis of y has the index of the sample, broadcast against y."""
    emit, alone = y.emit, [1] * (y.ndim - 1)
    size: Any = y.shape[axis]
    positions = (
        emit.constant("positions", torch.arange(size))
        if isinstance(size, int)
        else emit.call(aten.arange.default, emit.call(aten.sym_size.int, y, axis))
    )
    along = [*alone[:axis], -1, *alone[axis:]]
    index = emit.call(aten.select.int, indices, 1, axis - 1).reshape([-1, *alone])
    return index.equals(positions.reshape(along))
