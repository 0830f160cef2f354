"""Passes that give a graph the further inputs that a question needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule

from passes.graphs.emitter import Emitter
from passes.relevance.annotations.add_reference import REFERENCE_INPUT
from passes.views.active import nodes_named, walk_start
from relcompile.files.records import MANY
from relcompile.question.targets import TARGET_INPUT, Target, input_value


@final
@dataclass(frozen=True)
class AddTarget:
    """Before: inputs of the model. After: behind them the input `target`, which nobody reads yet.

    Attributes:
        target: one that has such an input.
        output: position of the explained output.
        start: name of the value where relevance starts; None for that output.
    """

    target: Target
    output: int
    start: str | None
    name: ClassVar[str] = "add-target"

    def apply(self, module: GraphModule, /) -> int:
        self.target.add_input(Emitter(module), walk_start(module, self.output, self.start).meta["val"])
        return 1


@final
@dataclass(frozen=True)
class AddMasks:
    """Before: inputs. After: behind them one (N, channels) for each value (N, channels, ...) that is to be masked.

    Attributes:
        names: of the new inputs, by name of the value.
        questions: how many masks every sample has, (N, questions, channels); "questions": as many as targets.
    """

    names: Mapping[str, str]
    questions: int | str | None
    name: ClassVar[str] = "add-masks"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        for node, name in zip(nodes_named(module, tuple(self.names)), self.names.values(), strict=True):
            like: torch.Tensor = node.meta["val"]
            emit.placeholder(name, like, shape=(like.shape[0], *self._count(emit), like.shape[1]))
        return len(self.names)

    def _count(self, emit: Emitter) -> tuple[Any, ...]:
        if self.questions == MANY:
            return (input_value(emit, TARGET_INPUT).shape[1],)
        return () if self.questions is None else (self.questions,)


@final
@dataclass(frozen=True)
class AddNoise:
    """Before: explained inputs (N, ...). After: behind all inputs one of noise (N, copies, ...) for each of them.

    Attributes:
        names: of the new inputs, by explained input.
        copies: of every sample.
    """

    names: Mapping[str, str]
    copies: int
    name: ClassVar[str] = "add-noise"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        for node in nodes_named(module, tuple(self.names)):
            like: torch.Tensor = node.meta["val"]
            emit.placeholder(self.names[node.name], like, shape=(like.shape[0], self.copies, *like.shape[1:]))
        return len(self.names)


@final
@dataclass(frozen=True)
class AddBaseline:
    """Before: the explained input (N, ...). After: behind all inputs one like it, `reference`, where paths start.

    Attributes:
        source: name of the explained input.
    """

    source: str
    name: ClassVar[str] = "add-baseline"

    def apply(self, module: GraphModule, /) -> int:
        (node,) = nodes_named(module, (self.source,))
        Emitter(module).placeholder(REFERENCE_INPUT, node.meta["val"])
        return 1
